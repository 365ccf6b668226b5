"""What every expert of a mixture adds to its output: measured by leaving all others out.

Whatever way a class routes and multiplies, an expert whose own weights are zero adds nothing. So the layer that holds
the experts is run with all of them at zero, and once more for each with that one back: the difference is its gate times
its output, and zero for tokens that are not sent to it. This asks for no gate, no mask and no name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.coupling.groups import Group, Member
from prunekit.errors import ScorerError
from prunekit.inputs import Sample, sample_named, tensors_in
from prunekit.modules.walk import state_tensors
from prunekit.scorers.calibrate import finite, to_model
from prunekit.scorers.undisturbed import restore_caches, tensor_caches, untouched

_NOTHING = 1e-6  # of the largest contribution of a call: below it a token was not sent there


@dataclass
class Contributions:
    """Of one group of experts: ``norms`` (units,) and ``tokens`` (units,), float64, over ``total`` tokens.

    ``norms`` sums the L2 norms of gate x output over the tokens that an expert was sent, ``tokens`` counts them.
    """

    norms: Tensor
    tokens: Tensor
    total: int = 0

    @classmethod
    def none(cls, size: int) -> Contributions:
        """Of so many units, over no tokens."""
        nothing = torch.zeros(size, dtype=torch.float64, device="cpu")
        return cls(nothing, nothing.clone())


def added_by_experts(
    model: nn.Module,
    samples: Sequence[Sample],
    groups: Sequence[Group],
    progress: Callable[[int, int], None] | None = None,
) -> Mapping[str, Contributions]:
    """What the units of each group add, over all tokens of all samples. The model is left as it was, to the bit.

    Costs one forward pass a sample, and the layer that holds the experts once more for each of them.

    Raises:
        ScorerError: an output is not finite, or a layer of a group is never called.
    """
    mixtures = [_Mixture.of(model, group) for group in groups]
    is_busy = [False]  # layers inside one that is measured are not
    with untouched(model, ()), torch.no_grad(), ExitStack() as stack:
        for mixture in mixtures:
            hook = mixture.layer.register_forward_hook(mixture.seer(is_busy), with_kwargs=True)
            stack.callback(hook.remove)
        caches = tensor_caches(model)
        for number, sample in enumerate(samples):
            inputs = to_model(sample, model).inputs
            with sample_named(number):
                model(*inputs.args, **inputs.kwargs)
            restore_caches(caches)
            if progress is not None:
                progress(number + 1, len(samples))
    for mixture in mixtures:
        if not mixture.found.total:
            raise ScorerError(f"the layer of {mixture.name} was never called", where=mixture.name)
        finite(mixture.found.norms, f"an output of {mixture.name} is not finite", mixture.name)
    return {mixture.name: mixture.found for mixture in mixtures}


@dataclass(frozen=True, eq=False)
class _Mixture:
    """The innermost module with a forward that holds all experts of a group, and the tensors that are theirs alone."""

    name: str
    layer: nn.Module
    held: tuple[tuple[Tensor, Member], ...]
    size: int
    found: Contributions

    @classmethod
    def of(cls, model: nn.Module, group: Group) -> _Mixture:
        state = state_tensors(model)
        members = group.parameters if group.routes else [m for m in group.members if m.tensor in group.stacks]
        paths = [m.tensor.split(".")[:-1] for m in members]
        common = [names[0] for names in takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False))]
        while common and not _has_forward(model.get_submodule(".".join(common))):
            common.pop()
        layer = model.get_submodule(".".join(common))
        held = tuple((state[m.tensor], m) for m in members)
        return cls(group.name, layer, held, group.size, Contributions.none(group.size))

    def seer(self, is_busy: list[bool]) -> Callable[..., None]:
        """A forward hook that runs the layer again, expert by expert."""

        def see(layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if is_busy[0]:
                return
            is_busy[0] = True
            try:
                self._measure(lambda: _by_token(layer.forward(*args, **kwargs)))
            finally:
                is_busy[0] = False

        return see

    def _measure(self, run: Callable[[], Tensor]) -> None:
        with self._silenced() as put_back:
            nothing = run()
            each = []
            for unit in range(self.size):
                with put_back(unit):
                    each.append(torch.linalg.vector_norm((run() - nothing).double(), dim=-1))
        norms = torch.stack(each).cpu()  # (units, tokens)
        sent = norms > _NOTHING * norms.max()
        self.found.norms += norms.sum(1)
        self.found.tokens += sent.sum(1)
        self.found.total += norms.shape[1]

    @contextmanager
    def _silenced(self) -> Iterator[Callable[[int], Any]]:
        """Every expert at zero; what is yielded puts one back for a while."""
        before = [tensor.detach().clone() for tensor, _ in self.held]
        owned = [set(member.unit_of.tolist()) for _, member in self.held]  # of a list, every tensor is one expert's

        @contextmanager
        def put_back(unit: int) -> Iterator[None]:
            own = [number for number, units in enumerate(owned) if unit in units]
            places = [self.held[number][1].coordinates(unit).to(self.held[number][0].device) for number in own]
            for number, at in zip(own, places, strict=True):
                tensor, member = self.held[number]
                tensor.index_copy_(member.axis, at, before[number].index_select(member.axis, at))
            yield
            for number, at in zip(own, places, strict=True):
                tensor, member = self.held[number]
                tensor.index_fill_(member.axis, at, 0)

        try:
            for tensor, _ in self.held:
                tensor.zero_()
            yield put_back
        finally:
            for (tensor, _), old in zip(self.held, before, strict=True):
                tensor.copy_(old)


def _has_forward(module: nn.Module) -> bool:
    """Whether a module has a forward of its own, which a mere container has not."""
    return getattr(type(module), "forward", None) is not nn.Module.forward


def _by_token(output: Any) -> Tensor:
    """(tokens, features): the first floating tensor that a layer gives."""
    found = next(t for t in tensors_in(output) if t.is_floating_point())
    return found.detach().reshape(-1, found.shape[-1])
