"""How the command ends: its exit code, its one message, what is kept, and the report of an internal error."""

from __future__ import annotations

import os
import signal
import sys
import textwrap

import pytest
import torch

import prunekit
from prunekit.cli.app import run
from prunekit.cli.console import bars
from prunekit.runs import prune_stage

NETS = textwrap.dedent(
    """
    from benchmarks.faults.tiny import tiny_model
    from torch import nn

    def nothing_to_cut():
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        net.pretrained_cfg = {"input_size": (3, 8, 8)}
        return net.eval()
    """
)
SMALL = [f"--set={pair}" for pair in ("images=2", "train_images=4", "val_images=1", "latency=false")]
TRAINED = ["--recipe", "iterative", "--set=epochs=2", "--set=align_epochs=0", "--set=prune_steps=1"]
TRAINED += ["--set=accumulate=1", "--set=save_minutes=0"]


@pytest.fixture
def nets(tmp_path, monkeypatch):
    (tmp_path / "ending_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ending_nets", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ended(capsys, *more, name="tiny_model"):
    code = run(["prune", f"python:ending_nets:{name}", "--scorer", "magnitude", "--out", "out", *SMALL, *more])
    said = capsys.readouterr()
    assert "Traceback" not in said.err + said.out
    assert said.err.count("prunekit: ") == (code != 0)
    return code, said.err


def at_step(monkeypatch, number, do):
    heard, whole = [], bars._Lines.__call__

    def call(self, event):
        whole(self, event)
        if event.unit == "steps" and event.done:
            heard.append(event.done)
            if len(heard) == number:
                do()

    monkeypatch.setattr(bars._Lines, "__call__", call)
    return heard


def test_a_model_that_is_refused_is_3(nets, capsys):
    code, said = ended(capsys, name="nothing_to_cut")
    assert code == 3
    assert not list(nets.glob("out*"))
    assert "nothing" in said.lower() or "frozen" in said.lower()


def test_sigterm_keeps_the_run_and_is_143_and_resume_ends_at_the_same_bits(nets, capsys, monkeypatch):
    assert ended(capsys, *TRAINED)[0] == 0
    wanted = prunekit.load("out").state_dict()
    (nets / "out").rename(nets / "wanted")
    heard = at_step(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    code, said = ended(capsys, *TRAINED)
    assert code == 143
    assert "out.run" in said
    assert "--resume" in said
    assert heard == [1, 2]
    assert signal.getsignal(signal.SIGTERM) is before
    (nets / "out.run" / "mine.txt").write_text("notes")
    assert ended(capsys, *TRAINED)[0] == 2  # without --resume
    assert ended(capsys, *TRAINED, "--resume")[0] == 0
    assert heard[:3] == [1, 2, 2]  # where it was
    found = prunekit.load("out").state_dict()
    assert all(torch.equal(value, found[name]) for name, value in wanted.items())
    assert [file.name for file in (nets / "out.run").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("kept", [False, True])
def test_an_internal_error_is_1_and_leaves_a_report(nets, capsys, monkeypatch, kept):
    secret = "value-of-a-variable"

    def broken(*given, **named):
        found = secret
        raise ZeroDivisionError(f"division by zero\nand {len(found)} more")

    if kept:
        at_step(monkeypatch, 1, broken)
    else:
        monkeypatch.setattr(prune_stage, "draft", broken)
    code, said = ended(capsys, *TRAINED)
    assert code == 1
    assert "internal error: ZeroDivisionError: division by zero" in said
    (report,) = nets.glob("prunekit-error-*.txt")
    assert str(report) in said
    text = report.read_text()
    assert "command: prunekit prune python:ending_nets:tiny_model" in text
    assert f"torch {torch.__version__.partition('+')[0]}" in text
    assert "in broken" in text
    assert secret not in text
    assert (nets / "out.run").is_dir()
    assert "out.run" in said


def test_an_interrupt_says_what_is_kept(nets, capsys, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("prunekit.runs.runner.begun", lambda *_, **__: interrupt())
        code, said = ended(capsys)
    assert code == 130
    assert "nothing was written" in said
    assert not list(nets.glob("out*"))
    at_step(monkeypatch, 1, interrupt)
    code, said = ended(capsys, *TRAINED)
    assert code == 130
    assert "out.run" in said
    assert "nothing was written" not in said
