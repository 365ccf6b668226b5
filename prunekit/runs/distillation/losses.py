"""What is compared: features as the hooks yield them, outputs at the end of the pass."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.coupling.groups import Tap
from prunekit.errors import RecipeError
from prunekit.inputs import is_number, reals, tensors_in
from prunekit.inputs.batching import Batch, run_on
from prunekit.runs.distillation.teachers import Teacher
from prunekit.recipes.stages import Term
from prunekit.runs.features import tapped
from prunekit.scorers.calibrate import wide


Rest = Callable[[Tensor, int], Tensor]  # ``ModelEntry.answers`` of one model


class _MeanSquare(torch.autograd.Function):
    """Mean of (feature - wanted)^2. Keeps the difference and nothing else, in the memory of ``wanted``.

    The gradient is put there too. torch's own keeps both tensors, and its forward and backward pass each make a third
    of their size.
    """

    @staticmethod
    def forward(ctx: Any, feature: Tensor, held: list[Tensor]) -> Tensor:
        # in a list, since autograd does not let a function write into a tensor that it is given
        ctx.difference = torch.sub(feature, held[0], out=held[0])
        total: Tensor = torch.linalg.vector_norm(ctx.difference, dtype=wide(feature)).square() / feature.numel()
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        difference, ctx.difference = ctx.difference, None  # it becomes the gradient: a second pass finds nothing
        factor = (2 * grad / difference.numel()).to(difference.dtype)
        return difference.mul_(factor), None


def mean_square(feature: Tensor, wanted: Tensor) -> Tensor:
    """Mean of (feature - wanted)^2, float32. ``wanted`` is used up."""
    result: Tensor = _MeanSquare.apply(feature, [wanted.to(feature.dtype)])
    return result


def term_losses(
    student: nn.Module,
    teachers: Mapping[str, nn.Module | Teacher],
    terms: Sequence[Term],
    taps: Mapping[str, Sequence[Tap]],
    aligning: float,
    batch: Batch,
    indices: Sequence[int] | None = None,
    call: Callable[..., Any] | None = None,
    *,
    late: bool = False,
    temperature: float = 1.0,
    top: int = 0,
    rest: Rest | None = None,
) -> dict[str, Tensor]:
    """The unweighted loss of every term that counts where aligning terms count ``aligning``, by name, from one pass.

    A term over features joins the losses of its taps as ``pooled`` says. A teacher's features live until the
    student's are there, and then hold the difference that the backward pass needs.

    Args:
        teachers: by the names of the terms; a ``Teacher`` may remember what it gave for ``indices``.
        call: runs the student, where that is not the student itself (a wrapper around it).
        late: compare copies of the student's features after its pass: blocks that are run again in the backward pass
            must then find no comparison among their operators.
        temperature, top: of ``divergence``, for terms on logits.
        rest: for terms that read the rest of the model.

    Raises RecipeError where student and teacher features differ in shape.
    """
    live = [term for term in terms if weight(term, aligning)]
    asked = _Asked.of(live, teachers, taps, batch, indices)
    caught: list[tuple[Tap, Tensor]] = []
    read = (lambda tap, feature: caught.append((tap, feature.clone()))) if late else asked.compare
    with tapped(student, dict.fromkeys(tap for term in live for tap in taps[term.name]), read):
        final = floats(run_on(call or student, batch))
    for tap, feature in caught:
        asked.compare(tap, feature)
    losses = {term.name: pooled(asked.sums[term.name], term) for term in live if asked.sums.get(term.name)}
    for term in live:
        if not term.roles and term.loss == "kl" and term.read == "part":
            losses[term.name] = divergence(final[0], asked.finals[term.teacher][0], temperature, top)
        elif not term.roles:
            pairs = [(a, b.to(a.dtype)) for a, b in zip(final, asked.finals[term.teacher], strict=True)]
            if term.read == "rest":
                pairs = answered(rest, pairs, indices or ())
            each = [between(term, mine, theirs) for mine, theirs in pairs]
            losses[term.name] = torch.stack(each).mean()
    return losses


def answered(
    rest: Rest | None, pairs: Sequence[tuple[Tensor, Tensor]], indices: Sequence[int]
) -> list[tuple[Tensor, Tensor]]:
    """What the rest of the model makes of the student's and of the teacher's outputs, asked the same.

    The samples of a batch decide the questions: another epoch has other batches, and a run that goes on the same ones.
    """
    assert rest is not None, "the stage keeps no such term without it"
    seed = zlib.crc32(repr(list(indices)).encode())
    found = []
    for mine, theirs in pairs:
        with torch.no_grad():
            wanted = rest(theirs, seed)
        found.append((rest(mine, seed), wanted))
    return found


def pooled(found: Sequence[tuple[Tensor, torch.Size]], term: Term) -> Tensor:
    """The loss of a term from those of its places, as ``Term.pooled`` says."""
    kinds: dict[object, list[Tensor]] = {}
    for value, shape in found:
        kinds.setdefault(shape if term.pooled == "shapes" else None, []).append(value)
    return torch.stack([torch.stack(values).mean() for values in kinds.values()]).sum()


def between(term: Term, mine: Tensor, theirs: Tensor) -> Tensor:
    """The loss of a term between two tensors of one shape, a number."""
    if callable(term.loss):
        return term.loss(mine, theirs)
    if term.loss == "kl":
        return divergence(mine, theirs)
    if term.loss == "bce":
        return logistic(mine, theirs)
    if term.loss == "cosine":
        return (1 - nn.functional.cosine_similarity(mine.float(), theirs.float(), -1)).mean()
    return nn.functional.mse_loss(mine, theirs)


def divergence(mine: Tensor, theirs: Tensor, temperature: float = 1.0, top: int = 0) -> Tensor:
    """Mean over all places of T^2 KL(theirs / T || mine / T), both logits (..., classes).

    T^2 keeps the size of the gradients (Hinton et al. 2015, 1503.02531, section 2). With ``top`` > 0 the teacher's
    ``top`` likeliest classes count one by one and all others as one class together: never more than the whole
    divergence, and without the noise of a long tail.
    """
    student = nn.functional.log_softmax(mine.float() / temperature, -1).flatten(0, -2)
    teacher = nn.functional.log_softmax(theirs.float() / temperature, -1).flatten(0, -2)
    if 0 < top < teacher.shape[-1]:
        kept = teacher.topk(top).indices
        student, teacher = (_with_rest(each.gather(-1, kept)) for each in (student, teacher))
    found = nn.functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return found * temperature**2


def logistic(mine: Tensor, theirs: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of yes-or-no probabilities, both given as logits of one shape: 0 where equal."""
    wanted, binary = theirs.float().sigmoid(), nn.functional.binary_cross_entropy_with_logits
    return binary(mine.float(), wanted) - binary(theirs.float(), wanted)


def _with_rest(kept: Tensor) -> Tensor:
    """Logarithms of probabilities (places, classes), and behind them that of what they leave to one."""
    left = (1 - kept.exp().sum(-1, keepdim=True)).clamp_min(torch.finfo(kept.dtype).eps)
    return torch.cat([kept, left.log()], -1)


@dataclass(eq=False)
class _Asked:
    """What the teachers gave for one batch, and what the student's features came to beside it.

    ``expected`` are features by term and tap, several where a module runs more than once in a pass; ``finals`` the
    outputs by teacher; ``sums`` the losses of each tap, with the feature's shape, by term.
    """

    terms: Sequence[Term]
    taps: Mapping[str, Sequence[Tap]]
    expected: dict[tuple[str, Tap], list[Tensor]]
    finals: dict[str, list[Tensor]]
    sums: dict[str, list[tuple[Tensor, torch.Size]]]

    @classmethod
    def of(
        cls,
        live: Sequence[Term],
        teachers: Mapping[str, nn.Module | Teacher],
        taps: Mapping[str, Sequence[Tap]],
        batch: Batch,
        indices: Sequence[int] | None,
    ) -> _Asked:
        asked = cls(live, taps, {}, {}, {term.name: [] for term in live if term.roles})
        for name in dict.fromkeys(term.teacher for term in live):
            teacher = teachers[name]
            known = teacher if isinstance(teacher, Teacher) else Teacher(teacher)
            readers = [term for term in live if term.teacher == name]
            wanted = tuple(dict.fromkeys(tap for term in readers for tap in taps[term.name]))
            features, asked.finals[name] = known(batch, wanted, indices)
            for term in readers:
                for tap in taps[term.name]:
                    values = features.pop(tap, None)  # the first that reads it has it to itself
                    if values is None:
                        values = [v.clone() for t in readers for v in asked.expected.get((t.name, tap), ())]
                    asked.expected[term.name, tap] = values
        return asked

    def compare(self, tap: Tap, feature: Tensor) -> None:
        """A feature of the student with each teacher's."""
        for term in self.terms:
            if tap not in self.taps[term.name]:
                continue
            theirs = self.expected[term.name, tap].pop(0)
            if theirs.shape != feature.shape:
                raise RecipeError(
                    f"the teacher's feature is {tuple(theirs.shape)}, the student's {tuple(feature.shape)}",
                    where=f"the {tap.side} of {tap.module}",
                    hint="align roles that the teacher and the student have at equal widths",
                )
            same = mean_square(feature, theirs) if term.loss == "mse" else between(term, feature, theirs)
            self.sums[term.name].append((same, feature.shape))


def floats(output: Any) -> list[Tensor]:
    """The floating tensors of an output of any shape, of complex ones their parts."""
    return [reals(t) for t in tensors_in(output) if is_number(t)]


def weight(term: Term, aligning: float) -> float:
    """What the term counts where aligning terms count ``aligning``."""
    return term.factor * (aligning if term.aligning else 1 - aligning)
