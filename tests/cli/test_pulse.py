"""A command that has nothing to say yet says what it is doing: on terminals at once, elsewhere after some seconds."""

from __future__ import annotations

import io
import sys
import time

import pytest
from rich.console import Console

from prunekit.cli.app import run
from prunekit.cli.console import pulse
from prunekit.cli.console.bars import bars_for
from prunekit.recipes.stages import Distil
from prunekit.runs.outcome import Event

SLOW = """
import time
from torch import nn

def net():
    time.sleep(0.6)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
"""


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def slow(tmp_path, monkeypatch):
    (tmp_path / "slow_nets.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(pulse, "FIRST", 0.2)
    monkeypatch.setattr(pulse, "AT_ONCE", 0.1)
    yield
    sys.modules.pop("slow_nets", None)


COMMANDS = (
    ["prune", "python:slow_nets:net", "--ratio", "0.5", "--out", "{out}", "--set", "images=2", "--set", "val_images=2"],
    ["plan", "python:slow_nets:net", "--ratio", "0.5", "--out", "{out}.json", "--scorer", "magnitude"],
    ["trace", "python:slow_nets:net"],
    ["compare", "python:slow_nets:net", "--ratio", "0.5", "--scorers", "magnitude", "--seeds", "1", "--images", "2"],
    ["doctor", "python:slow_nets:net"],
)


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_silence_in_a_pipe_is_filled_on_the_standard_error_alone(command, more, slow, tmp_path, capsys):
    assert run([*(word.format(out=tmp_path / "out") for word in command), *more]) == 0
    said = capsys.readouterr()
    assert "so far" in said.err
    assert "so far" not in said.out
    assert "\x1b" not in said.err


def test_who_asks_for_quiet_gets_it(slow, tmp_path, capsys):
    line = [word.format(out=tmp_path / "out") for word in COMMANDS[0]]
    assert run([*line, "-q"]) == 0
    assert "so far" not in capsys.readouterr().err


def test_on_a_terminal_a_line_is_drawn_and_gone_before_anything_else_is_said(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(pulse, "AT_ONCE", 0.05)
    monkeypatch.setenv("TERM", "xterm")
    own = pulse.Pulse()
    with own.beating(), own.about("building"):
        waited(lambda: "building, 0 s" in terminal.getvalue())
        own.noted()
        assert terminal.getvalue().endswith(pulse._WIPE)
    assert terminal.getvalue().endswith(pulse._WIPE)
    assert "\n" not in terminal.getvalue()


def test_a_display_that_draws_for_itself_is_left_alone(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(pulse, "AT_ONCE", 0.02)
    own = pulse.Pulse()
    with own.beating(), own.about("training", drawn=True):
        time.sleep(0.2)
    assert terminal.getvalue() == ""


def test_lines_in_a_log_come_less_and_less_often(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(pulse, "FIRST", 0.05)
    monkeypatch.setattr(pulse, "AT_ONCE", 0.02)
    own = pulse.Pulse()
    with own.beating(), own.about("a long step"):
        waited(lambda: log.getvalue().count("\n") >= 3)
    assert own._patience == pulse.FIRST  # and begin anew with the next step


def test_a_reader_that_went_away_stops_nothing(monkeypatch):
    class Gone(Terminal):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    monkeypatch.setattr(pulse, "AT_ONCE", 0.02)
    own = pulse.Pulse()
    with own.beating(), own.about("building"):
        time.sleep(0.1)


def waited(until, most=10.0):
    ends = time.monotonic() + most
    while not until():
        assert time.monotonic() < ends
        time.sleep(0.01)


@pytest.mark.parametrize("terminal", [True, False])
def test_figures_of_a_step_have_their_units(terminal):
    out = Terminal() if terminal else io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=160)
    event = Event(0, "distilling", 1, 4, "steps", {"loss": 0.25, "needs_gib": 1.5})
    with bars_for(console, [Distil("distilling", ())]) as shown:
        shown(event)
    assert "loss 0.25  needs 1.5 GiB" in out.getvalue()
