"""Verification 2: units of a group are interchangeable, so permuting them must leave the output unchanged.

A wrong coupling, such as channels that are cut into other heads, changes the output and is found before anything
is cut. The weights are perturbed for the test, so that layers that all start alike (norms at 1, biases at 0) are
told apart too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunekit.coupling.groups import Group, Member
from prunekit.coupling.structure import Structure
from prunekit.errors import PrunekitError, TraceError, VerificationError
from prunekit.inputs import Inputs
from prunekit.inputs.values import map_tensors
from prunekit.modules.dispatching import DispatchMode
from prunekit.modules.emptied import Place
from prunekit.modules.perturbing import noise_of, perturbed
from prunekit.modules.soundness import not_finite
from prunekit.modules.walk import named_modules, state_tensors
from prunekit.modules.write_guard import originals_of, written_back
from prunekit.offloading import memory_limit
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
    tables: Collection[Place] = (),
) -> Symmetry:
    """Permutes the units of all groups at once; where the output changes, the culprits are found by halving.

    The model is run in eval mode on perturbed copies of its tensors and left as it was. ``seen`` are the axes of
    outputs that groups run through, see ``Structure.in_outputs``: these are permuted as the units are.
    ``reads_values`` says that forward decides by values, ``tables`` which dicts of tensors it does not fill itself.

    Raises:
        TurnedError: if the outputs differ and so do decisions, which rounding may turn: nothing can be compared.
        VerificationError: if the perturbed model yields values that are not finite, so that nothing can be compared.
    """
    check = _Check(model, inputs, seed, seen or {}, None, reads_values, tables)
    error = check.error(groups)
    if check.is_exact:
        check.settle(error)
    if error <= (check.tolerance if check.is_exact else QUICK_TOLERANCE):
        return Symmetry(error, ())
    if not check.is_exact:
        exact = _Check(model, inputs, seed, seen or {}, torch.float64, reads_values, tables)
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
        tables: Collection[Place] = (),
    ) -> None:
        self.reads_values, self.tables = reads_values, tables
        self.model, self.seed, self.seen, self.dtype = model, seed, seen, dtype
        self.modules = named_modules(model)  # walked once for all runs, after each of which the model is as it was
        self.state = state_tensors(model, self.modules)
        self.tolerance = TOLERANCE
        self.inputs = Inputs(map_tensors(inputs.args, self._cast), map_tensors(inputs.kwargs, self._cast))
        self.base: list[Tensor] | None = None
        self.noise = noise_of(seed)
        self.spare = _Spare(max((p.numel() for p in model.parameters()), default=0))
        self.held: dict[str, tuple[Tensor, Tensor]] = {}  # perturbed parameters that the next run needs, and their sums

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
            self.base = self._first_run()
            if not all(bool(torch.isfinite(t).all()) for t in self.base):
                names = not_finite(self.model)
                raise VerificationError(
                    "the outputs are not finite, so symmetry cannot be checked"
                    + (f": NaN or infinity in {', '.join(names[:3])}" if names else ""),
                    where=names[0] if names else "",
                    hint="check the weights and the inputs",
                )
        permuted = self._run(_permutations(groups, self.seed))
        worst, moved = 0.0, {}
        if self.seen:
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

    def _first_run(self) -> list[Tensor]:
        try:
            found = self._run({}, keep=True)
            if any(t.is_meta for t in found):
                raise RuntimeError("the outputs are on the meta device")
            return found
        except (PrunekitError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever the model raises
            told = (str(error).strip().splitlines() or [""])[0]
            raise TraceError(
                f"forward was followed by shapes and fails on the values: {type(error).__name__}: {told}",
                where="the example inputs",
                hint="check that model(*example_inputs) runs, or pass other example_inputs",
            ) from error

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

    def _run(self, permutations: dict[tuple[str, int], Tensor], keep: bool = False) -> list[Tensor]:
        by_name: dict[str, list[tuple[int, Tensor]]] = {}
        for (name, axis), index in permutations.items():
            by_name.setdefault(name, []).append((axis, index))

        def replace(name: str, tensor: Tensor) -> Tensor:
            moves = by_name.get(name, [])
            if not isinstance(tensor, nn.Parameter):
                return _moved(self._cast(tensor.detach()), moves).clone()
            return nn.Parameter(_moved(self._perturbed(name, tensor, keep), moves, self.spare), requires_grad=False)

        kept = originals_of(self.model, self.state, self.modules)  # state is written in copies
        with swapped(self.model, replace, self.modules, self.state, self.tables), written_back(kept), torch.no_grad():
            result = self.model(*self.inputs.args, **self.inputs.kwargs)
        return [_comparable(t.detach()) for t in output_tensors(result)]

    def _perturbed(self, name: str, tensor: Tensor, keep: bool) -> Tensor:
        """A parameter with noise on it; made once for two runs, unless forward wrote over it in the first."""
        if name in self.held:
            known, total = self.held.pop(name)  # let go one by one: they never lie in memory twice
            if torch.equal(known.sum(), total):
                return known
        new = self._cast(tensor.detach())
        if new.is_complex():
            parts = torch.view_as_real(new.resolve_conj()).contiguous()
            new = torch.view_as_complex(perturbed(name, parts, self.seed, self.noise))
        elif new.is_floating_point():
            new = perturbed(name, new, self.seed, self.noise)
        else:
            return new.clone()
        if keep:
            self.held[name] = (new, new.sum())
        return new


def _moved(tensor: Tensor, moves: list[tuple[int, Tensor]], spare: _Spare | None = None) -> Tensor:
    """``tensor`` with its coordinates in another order; with ``spare`` in its own memory, to and fro."""
    if not moves or spare is None:
        for axis, index in moves:
            tensor = tensor.index_select(axis, index.to(tensor.device))
        return tensor
    here, there = tensor, spare.like(tensor)
    for axis, index in moves:
        torch.index_select(here, axis, index.to(tensor.device), out=there)
        here, there = there, here
    return tensor if here is tensor else tensor.copy_(here)


class _Spare:
    """Memory that is used again and again: the first touch of fresh memory costs more than the work in it."""

    def __init__(self, most: int) -> None:
        self.most = most  # elements
        self.known: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def like(self, tensor: Tensor) -> Tensor:
        key = (tensor.dtype, tensor.device)
        if key not in self.known:
            self.known[key] = tensor.new_empty(self.most)
        return self.known[key][: tensor.numel()].view(tensor.shape)


class _Widths(DispatchMode):
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
    found: dict[tuple[str, int], Any] = {}  # of numpy: members are many and short
    for group in groups:
        order = _cycle(group.size, generator).numpy()
        known: dict[int, tuple[Any, Any]] = {}  # of members that share their units
        for member in group.members:
            if id(member.unit_of) not in known:
                unit_of = member.unit_of.cpu().numpy()
                by_unit = unit_of.argsort(kind="stable")[int((unit_of < 0).sum()) :].reshape(group.size, -1)
                known[id(member.unit_of)] = by_unit, by_unit[order]
            to, taken = known[id(member.unit_of)]
            index = found.setdefault((member.tensor, member.axis), np.arange(len(member.unit_of)))
            index[to] = index[taken]
    return {key: torch.from_numpy(index) for key, index in found.items()}


def _cycle(size: int, generator: torch.Generator) -> Tensor:
    """A permutation that moves every unit and is no rotation, which an offset that is wrong by a shift would survive.

    Of three units one has to stay; two can only change places.
    """
    at = torch.arange(size, device="cpu")
    if size <= 3:
        return at.flip(0)
    while True:
        order = torch.randperm(size, generator=generator, device="cpu")
        steps = (order - at) % size
        if bool(steps.all()) and not bool((steps == steps[0]).all()):
            return order


def check_symmetry(
    model: nn.Module, structure: Structure, chosen: Sequence[Group], options: Options
) -> Symmetry | None:
    """What the check finds on the original weights; None where ``verify`` or the size of the model leaves it out."""
    if options.cutting.verify == "shapes" or not chosen:
        return None
    if is_meta(model):
        return None
    if options.cutting.verify == "auto" and is_too_large(model, structure):
        return None
    seen = {group.name: structure.in_outputs(group.name) for group in chosen} if structure.returns_free else {}
    reads = bool(structure.trace.decisions)
    known: dict[str, Any] = {"seen": seen, "reads_values": reads, "tables": structure.trace.tables}
    try:
        return symmetry(model, chosen, structure.inputs, seed=options.choice.seed, **known)
    except TurnedError:
        return None
    except (VerificationError, TraceError, RuntimeError):
        if reads:
            return None
        raise


def is_too_large(model: nn.Module, structure: Structure) -> bool:
    """Whether ``verify="auto"`` runs no weights with noise: a pass takes too long, or their copies too much memory."""
    limit = memory_limit()
    if limit is not None and sum(tensor.nbytes for tensor in model.parameters()) > limit:
        return True
    return structure.cost().macs > SYMMETRY_MACS


def is_meta(model: nn.Module) -> bool:
    """Whether a model has no weights, only their shapes."""
    return any(t.is_meta for _, module in named_modules(model) for t in module._parameters.values() if t is not None)
