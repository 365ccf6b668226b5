"""Laws of bytes: the peak of activations is that of a real pass's storages, and what a pruned model has."""

from __future__ import annotations

import os

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.compare import differences, run, snapshot
from support.networks import build
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import prunekit
from prunekit.errors import NothingToPruneError, SelectionError
from prunekit.quantities.lifetimes import peak_activations

EXAMPLES = int(os.environ.get("PRUNEKIT_LAW_EXAMPLES", "20"))
SEEDS = st.integers(0, 10**6)


class Storages(TorchDispatchMode):
    """Notes which storages each operator of a real pass reads and gives; all are kept, so that no number recurs."""

    def __init__(self):
        super().__init__()
        self.kept, self.steps, self.sizes = [], [], {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [t for t in tree_leaves((args, kwargs or {})) if isinstance(t, Tensor)]
        out = func(*args, **(kwargs or {}))
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        if "scaled_dot_product" in str(func):
            made = made[:1]  # and not what is kept for gradients
        self.kept += [*given, *made]
        known = {t.untyped_storage()._cdata for t in given}
        new = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in made}
        self.steps.append((known, {key: size for key, size in new.items() if key not in known}))
        return out

    def peak(self, outputs):
        """By force: after each operator the sum over what was made and is read later or returned."""
        returned = {t.untyped_storage()._cdata for t in outputs}
        most, made = 0, {}
        for at, (known, new) in enumerate(self.steps):
            made |= {key: size for key, size in new.items() if key not in made}
            later = returned.union(*(reads for reads, _ in self.steps[at + 1 :])) | known | new.keys()
            most = max(most, sum(size for key, size in made.items() if key in later))
        return most


def held(model, inputs):
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operator where the trace has several
    try:
        with torch.no_grad(), Storages() as storages:
            outputs = run(model, inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return storages.peak(outputs)


def runs_as_traced(model):
    """Torch's attention module may run as another sequence of operators than the one that it is followed by."""
    return not any(isinstance(module, nn.MultiheadAttention) for module in model.modules())


@given(SEEDS)
@settings(max_examples=EXAMPLES, deadline=None)
def test_the_peak_of_a_trace_is_that_of_the_storages_of_a_real_pass(seed):
    model, inputs = build(seed)
    assume(runs_as_traced(model))
    assert peak_activations(prunekit.trace(model, inputs), {}) == held(model, inputs)


@given(SEEDS, st.integers(30, 95))
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_limit_on_activations_is_kept_and_what_is_predicted_is_what_the_pruned_model_has(seed, percent):
    model, inputs = build(seed)
    before, whole = snapshot(model), peak_activations(prunekit.trace(model, inputs), {})
    try:
        result = prunekit.prune(model, inputs, target=f"activations<={percent}%", scorer="magnitude", verify="shapes")
    except (SelectionError, NothingToPruneError):
        assert not differences(before, snapshot(model))
        return
    told = result.report.activations
    assert told["before"] == whole
    assert told["after"] <= whole * percent / 100
    assert told["after"] == peak_activations(prunekit.trace(model, inputs), {})
    if runs_as_traced(model):
        assert told["after"] == held(model, inputs)
    result.undo()
    assert not differences(before, snapshot(model))
