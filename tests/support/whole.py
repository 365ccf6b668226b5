"""The whole promise on one model: exact, whole at other batch sizes, trainable, and undone bit for bit."""

from __future__ import annotations

import torch

import prunekit
from prunekit.options import Scope
from prunekit.planning.symmetry_check import symmetry
from support.compare import differences, distance, gradients, masked, run, snapshot
from support.drafts import choose, draft


def call(inputs):
    return inputs if isinstance(inputs, (dict, tuple)) else (inputs,)


def built(make, dtype=torch.float64):
    torch.manual_seed(0)
    return make().to(dtype).eval()


def check(make, inputs, other=None, *, by_mask=True, ratio=0.5, roles=None, dtype=torch.float64):
    """Prunes ``make()`` with nothing configured; returns the pruned model, its plan and the structure.

    Where ``by_mask``, groups that no norm crosses are pruned first, and the output must be that of the original with
    the removed units at zero. ``dtype`` is for models that compute a part in float32 of their own.
    """
    model = built(make, dtype)
    before = snapshot(model)
    structure = prunekit.trace(model, inputs)
    assert differences(before, snapshot(model)) == []
    assert symmetry(model, structure.groups, structure.inputs).passed
    assert differences(before, snapshot(model)) == []
    if by_mask:
        _check_against_mask(model, built(make, dtype), inputs, structure, ratio, roles)
        assert differences(before, snapshot(model)) == []
    result = prunekit.prune(model, inputs, ratio=ratio, roles=roles)
    assert result.report.verify["symmetry"] == "passed", result.report.verify
    assert result.report.params["after"] < result.report.params["before"]
    assert result.report.params["after"] == sum(p.numel() for p in model.parameters())
    shapes = [t.shape for t in run(built(make, dtype), inputs)]
    assert [t.shape for t in run(model, inputs)] == shapes
    if other is not None:
        run(model, other)
    assert gradients(model, call(inputs))
    model.zero_grad(set_to_none=True)
    result.undo()
    assert [k for k in differences(before, snapshot(model)) if k != "rng"] == []
    prunekit.apply(model, result.plan)
    return model, result.plan, structure


def _check_against_mask(model, original, inputs, structure, ratio, roles):
    plain = [g for g in choose(structure, Scope(roles=roles)) if not g.normalised]
    assert plain, structure.groups
    made = draft(model, inputs, structure=structure, include=[g.name for g in plain], ratio=ratio)
    assert made.notes == ()
    expected = run(masked(original, plain, made.kept), inputs)
    undo = prunekit.apply(model, made.plan)
    found = run(model, inputs)
    undo()
    assert distance(expected, found) < (1e-9 if found[0].dtype is torch.float64 else 1e-5)


def edits(plan):
    """Attribute edits of a plan as {path: (before, after)}; each is shown by ``explain``."""
    text = plan.explain()
    found = {}
    for e in plan.edits:
        path = f"{e.module}.{e.attribute}"
        assert f"set {path}" in text
        found[path] = (e.before, e.after)
    return found


def frozen(structure, name):
    """The reason why a width is frozen, and the place."""
    found = [f for f in structure.frozen if f.name == name]
    assert found, [f.name for f in structure.frozen]
    return f"{found[0].reason} [{found[0].where}]"
