"""Each flag and argument of each command against what it cannot be: 2, one message that names it, no traceback.

The flags are read from the commands: a new one without a row here fails the first test.
"""

from __future__ import annotations

import sys

import pytest

from benchmarks.faults.flags import LINES, every_flag, leaves, prepared
from prunekit.cli.app import run

HUGE, LONG = "9" * 40, "é" * 300
MODELS = (("timm:resnet18x", "did you mean"), ("", ""), ("python:none:f", "none"), ("timm:", "timm"))
WHOLE = (("-1", "{}"), (HUGE, "out of range"), ("2.5", "integer"), ("nan", "integer"), ("", "integer"))
SEED = (("-1", "is negative"), (HUGE, "too large"), (str(2**64), "too large"), ("0.5", "integer"), ("nan", "integer"))
FOLDER = (("nowhere", "nowhere"), ("hostile_nets.py", "hostile_nets.py"), (LONG, ""))
OUT = (("hostile_nets.py", "is a file"), (".", "not empty"), ("hostile_nets.py/in", "is a file"), (LONG, ""))
# (text, word of the message); by the flag, or by the command and the flag where a command means something else by it
ROWS = {
    "MODEL": MODELS,
    "MODELS": (("sam:nan", "sam:nano"), ("", "model.json"), ("nowhere", "nowhere")),
    "FILE": FOLDER,
    "PLAN": (("nowhere.json", "nowhere.json"), ("hostile_nets.py", "not a plan"), (LONG, "")),
    "FOLDER": FOLDER,
    "FOLDERS": FOLDER,
    "FIRST": FOLDER,
    "SECOND": FOLDER,
    "KIND": (("scorer", "scorers"), ("", "kind of list"), (LONG, "kind of list")),
    "NAME": (("onshot", "oneshot"), ("", "unknown recipe"), ("no.yaml", "no.yaml")),
    "plugins new NAME": (("My Plug", "next:"), ("", "next:"), (LONG, "next:")),
    "--recipe": (("onshot", "oneshot"), ("", "unknown recipe"), (LONG, "unknown recipe"), ("no.yaml", "no.yaml")),
    "--ratio": (("1", "--ratio 1"), ("-0.1", "--ratio"), ("nan", "--ratio nan"), ("1e400", "--ratio"), ("", "--ratio")),
    "--target": (
        ("makes<=50%", "macs"),
        ("macs<=nan", ""),
        ("macs<=-1", ""),
        ("", "empty"),
        (HUGE, "not a target"),
        ("latency[fast]<=50%", "latency[onnx]"),
    ),
    "--include": (("nowhere*", "nowhere*"), ("", ""), (LONG, "")),
    "--roles": (("nowhere*", "nowhere*"), ("", ""), (LONG, "")),
    "--exclude": (("nowhere*", "nowhere*"), ("", ""), (LONG, "")),
    "--ranking": (("globl", "global"), ("", "ranking"), ("nan", "ranking")),
    "--allocation": (("mesured", "measured"), ("", "allocation"), ("nan", "allocation")),
    "--compensate": (("rigde", "ridge"), ("nan", "ridge"), (HUGE, "ridge")),
    "--replace": (("affin", "affine"), ("nan", "affine"), (HUGE, "affine")),
    "--checkpoint": (("none.pth", "none.pth"), (".", "checkpoint"), ("hostile_nets.py", "hostile_nets.py"), (LONG, "")),
    "--data": FOLDER,
    "--val": FOLDER,
    "--out": OUT,
    "eval --checkpoint": (("none.pth", "none.pth"), (".", "checkpoint"), (LONG, "")),  # weights are read after the data
    "plan --out": ((".", "is a folder"), ("hostile_nets.py", "no plan"), ("no/where.json", "not there"), (LONG, "")),
    "report --out": (
        (".", "is a folder"),
        ("/dev/null", "is no file"),
        ("hostile_nets.py/in", "hostile_nets.py"),
        (LONG, ""),
    ),
    "eval --out": ((".", "is a folder"), ("/dev/null", "is no file")),
    "--device": (("toaster", "--device toaster"), ("", "--device"), ("cuda:99", "--device"), ("meta", "--device meta")),
    "--seed": SEED,
    "--scorer": (("magnitud", "magnitude"), ("", "unknown scorer"), (LONG, "unknown scorer")),
    "--scorers": (("magnitud", "magnitude"), ("", "names none"), (",", "names none")),
    "--seeds": WHOLE,
    "--images": WHOLE,
    "--val-images": WHOLE,
    "--set": (("imags=2", "images"), ("images", "key=value"), ("images=nan", "type int"), (f"images={HUGE}", "range")),
    "--offload": (("hostile_nets.py", "hostile_nets.py"), ("/dev/null/in", "next:"), (LONG, "")),
    "--offload-memory": (("8GB", "--offload FOLDER"), ("", "--offload FOLDER")),
    "--track": (("wndb", "wandb"), ("", "unknown tracker")),
    "--group": (("nowhere", "nowhere"), ("", "unknown group")),
    "--prompts": (("box,nonsense", ""),),
    "--split": (("tst", ""), ("", "")),
    "--to": (("onx", "onnx"), ("", "unknown format")),
    "--precision": (("int9", "int8"), ("", "precision")),
    "--folder": (("hostile_nets.py", "hostile_nets.py"), ("kept", "not empty")),
}
FLAGS = every_flag()
VALUED = [flag for flag in FLAGS if flag.valued]
SWITCHES = [flag for flag in FLAGS if not flag.valued]
CONTRADICTIONS = [
    ("prune", ["--ratio", "0.2", "--target", "macs<=50%"], "give one of them"),
    ("plan", ["--ratio", "0.2", "--target", "macs<=50%"], "give one of them"),
    ("compare", ["--ratio", "0.2", "--target", "macs<=50%"], "give one of them"),
    ("plan", ["--uniform", "--ranking", "global"], "ranking"),
    ("prune", ["--offload", "scratch", "--offload-memory", "8 apples"], "8 apples"),
    ("prune", ["--offload", "scratch", "--device", "cuda"], "--device cuda"),
    ("eval", ["--checkpoint", "run.yaml", "sam:tiny"], "unclear"),
]


def rows_of(flag):
    return ROWS.get(f"{flag.command} {flag.name}", ROWS.get(flag.name, ()))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(folder)
        patched.delitem(sys.modules, "hostile_nets", raising=False)
        patched.chdir(folder)
        prepared(folder)
        yield folder


def refused(capsys, line, word):
    ended = run(line)
    said = capsys.readouterr()
    assert ended == 2, (line, said.err)
    assert said.err.startswith("prunekit: "), line
    assert said.err.count("prunekit: ") == 1, said.err
    assert "Traceback" not in said.err + said.out
    assert word in said.err, (line, said.err)


def test_every_flag_has_a_row_and_every_row_a_flag():
    assert [f"{flag.command} {flag.name}" for flag in VALUED if not rows_of(flag)] == []
    known = {flag.name for flag in VALUED} | {f"{flag.command} {flag.name}" for flag in VALUED}
    assert ROWS.keys() <= known


@pytest.mark.parametrize("flag", VALUED, ids=lambda flag: f"{flag.command} {flag.name}")
def test_what_a_flag_cannot_be_is_refused(place, capsys, flag):
    for text, word in rows_of(flag):
        refused(capsys, flag.line(text), word.format(flag.name))
    assert not [path for path in place.iterdir() if path.name.startswith((".", "prunekit-error"))]


@pytest.mark.parametrize("flag", SWITCHES, ids=lambda flag: f"{flag.command} {flag.name}")
def test_a_switch_takes_no_text(place, capsys, flag):
    refused(capsys, flag.line("maybe"), flag.name)


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.place < 0], ids=lambda f: f"{f.command} {f.name}")
def test_a_misspelt_flag_names_the_nearest(place, capsys, flag):
    misspelt = flag.name[:-1] + "q"
    refused(capsys, [*flag.command.split(), misspelt], flag.name)


@pytest.mark.parametrize("command", [name for name, _ in leaves()])
def test_a_misspelt_command_names_the_nearest(capsys, command):
    *above, last = command.split()
    refused(capsys, [*above, last[:-1] + "q"], last)


@pytest.mark.parametrize(("command", "more", "word"), CONTRADICTIONS)
def test_what_contradicts_itself_is_refused(place, capsys, command, more, word):
    line = next(flag for flag in FLAGS if flag.command == command).line(LINES[command][0][0])
    refused(capsys, [*line, *more], word)
