"""Compiled code that prints whatever it is told does not reach the output of a command."""

import subprocess
import sys

SCRIPT = """
import ctypes, os, sys
from prunekit.allocation.silence import silent_output
say = ctypes.CDLL(None).puts
print("first", flush=True)
say(b"before")
with silent_output():
    say(b"inside")
    os.write(1, b"inside too")
say(b"after")
print("last")
sys.stdout.flush()
"""


def run(script, **how):
    return subprocess.run([sys.executable, "-c", script], check=True, text=True, timeout=60, **how)


def test_what_is_printed_inside_is_dropped_and_nothing_else():
    told = run(SCRIPT, stdout=subprocess.PIPE).stdout.split()
    assert sorted(told) == ["after", "before", "first", "last"]


def test_without_a_standard_output_it_does_nothing():
    run("import os; os.close(1)\nfrom prunekit.allocation.silence import silent_output\nwith silent_output(): pass")


def test_the_output_is_there_again_after_an_error():
    told = run(
        "from prunekit.allocation.silence import silent_output\n"
        "try:\n    with silent_output(): raise ValueError\nexcept ValueError: print('heard')",
        stdout=subprocess.PIPE,
    ).stdout
    assert told == "heard\n"


def test_two_at_once_leave_the_output_as_it_was():
    told = run(
        "import threading, time\n"
        "from prunekit.allocation.silence import silent_output\n"
        "def work(seconds):\n    with silent_output(): time.sleep(seconds)\n"
        "first, second = (threading.Thread(target=work, args=(s,)) for s in (0.3, 0.6))\n"
        "first.start(); time.sleep(0.1); second.start(); first.join(); second.join()\nprint('heard')",
        stdout=subprocess.PIPE,
    ).stdout
    assert told == "heard\n"
