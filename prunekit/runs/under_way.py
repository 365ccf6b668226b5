"""Where a run stands between two stages: everything that changes, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from torch import nn

from prunekit.coupling.structure import Structure
from prunekit.errors import RecipeError
from prunekit.modules.soundness import unsound
from prunekit.plugins.data import Evaluator
from prunekit.runs.distillation.state import State
from prunekit.runs.fitting import Fitted
from prunekit.runs.goals import Shares
from prunekit.runs.job import Job
from prunekit.runs.keeping import RunFolder
from prunekit.runs.outcome import Event
from prunekit.runs.position import Position
from prunekit.runs.stopping import Stopped
from prunekit.samples.tasks import Samples


@dataclass(eq=False)
class UnderWay:
    """The state of a run.

    Attributes:
        train, val: the samples.
        model, part: what is slimmed, and its submodule that is pruned.
        structure: of the part as it came in.
        fit: the stages that this model has a use for.
        original: a copy of the model as it came in.
        teachers: frozen parts by the names that losses use; ``previous`` joins at the first cut.
        sizes: units by group name of every teacher.
        evaluate: what the model is judged by.
        kept: the folder that the run is kept in, if any.
        position: what the finished stages gave.
        shares: how the stages share what goes.
    """

    train: Samples
    val: Samples
    model: nn.Module
    part: nn.Module
    structure: Structure
    fit: Fitted
    original: nn.Module
    teachers: dict[str, nn.Module]
    sizes: dict[str, Mapping[str, int]]
    evaluate: Evaluator
    kept: RunFolder | None
    shares: Shares
    position: Position = field(default_factory=Position)


def keep(job: Job, run: UnderWay, loop: State | None = None) -> None:
    """Keeps the run as it stands, where there is a folder for it. Raises RecipeError for weights that are not finite."""
    if names := unsound(run.part):
        raise RecipeError(
            f"training left weights that are not finite: {', '.join(names[:3])}; they are not kept",
            hint=f"train with a lower rate: --set lr={job.settings.training.lr / 10:g}",
        )
    if run.kept is None or not job.ranks.first:
        return
    run.position.loop = loop
    tensors = run.position.tensors(run.part, run.teachers.get("previous"))
    run.kept.keep(run.position.values(run.shares), tensors)


def counter(job: Job, number: int, title: str, unit: str) -> Callable[[int, int], None]:
    """Tells the listener of (done, total) in a stage, which ends here where the run is asked to end."""

    def count(done: int, total: int) -> None:
        job.listen(Event(number, title, done, total, unit))
        if job.stop():
            raise Stopped

    return count


@contextmanager
def lean(job: Job, *models: nn.Module) -> Iterator[None]:
    """The models as the plug-in would have them run; not while they are traced, since it is not their own code."""
    entry = job.built.entry
    with ExitStack() as stack:
        if entry is not None and entry.lean is not None:
            for model in models:
                stack.enter_context(entry.lean(model))
        yield


def sizes_of(structure: Structure) -> dict[str, int]:
    """Units by group name."""
    return {group.name: group.size for group in structure.groups}
