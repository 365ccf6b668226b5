"""Applies a plan to a model: all or nothing, with undo."""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from prunekit.compensation.in_order import Reference, reference, refit
from prunekit.compensation.settings import Compensation, as_compensation
from prunekit.errors import InputError, PlanError, expect
from prunekit.inputs import Inputs
from prunekit.modules.containers import place
from prunekit.modules.emptied import holds_tensors, with_exchanged
from prunekit.modules.rollback import standing
from prunekit.modules.walk import named_modules, state_tensors
from prunekit.modules.wrappers import eager, unwrap
from prunekit.plans.contents import Edit, Plan, fingerprint
from prunekit.surgery.computed_weights import recompute
from prunekit.surgery.history import remember
from prunekit.surgery.narrowing import narrow_attention
from prunekit.surgery.removing import check_removals, holder, leave_out, maps_of_uncut, remove, removed_parameters
from prunekit.surgery.replacements import replacements_for
from prunekit.surgery.rest import way_back_of_the_rest
from prunekit.surgery.stale import dead
from prunekit.surgery.way_back import putter

if TYPE_CHECKING:
    from prunekit.compensation.sums import Sums

logger = logging.getLogger(__name__)


_TRIES = 3  # of one step, before it is passed over


class Undo:
    """Puts a model back to what it was before ``apply``, bit for bit, with the very same tensors; then does nothing."""

    def __init__(self, steps: list[Callable[[], None]]) -> None:
        self.steps = steps

    def __call__(self) -> None:
        take_back(self.steps)


def take_back(steps: list[Callable[[], None]]) -> None:
    """Takes every step back, the last one first. Whatever is raised waits until all are: no model is left half of each.

    A step may be done twice. One that goes on failing is passed over and stays in ``steps``, for another call.
    """
    raised: list[BaseException] = []
    failing: list[Callable[[], None]] = []
    while steps:
        try:
            while steps:
                steps[-1]()
                steps.pop()
        except BaseException as error:
            raised.append(error)
            if len(raised) % _TRIES == 0 and steps:
                failing.append(steps.pop())
    steps.extend(reversed(failing))
    if raised:
        raise raised[0]


def apply(
    model: nn.Module,
    plan: Plan,
    *,
    compensate: str | Compensation | None = None,
    data: Iterable[Any] | None = None,
) -> Undo:
    """Cuts ``model`` in place as ``plan`` says and returns the way back.

    Every new tensor is made before the first one is put in; if anything fails the model is bit-identical to what
    came in. Parameters are replaced by new ones: create optimizers afterwards.

    Args:
        compensate: ``"ridge"``, ``"ridge-in-order"``, or a Compensation: refit what reads cut features by least
            squares; see ``prunekit/compensation``.
        data: calibration inputs for it and for affine maps, each what the model is called with.

    Raises:
        InputError: if a compensation or an affine map has no data, or data that cannot be joined to one batch.
        PlanError: if the plan was made for another structure, or an attribute does not hold its recorded value.
    """
    expect("plan", plan, "what prunekit.plan gave, or Plan.from_json", fits=isinstance(plan, Plan))
    if data is None and any(absence.has_map for absence in plan.absences):
        raise InputError("an affine map is fitted on calibration inputs", where="data", hint="pass data=")
    undo = Undo([])
    try:
        model = unwrap(model)
        with eager():
            carry_out_plan(model, plan, undo, compensate=compensate, data=data)
        return undo
    except BaseException:  # an interrupt on the way out too: who gets no way back must find the model as it was
        undo()
        raise


def apply_unfitted(model: nn.Module, plan: Plan) -> Undo:
    """``apply`` with affine maps at zero, where weights are loaded afterwards, or only what goes is looked at."""
    undo = Undo([])
    try:
        model = unwrap(model)
        with eager():
            carry_out_plan(model, plan, undo)
        return undo
    except BaseException:
        undo()
        raise


def carry_out_plan(
    model: nn.Module,
    plan: Plan,
    undo: Undo,
    *,
    compensate: str | Compensation | Sums | None = None,
    data: Iterable[Any] | None = None,
) -> None:
    """``apply`` for a caller that has the way back before the first step is made: ``undo`` is told of each.

    ``Sums`` are a refit that has its samples already. Affine maps are fitted where there are data; without, they stay
    at zero, for weights that are loaded afterwards.
    """
    samples: list[Inputs] | None = None
    if data is not None and any(absence.has_map for absence in plan.absences):
        from prunekit.surgery.mapping import map_inputs  # loading a pruned model fits nothing

        data = list(data)
        samples = map_inputs(data)
    modules = named_modules(model)
    state = state_tensors(model, modules)
    if fingerprint(model, state) != plan.fingerprint:
        raise PlanError(
            "the plan was made for a model of another structure",
            hint="build the model exactly as it was when the plan was made, or plan again",
        )
    _check_edits(model, plan.edits)
    check_removals(model, plan)
    stood = standing(model, modules)
    original, added = _seen_before(model, plan, compensate, data)
    replacements = replacements_for(state, plan, original.names if original else (), added)
    old = [tensor for tensor in model.parameters() if id(tensor) in replacements]
    gone = removed_parameters(model, plan)
    maps = maps_of_uncut(model, plan, samples, partial(apply_unfitted, model, plan))
    steps = undo.steps
    try:
        remember(model, plan, steps)
        dead([*old, *gone], steps)
        for path, module in modules:
            _replace(module, path, replacements, plan.tables, steps)
        for edit in plan.edits:
            _edit(model, edit, steps)
        for _, module in modules:
            recompute(module, steps)
        narrow_attention(modules, steps)
        remove(model, plan, steps)
        leave_out(model, plan, steps, samples, maps)
        steps.append(way_back_of_the_rest(modules, replacements, most=sum(tensor.nbytes for tensor in [*old, *gone])))
        new = [replacements[id(tensor)] for tensor in old]
        steps.append(partial(_bury, new))
        if original is not None:
            logger.info("%d products were refitted", refit(model, original))
    except BaseException:
        take_back([stood, undo])
        raise


def _seen_before(
    model: nn.Module, plan: Plan, compensate: str | Compensation | Sums | None, data: Iterable[Any] | None
) -> tuple[Reference | None, dict[str, Tensor]]:
    """What a compensation needs of the model that is not cut yet: outputs to fit to, or what is added to tensors."""
    if compensate is None:
        return None, {}
    from prunekit.compensation import streamed, sums  # loading a pruned model refits nothing

    if isinstance(compensate, sums.Sums):
        return None, streamed.corrections(model, plan, compensate)
    how = as_compensation(compensate)
    assert how is not None
    if data is None:
        raise InputError("a compensation needs calibration inputs", where="data", hint="pass data=")
    if how.in_order:
        if plan.removals:
            raise InputError(
                "a refit in order cannot follow blocks that go in the same plan",
                where="compensate",
                hint="apply the removals first, then plan and refit what is left; prunekit.prune does so",
            )
        return reference(model, plan, data, how), {}
    return None, streamed.corrections(model, plan, sums.Sums.over(data, how))


@contextlib.contextmanager
def applied(model: nn.Module, plan: Plan, data: Iterable[Any] | None = None) -> Iterator[nn.Module]:
    """Inside the context ``model`` is pruned as ``plan`` says; afterwards it is what it was, bit for bit.

    For a search over subnets with a score of one's own: nothing is trained, every subnet is the real, smaller model.
    ``data`` are calibration inputs for affine maps. Raises what ``apply`` raises.
    """
    undo = apply(model, plan, data=data)
    try:
        yield model
    finally:
        undo()


def _bury(tensors: Iterable[Tensor]) -> None:
    dead([tensor for tensor in tensors if isinstance(tensor, nn.Parameter)], [])


def _replace(
    module: nn.Module,
    path: str,
    replacements: dict[int, Tensor],
    tables: Collection[str],
    steps: list[Callable[[], None]],
) -> None:
    """Everything of one module that holds state tensors."""
    for store in (module._parameters, module._buffers):
        for name, tensor in list(store.items()):
            if tensor is not None and id(tensor) in replacements:
                steps.append(putter(store, name, tensor))
                store[name] = replacements[id(tensor)]  # type: ignore[assignment]
    _replace_lists(module, path, replacements, tables, steps)


def _replace_lists(
    module: nn.Module,
    path: str,
    replacements: dict[int, Tensor],
    tables: Collection[str],
    steps: list[Callable[[], None]],
) -> None:
    """Plain attributes that hold state tensors, or caches of tensors that depend on the old sizes."""
    for name, value in list(module.__dict__.items()):
        if name in ("_parameters", "_buffers", "_modules"):
            continue
        if type(value) is list and any(isinstance(v, weakref.ref) for v in value):
            # torch's recurrent layers tell by weak references whether their weights were exchanged
            steps.append(putter(module.__dict__, name, value))
            module.__dict__[name] = [_repointed(v, replacements) for v in value]
            continue
        is_cache = holds_tensors(value) and place(path, name) not in tables  # by shape or device: forward fills it
        new = {} if is_cache else with_exchanged(value, replacements)
        if type(value) is dict and not value:
            steps.append(partial(_forget, value))
        if new is not value:
            steps.append(putter(module.__dict__, name, value))
            module.__dict__[name] = new


def _forget(cache: dict[Any, Any]) -> None:
    """What the pruned model left in a cache that was empty is of the pruned widths."""
    if holds_tensors(cache):
        cache.clear()


def _repointed(value: Any, replacements: dict[int, Tensor]) -> Any:
    new = replacements.get(id(value())) if isinstance(value, weakref.ref) else None
    return value if new is None else weakref.ref(new)


def _check_edits(model: nn.Module, edits: tuple[Edit, ...]) -> None:
    for e in edits:
        try:
            held, name = holder(model.get_submodule(e.module), e.attribute)
            value = getattr(held, name)
            value = value if e.index is None else value[e.index]
        except (AttributeError, IndexError, TypeError) as error:
            raise PlanError(f"the model has no attribute {e.module}.{e.attribute}", hint="plan again") from error
        if value != e.before:
            raise PlanError(f"{e.module}.{e.attribute} is {value}, the plan expects {e.before}", hint="plan again")


def _edit(model: nn.Module, edit: Edit, steps: list[Callable[[], None]]) -> None:
    held, name = holder(model.get_submodule(edit.module), edit.attribute)
    store = held.__dict__
    before = store[name]
    after: Any = edit.after
    if edit.index is not None:
        items = list(before)
        items[edit.index] = edit.after
        after = type(before)(items)
    steps.append(putter(store, name, before))
    store[name] = after
