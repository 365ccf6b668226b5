"""What a run says about itself: counts, metrics, widths, latency, verification. JSON values throughout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prunekit.coupling.cost import Cost
from prunekit.coupling.structure import Structure
from prunekit.errors import VerificationError
from prunekit.inputs import normalise
from prunekit.inputs.batching import moved
from prunekit.samples.sequences import Skipped
from prunekit.plans.contents import Plan
from prunekit.samples.tasks import Samples
from prunekit.registry.building import Built
from prunekit.quantities.plan_cost import cost_after
from prunekit.quantities.stopwatch import latency as latency_of

NAMED = 50  # skipped samples in a report
COUNTS = ("params", "macs", "layer_macs")
LATENCY, LATENCY_SLOW, SLOW_MACS = (5, 1), (1, 0), 5e10  # runs, warm-up; a large pass takes many seconds on a CPU


def report(
    built: Built,
    original: nn.Module,
    samples: Samples,
    plan: Plan,
    metrics: Mapping[str, Mapping[str, float]],
    cuts: Sequence[Mapping[str, Any]],
    structure: Structure,
    *,
    latency: bool,
) -> dict[str, Any]:
    """Numbers of the part and, with the prefix ``whole_``, of the whole model, before and after.

    ``macs`` are all multiply-adds for one sample, attention products included; ``layer_macs`` those of convolution and
    linear layers only. ``structure`` is the original part's; ``latency`` says whether to measure it.
    """
    part, teacher = built.model.get_submodule(built.part), original.get_submodule(built.part)
    before, after = structure.cost(), cost_after(structure, plan)
    out: dict[str, Any] = {name: _pair(getattr(before, name), getattr(after, name)) for name in COUNTS}
    rest = count_rest(built, part)
    for name in COUNTS:
        more = getattr(rest, name)
        out[f"whole_{name}"] = _pair(getattr(before, name) + more, getattr(after, name) + more)
    if latency:
        inputs = normalise(moved(samples.batch([0]), next(part.parameters()).device))
        passes = LATENCY if before.macs < SLOW_MACS else LATENCY_SLOW
        old, new = (latency_of(each, inputs, runs=passes[0], warmup=passes[1]) for each in (teacher, part))
        out["latency_ms"] = _pair(1e3 * old.median, 1e3 * new.median)
        out["latency_range_ms"] = {
            "before": [1e3 * old.minimum, 1e3 * old.maximum],
            "after": [1e3 * new.minimum, 1e3 * new.maximum],
            "runs": passes[0],
        }
    out["metric"], out["metrics"] = _metrics(metrics)
    out["widths"] = [{"group": w.group, "role": w.role, "before": w.before, "after": w.after} for w in plan.widths]
    out["verify"] = verified(cuts, part, after)
    return out


def skipped_in(faults: Iterable[Skipped]) -> dict[str, Any]:
    """How many samples were left out, each counted once, and the first ``NAMED`` of them by name and reason."""
    each = list(dict.fromkeys(faults))
    return {"count": len(each), "items": [asdict(fault) for fault in each[:NAMED]]}


def count_rest(built: Built, part: nn.Module) -> Cost:
    """Counts of everything outside the pruned part; pruning leaves it alone."""
    params = sum(p.numel() for p in built.model.parameters()) - sum(p.numel() for p in part.parameters())
    run = built.entry.rest if built.entry else None
    if run is None:
        return Cost(params, 0, 0)
    linear = 0

    def count(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal linear
        linear += layer_products(module, args[0], output)

    layers = [m for m in built.model.modules() if isinstance(m, LAYERS)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        # with gradients: the counter's module tracker fails on parameters handed out under no_grad
        with FlopCounterMode(display=False) as counter:
            run(built.model)
    finally:
        for handle in handles:
            handle.remove()
    return Cost(params, counter.get_total_flops() // 2, linear)


LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def layer_products(layer: nn.Module, given: Tensor, output: Tensor) -> int:
    """Multiply-adds of one call of a linear or convolution layer."""
    if isinstance(layer, nn.Linear):
        return given.numel() * layer.out_features
    weight = layer.get_parameter("weight")
    transposed = isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
    # a transposed convolution multiplies at every input place, a plain one at every output place
    places = given if transposed else output
    return weight.numel() * places.shape[0] * places[0, 0].numel()


def verified(cuts: Sequence[Mapping[str, Any]], part: nn.Module, predicted: Cost) -> dict[str, Any]:
    """What the checks of every cut found, the worst of each, and that the parameters are as many as predicted.

    Raises VerificationError where they are not.
    """
    actual = sum(p.numel() for p in part.parameters())
    if actual != predicted.params:
        raise VerificationError(f"{actual} parameters are left where {predicted.params} were predicted")
    bad = [cut["symmetry"] for cut in cuts if cut.get("symmetry", "passed") != "passed"]
    out = {"shapes": "passed", "symmetry": bad[0] if bad else "passed", "params": "as predicted"}
    if depths := [cut["depth_error"] for cut in cuts if "depth_error" in cut]:
        out |= {"depth": "passed", "depth_error": max(depths)}
        if not any("symmetry" in cut for cut in cuts):
            del out["symmetry"]  # no width was cut
    errors = [cut["symmetry_error"] for cut in cuts if "symmetry_error" in cut]
    return out | ({"symmetry_error": max(errors)} if errors else {})


def _pair(before: float, after: float) -> dict[str, float]:
    return {"before": before, "after": after}


def _metrics(metrics: Mapping[str, Mapping[str, float]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The main metric, and all of them; stages ``before`` and ``after`` wrote them."""
    before, after = metrics.get("before", {}), metrics.get("after", {})
    names = [name for name in before if name in after]
    every = {name: _pair(before[name], after[name]) for name in names}
    main = {"name": names[0], **every[names[0]]} if names else {"name": None, "before": None, "after": None}
    return main, every
