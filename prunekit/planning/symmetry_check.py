"""Verification 2: units of a group are interchangeable, so permuting them must leave the output unchanged.

A wrong coupling, such as channels that are cut into other heads, changes the output and is found before anything
is cut. The weights are perturbed for the test, so that layers that all start alike (norms at 1, biases at 0) are
told apart too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from prunekit.coupling.groups import Group, Member
from prunekit.coupling.structure import Structure
from prunekit.errors import VerificationError
from prunekit.inputs import Inputs
from prunekit.inputs.values import map_tensors
from prunekit.modules.perturbing import NOISE, perturbed
from prunekit.modules.walk import state_tensors
from prunekit.options import Options
from prunekit.planning.turned import Decisions
from prunekit.tracing.recorder import output_tensors
from prunekit.tracing.standin import swapped

SYMMETRY_MACS = 5e10  # verify="auto" checks symmetry up to this many multiply-adds a forward pass
QUICK_TOLERANCE = 3e-5  # of the largest output: what float32 arithmetic alone rarely passes; float64 decides above it
TOLERANCE = 1e-3  # where the model cannot run in float64
EXACT_TOLERANCE = 1e-7  # in float64


@dataclass(frozen=True)
class Symmetry:
    """Largest change of an output, relative to its largest value, and the groups that broke the symmetry."""

    error: float
    broken: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.broken


def symmetry(
    model: nn.Module,
    groups: Sequence[Group],
    inputs: Inputs,
    *,
    seed: int = 0,
    seen: Mapping[str, Sequence[Member]] | None = None,
    reads_values: bool = False,
) -> Symmetry:
    """Permutes the units of all groups at once; where the output changes, the culprits are found by halving.

    The model is run in eval mode on perturbed copies of its tensors and left as it was. ``seen`` are the axes of
    outputs that groups run through, see ``Structure.in_outputs``: these are permuted as the units are.
    ``reads_values`` says that forward decides by values.

    Raises:
        TurnedError: if the outputs differ and so do decisions, which rounding may turn: nothing can be compared.
        VerificationError: if the perturbed model yields values that are not finite, so that nothing can be compared.
    """
    check = _Check(model, inputs, seed, seen or {}, reads_values=reads_values)
    error = check.error(groups)
    if check.is_exact:
        check.settle(error)
    if error <= (check.tolerance if check.is_exact else QUICK_TOLERANCE):
        return Symmetry(error, ())
    if not check.is_exact:
        exact = _Check(model, inputs, seed, seen or {}, torch.float64, reads_values)
        try:
            found = exact.error(groups)
            exact.settle(found)
            if found <= exact.tolerance:
                return Symmetry(error, ())
            check = exact
        except RuntimeError:  # the model mixes in float32 of its own; the float32 check decides
            if error <= TOLERANCE:
                return Symmetry(error, ())
    return Symmetry(error, tuple(g.name for g in check.culprits(list(groups))))


@torch.no_grad()
def not_finite(model: nn.Module) -> list[str]:
    """The names of floating state tensors that hold NaN or infinity."""
    state = state_tensors(model).items()
    return [name for name, t in state if t.is_floating_point() and not t.is_meta and not bool(t.isfinite().all())]


class TurnedError(VerificationError):
    """A model that reads values decided otherwise when its units were permuted."""


class _Check:
    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        seed: int,
        seen: Mapping[str, Sequence[Member]],
        dtype: torch.dtype | None = None,
        reads_values: bool = False,
    ) -> None:
        self.reads_values = reads_values
        self.model, self.seed, self.seen, self.dtype = model, seed, seen, dtype
        self.tolerance = TOLERANCE
        self.inputs = Inputs(map_tensors(inputs.args, self._cast), map_tensors(inputs.kwargs, self._cast))
        self.base: list[Tensor] | None = None
        self.noise = torch.randn(NOISE, generator=torch.Generator().manual_seed(seed))

    @property
    def is_exact(self) -> bool:
        """Whether the outputs are in float64 as the model is."""
        return self.base is not None and all(t.dtype is torch.float64 for t in self.base)

    def settle(self, error: float) -> None:
        """Fixes the tolerance of a model in float64, which may still hold parts in float32, as many norms are."""
        self.tolerance = EXACT_TOLERANCE
        if error > EXACT_TOLERANCE:
            with _Widths() as widths:
                self._run({})
            self.tolerance = QUICK_TOLERANCE if widths.narrow else EXACT_TOLERANCE

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.dtype) if self.dtype and tensor.is_floating_point() else tensor

    def error(self, groups: Sequence[Group]) -> float:
        if self.base is None:
            self.base = self._run({})
            if not all(bool(torch.isfinite(t).all()) for t in self.base):
                names = not_finite(self.model)
                raise VerificationError(
                    "the outputs are not finite, so symmetry cannot be checked"
                    + (f": NaN or infinity in {', '.join(names[:3])}" if names else ""),
                    where=names[0] if names else "",
                    hint="check the weights and the inputs",
                )
        permuted = self._run(_permutations(groups, self.seed))
        worst = 0.0
        moved = _permutations([replace(g, members=tuple(self.seen.get(g.name, ()))) for g in groups], self.seed)
        for number, (a, b) in enumerate(zip(self.base, permuted, strict=True)):
            for (output, axis), index in moved.items():
                a = a.index_select(axis, index.to(a.device)) if output == str(number) else a
            scale = float(a.abs().max()) or 1.0
            difference = float((a - b).abs().max()) / scale
            worst = max(worst, difference if difference == difference else float("inf"))
        if worst > QUICK_TOLERANCE and self.reads_values:
            self._compare_decisions(groups)
        return worst

    def _compare_decisions(self, groups: Sequence[Group]) -> None:
        permutations = _permutations(groups, self.seed)
        with Decisions() as before:
            self._run({})
        with Decisions() as after:
            self._run(permutations)
        if before.taken != after.taken:
            raise TurnedError("the permuted model decides otherwise, so symmetry cannot be checked")

    def culprits(self, groups: list[Group]) -> list[Group]:
        if self.error(groups) <= self.tolerance:
            return []
        if len(groups) == 1:
            return groups
        half = len(groups) // 2
        return self.culprits(groups[:half]) + self.culprits(groups[half:])

    def _run(self, permutations: dict[tuple[str, int], Tensor]) -> list[Tensor]:
        by_name: dict[str, list[tuple[int, Tensor]]] = {}
        for (name, axis), index in permutations.items():
            by_name.setdefault(name, []).append((axis, index))

        def replace(name: str, tensor: Tensor) -> Tensor:
            new = self._cast(tensor.detach())
            if isinstance(tensor, nn.Parameter) and new.is_complex():
                new = torch.view_as_complex(
                    perturbed(name, torch.view_as_real(new.resolve_conj()).contiguous(), self.seed, self.noise)
                )
            elif isinstance(tensor, nn.Parameter) and new.is_floating_point():
                new = perturbed(name, new, self.seed, self.noise)
            for axis, index in by_name.get(name, []):
                new = new.index_select(axis, index.to(new.device))
            return nn.Parameter(new, requires_grad=False) if isinstance(tensor, nn.Parameter) else new.clone()

        with swapped(self.model, replace), torch.no_grad():
            result = self.model(*self.inputs.args, **self.inputs.kwargs)
        return [_comparable(t.detach()) for t in output_tensors(result)]


class _Widths(TorchDispatchMode):
    """Notes whether anything is computed in a narrower format than float64."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.narrow = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.narrow = self.narrow or (isinstance(result, Tensor) and result.dtype in _NARROW)
        return result


_NARROW = (torch.float32, torch.float16, torch.bfloat16, torch.complex64)


def _comparable(tensor: Tensor) -> Tensor:
    """Real numbers of at least float32; a complex one as two."""
    tensor = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _permutations(groups: Sequence[Group], seed: int) -> dict[tuple[str, int], Tensor]:
    """An index vector for each (tensor, axis) that realises one random permutation of units a group."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[tuple[str, int], Tensor] = {}
    for group in groups:
        order = _cycle(group.size, generator)
        for member in group.members:
            held = torch.nonzero(member.unit_of >= 0).flatten()
            by_unit = held[torch.argsort(member.unit_of[held], stable=True)].reshape(group.size, -1)
            index = torch.arange(member.unit_of.numel())
            index[by_unit] = by_unit[order]
            key = (member.tensor, member.axis)
            found[key] = found[key][index] if key in found else index
    return found


def _cycle(size: int, generator: torch.Generator) -> Tensor:
    """A permutation that moves every unit and is no rotation, which an offset that is wrong by a shift would survive.

    Of three units one has to stay; two can only change places.
    """
    at = torch.arange(size)
    if size <= 3:
        return at.flip(0)
    while True:
        order = torch.randperm(size, generator=generator)
        if not bool((order == at).any()) and len(torch.unique((order - at) % size)) > 1:
            return order


def check_symmetry(
    model: nn.Module, structure: Structure, chosen: Sequence[Group], options: Options
) -> Symmetry | None:
    """What the check finds on the original weights; None where ``verify`` or the size of the model leaves it out."""
    if options.cutting.verify == "shapes" or not chosen:
        return None
    if is_meta(model):
        return None
    if options.cutting.verify == "auto" and structure.cost().macs > SYMMETRY_MACS:
        return None
    seen = {group.name: structure.in_outputs(group.name) for group in chosen} if structure.returns_free else {}
    reads = bool(structure.trace.decisions)
    try:
        return symmetry(model, chosen, structure.inputs, seed=options.choice.seed, seen=seen, reads_values=reads)
    except TurnedError:
        return None
    except (VerificationError, RuntimeError):
        if reads:
            return None
        raise


def is_meta(model: nn.Module) -> bool:
    """Whether a model has no weights, only their shapes."""
    return any(t.is_meta for t in model.parameters())
