"""Whether a model without some blocks computes what it computed with these blocks passed by."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.coupling.blocks import is_inside
from prunekit.coupling.groups import Branch
from prunekit.coupling.structure import Structure
from prunekit.errors import PrunekitError, VerificationError
from prunekit.inputs import Inputs
from prunekit.modules.perturbing import noise_of, perturbed_state
from prunekit.modules.setting_aside import Passage, set_aside
from prunekit.modules.write_guard import originals_of, written_back
from prunekit.plans.contents import Plan
from prunekit.surgery.cutting import apply_unfitted
from prunekit.tracing.recorder import named_outputs
from prunekit.tracing.standin import swapped

TOLERANCE = 3e-5  # of the largest value of an output: rounding in another order; the very same operators run
HALF_TOLERANCE = 1e-2  # in float16 and bfloat16

Outputs = list[tuple[str, Tensor]]


@dataclass(frozen=True)
class Certificate:
    """The largest difference of an output, relative to its largest value; and whether a cache was read again."""

    error: float
    with_cache: bool


@dataclass(frozen=True)
class Rerun:
    """How a model is run to certify a plan: its structure, a seed, and whether on weights with noise on them."""

    model: nn.Module
    structure: Structure
    seed: int
    is_perturbed: bool

    def certify(self, plan: Plan, branches: Sequence[Branch] = (), blocks: Sequence[str] = ()) -> Certificate:
        """Runs the model with what goes set aside, and then as ``plan`` leaves it.

        Blocks are passed by, ``branches`` silenced, experts never chosen.

        ``blocks`` are those that ``plan`` does not take out of their containers. Twice each where it returns something
        that it takes again, as a cache. Raises VerificationError where a run fails or the two differ; the model is as
        it was.
        """
        passed_by = [*blocks, *(path for removal in plan.removals for path in removal.gone)]
        gone = [*passed_by, *(each.module for each in plan.absences)]
        own = {place for branch in branches for place in branch.kept}
        experts = {
            path: way for g in self.structure.depth.groups for path, way in zip(g.places, g.routes, strict=False)
        }
        aside: list[Passage] = [experts.get(path, path) for path in passed_by]
        reference = self._runs(plan, [*aside, *(branch.term for branch in branches)])
        found = self._runs(plan, None)
        if len(found) < len(reference):
            raise VerificationError("what it returns cannot be given to it again without the block", where=gone[0])
        pairs = zip(reference, found, strict=False)
        error = max(self._apart(dense, shallow, gone, own) for dense, shallow in pairs)
        return Certificate(error, len(reference) > 1)

    def _runs(self, plan: Plan, aside: Collection[Passage] | None) -> list[Outputs]:
        noise = noise_of(self.seed) if self.is_perturbed else None

        def replace(name: str, tensor: Tensor) -> Tensor:
            return tensor if noise is None else perturbed_state(name, tensor, self.seed, noise)

        tables = self.structure.trace.tables
        kept = originals_of(self.model)
        with swapped(self.model, replace, tables=tables), written_back(kept), torch.no_grad():
            torch.manual_seed(self.seed)
            if aside is not None:
                with set_aside(self.model, aside):
                    return _once_and_again(self.model, self.structure.inputs)
            undo = apply_unfitted(self.model, plan)
            try:
                try:
                    return _once_and_again(self.model, self.structure.inputs)
                except PrunekitError:
                    raise
                except Exception as error:  # forward is the user's code
                    said = next(iter(str(error).strip().splitlines()), "")[:200]
                    raise VerificationError(f"forward fails without it: {type(error).__name__}: {said}") from error
            finally:
                undo()

    def _apart(self, dense: Outputs, shallow: Outputs, gone: Sequence[str], own: Collection[str]) -> float:
        """The largest difference, but for what branches that go keep for themselves. Raises VerificationError."""
        inner = self.structure.coupler.inner
        made_in = _made_in(self.structure, gone)

        def is_inner(at: str) -> bool:
            return any(fnmatchcase(at, pattern) for pattern in inner)

        if [at for at, _ in dense] == [at for at, _ in shallow]:
            dense, shallow = ([(at, t) for at, t in each if at not in own] for each in (dense, shallow))
        left = [(at, tensor) for at, tensor in dense if not (is_inner(at) and at in made_in)]
        places, now = ([at for at, _ in each if not is_inner(at)] for each in (left, shallow))
        if places != now:
            other = sorted(set(places) ^ set(now))
            what = f"{other[0]} of the output would " + ("be missing" if other[0] in places else "be new")
            raise VerificationError(f"it is returned by itself: {what}")
        if len(left) != len(shallow):
            raise VerificationError(
                f"a cache of {len(shallow)} tensors is returned where {len(left)} are left: its places cannot be mended"
            )
        worst = 0.0
        for (at, a), (_, b) in zip(left, shallow, strict=True):
            worst = worst if at in own else max(worst, _difference(at, a, b))
        return worst


def _made_in(structure: Structure, gone: Sequence[str]) -> set[str]:
    """Places of outputs that are made inside the blocks, and of what lies beside nothing else, such as a length."""
    trace = structure.trace
    makers = {ref.id: op.module for op in trace.ops if not op.is_constant for ref in op.outputs}
    by: dict[str, set[bool]] = {}
    found, made = set(), dict[str, bool]()
    for at, ref in zip(trace.places, trace.outputs, strict=True):
        if ref.id in makers:
            made[at] = is_inside(makers[ref.id], gone)
            by.setdefault(at.rpartition(".")[0], set()).add(made[at])
    for at in trace.places:
        if made.get(at, by.get(at.rpartition(".")[0]) == {True}):
            found.add(at)
    return found


def _difference(at: str, a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        raise VerificationError(f"{at or 'the output'} is {tuple(b.shape)} without it, not {tuple(a.shape)}")
    if not a.numel() or torch.equal(a, b):  # which NaN never is
        return 0.0
    is_half = a.dtype in (torch.float16, torch.bfloat16)
    a, b = a.detach(), b.detach()
    a, b = (torch.view_as_real(t) if t.is_complex() else t for t in (a, b))
    a, b = a.double(), b.double()
    scale = float(a[a.isfinite()].abs().max()) if bool(a.isfinite().any()) else 0.0
    if bool(a.isnan().any()):
        raise VerificationError(f"{at or 'the output'} holds NaN: nothing can be compared", hint="check the weights")
    same = a == b
    error = float((a - b).abs()[~same].max()) / (scale or 1.0) if not bool(same.all()) else 0.0
    if not error <= (HALF_TOLERANCE if is_half else TOLERANCE):
        raise VerificationError(
            f"{at or 'the output'} differs by {error:.1e} from that of the model with what goes passed by"
        )
    return error


def _once_and_again(model: nn.Module, inputs: Inputs) -> list[Outputs]:
    """The outputs, and those of a second run that is given what the first one returned under an argument's name."""
    result = model(*inputs.args, **inputs.kwargs)
    first = [(at, tensor.clone()) for at, tensor in named_outputs(result)]
    again = _taken_again(model, result)
    for kwargs in (inputs.kwargs, {}) if again else ():
        args = inputs.args or tuple(inputs.kwargs.values())[:1] if not kwargs else inputs.args
        try:
            return [first, named_outputs(model(*args, **{**kwargs, **again}))]
        except Exception:  # other arguments may speak of lengths that no longer hold
            result = model(*inputs.args, **inputs.kwargs)
            again = _taken_again(model, result)
    return [first]


def _taken_again(model: nn.Module, result: Any) -> dict[str, Any]:
    """What of a result bears the name of an argument, and is no plain tensor: what a model keeps between its calls."""
    named = dict(result) if isinstance(result, dict) else vars(result) if hasattr(result, "__dict__") else {}
    try:
        taken = set(inspect.signature(model.forward).parameters)
    except (TypeError, ValueError):
        return {}
    return {
        name: value for name, value in named.items() if name in taken and not isinstance(value, (Tensor, type(None)))
    }
