"""Latency of what runs the model: the seam with a runner whose times are exact, then torch.compile and onnxruntime."""

from __future__ import annotations

import sys

import pytest
import torch
from support.compare import differences, snapshot
from support.timers import FakeTimer
from torch import nn

import prunekit
from prunekit.errors import ExportError, InputError
from prunekit.quantities.compiled_code import Compiled
from prunekit.quantities.latency_table import LatencyTable
from prunekit.quantities.limits import parse_target
from prunekit.quantities.onnx_session import OnnxSession
from prunekit.quantities.runners import RUNNERS
from prunekit.quantities.stopwatch import seconds_of

X = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 48), nn.ReLU(), nn.Dropout(), nn.Linear(48, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 3)
    ).train()


class Fused:
    """Runs the first layers alone: what is left out costs nothing here, which no table of operators knows."""

    def __init__(self):
        self.made = 0

    def prepared(self, model, inputs):
        self.made += 1
        return lambda: model[:4](*inputs.args)


def pruned(model, target, **options):
    return prunekit.prune(model, X, target=target, latency=LatencyTable(timer=FakeTimer()), verify="shapes", **options)


@pytest.mark.parametrize(
    ("text", "quantity", "runner"),
    [
        ("latency<=60%", "latency", "eager"),
        ("latency[eager]<=60%", "latency", "eager"),
        ("Latency[ Compiled ] <= 15ms", "latency[compiled]", "compiled"),
        ("latency[onnx]<=1.5s", "latency[onnx]", "onnx"),
        ("params<=60%", "params", None),
    ],
)
def test_a_latency_says_what_runs_the_model(text, quantity, runner):
    (limit,) = parse_target(text)
    assert (limit.quantity, limit.runner) == (quantity, runner)
    assert (
        parse_target({quantity: limit.most})[0] == parse_target(f"{quantity}<={limit.most}{'s' if runner else ''}")[0]
    )


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "latency[tensorrt]<=60%",
            r"'tensorrt' is nothing.*\n.*latency\[eager\], latency\[compiled\], latency\[onnx\]",
        ),
        ("latency[]<=60%", r"'' is nothing that runs"),
        ("macs[compiled]<=60%", "macs is the same whatever runs"),
        ("latency<=60%, latency[onnx]<=60%", r"latency and latency\[onnx\] are limited at once"),
        ("latency<=60%, latency[eager]<=50%", "limited twice"),
        ("latency[compiled<=60%", "is not a target"),
    ],
)
def test_what_runs_no_model_is_refused_before_anything_is_measured(target, message):
    model = network()
    before = snapshot(model)
    with pytest.raises(InputError, match=message):
        pruned(model, target)
    assert not differences(before, snapshot(model))


@pytest.mark.parametrize("percent", [75, 50])
def test_a_plan_is_held_against_the_clock_of_the_runner_that_is_named(monkeypatch, percent):
    fused = Fused()
    monkeypatch.setitem(RUNNERS, "compiled", fused)
    model = network()
    whole = seconds_of(network()[:4], prunekit.trace(model, X).inputs, FakeTimer())
    result = pruned(model, f"latency[compiled]<={percent}%", align=1)
    after = seconds_of(model[:4], prunekit.trace(model, X).inputs, FakeTimer())
    took = result.report.latency
    assert (took["before"], took["after"]) == (pytest.approx(whole), pytest.approx(after))
    assert after <= 1.01 * percent / 100 * whole
    assert result.report.runner == "compiled"
    assert result.report.notes[0].startswith("latency[compiled]: ")
    assert ", compiled" in repr(result.report)
    plans = int(result.report.notes[0].partition("noise")[2].split(",")[1].split()[0])
    assert fused.made == 1 + plans


def test_the_plain_latency_says_so_and_reads_as_before():
    report = pruned(network(), "latency<=60%").report
    assert report.runner == "eager"
    assert report.notes[0].startswith("latency: ")
    assert ", eager" not in repr(report)
    assert pruned(network(), "params<=60%").report.runner is None


def test_steps_are_told_by_the_runner_at_the_end(monkeypatch):
    monkeypatch.setitem(RUNNERS, "onnx", fused := Fused())
    report = pruned(network(), "latency[onnx]<=60%", steps=2).report
    assert report.runner == "onnx"
    assert "noise" not in report.latency
    assert fused.made == 2  # the original, and what is left


@pytest.mark.parametrize("good", [0, 1])
def test_a_runner_that_fails_leaves_the_model_as_it_was(monkeypatch, good):
    class Failing(Fused):
        def prepared(self, model, inputs):
            if self.made == good:
                raise InputError("it does not run here", where="target", hint="take another one")
            return super().prepared(model, inputs)

    monkeypatch.setitem(RUNNERS, "compiled", Failing())
    model = network()
    before = snapshot(model)
    with pytest.raises(InputError, match="does not run here"):
        pruned(model, "latency[compiled]<=60%")
    assert not differences(before, snapshot(model))


# a few seconds: the exporter is imported and run
def test_a_session_of_onnxruntime_gives_what_the_model_gives_and_outlives_a_cut():
    pytest.importorskip("onnxruntime")
    model = network()
    before = snapshot(model)
    wanted = network().eval()(X)
    run = OnnxSession().prepared(model, prunekit.trace(model, X).inputs)
    assert not differences(before, snapshot(model))
    prunekit.prune(model, X, ratio=0.5)
    torch.testing.assert_close(torch.from_numpy(run()[0]), wanted.detach())


def test_a_model_elsewhere_a_missing_library_and_a_model_without_a_file_are_refused(monkeypatch):
    inputs = prunekit.trace(network(), X).inputs
    with pytest.raises(InputError, match=r"latency\[onnx\] is that of onnxruntime on the CPU"):
        OnnxSession().prepared(network().to("meta"), inputs)
    monkeypatch.setattr(torch.onnx, "export", lambda *given, **options: 1 / 0)
    with pytest.raises(ExportError, match=r"torch\.onnx cannot write the model: ZeroDivisionError"):
        OnnxSession().prepared(network(), inputs)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"needs onnxscript.*\n.*prunekit\[onnx\]"):
        OnnxSession().prepared(network(), inputs)


@pytest.mark.slow
@pytest.mark.timeout(600)  # the compiler of the machine is run, and what it needs is built once
def test_compiled_code_gives_what_the_model_gives_outlives_a_cut_and_is_no_eager_run():
    model = network()
    before = snapshot(model)
    wanted = network().eval()(X).detach()
    inputs = prunekit.trace(model, X).inputs
    from torch._dynamo.utils import counters

    counters.clear()
    with torch.compiler.set_stance("force_eager"), torch.no_grad():  # as when it is timed
        run = Compiled().prepared(model, inputs)
        assert counters["stats"]["unique_graphs"] == 1
        assert not differences(before, snapshot(model))
        prunekit.prune(model, X, ratio=0.5)
        again = Compiled().prepared(model, inputs)
        torch.testing.assert_close(run(), wanted)
        torch.testing.assert_close(again(), model.eval()(X).detach())
    assert counters["stats"]["unique_graphs"] == 2, "each of the two is compiled once, and none runs anew when called"


def test_what_torch_compile_cannot_do_is_told_with_what_to_do(monkeypatch):
    class InvalidCxxCompiler(RuntimeError):
        pass

    def refusing(error):
        def compiled(*given):
            raise error

        return lambda *given, **options: compiled

    inputs = prunekit.trace(network(), X).inputs
    monkeypatch.setattr(torch, "compile", refusing(InvalidCxxCompiler("none")))
    with pytest.raises(InputError, match=r"finds no C\+\+ compiler here.*\n.*install g\+\+"):
        Compiled().prepared(network(), inputs)
    monkeypatch.setattr(torch, "compile", refusing(TypeError("odd code\nlong")))
    with pytest.raises(InputError, match=r"torch.compile cannot run Sequential: TypeError: odd code \[at target"):
        Compiled().prepared(network(), inputs)
