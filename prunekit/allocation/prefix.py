"""What precedes a change is computed once: module calls that end before it give their recorded outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from prunekit.allocation.surveying import Run, Survey
from prunekit.modules.calls import Plain, calls_through


class Astray(BaseException):
    """A forward pass calls other modules than it did, so that nothing recorded can stand for them.

    No Exception, as ``_Enough``: what a model catches would never reach the meter, which then makes the pass whole.
    """


class _Enough(BaseException):
    """Ends a pass that has nothing more to record. No Exception: a model may catch these."""


class Prefix:
    """Recorded outputs of module calls of one forward pass, as far as ``tick``.

    A pass under ``run_from`` computes only what is not wholly before the tick. Recorded outputs are handed out as
    copies, as what follows may write into them. More than ``memory`` bytes are not kept: then passes are whole.
    """

    def __init__(self, seen: Survey, memory: int) -> None:
        self._seen, self._memory = seen, memory
        self._outputs: dict[int, Any] = {}
        self.tick = 0
        self.is_full = False

    def advance(self, run: Run, tick: int) -> float:
        """Records up to ``tick`` by part of a pass of the model that the change is to be made to; what that cost.

        The cost is in forward passes, by what is computed.
        """
        if self.is_full or tick <= self.tick:
            return 0.0
        before, self.tick = self.tick, tick
        held, self._outputs = self._outputs, {}

        def compute(number: int, go: Callable[[], Any]) -> Any:
            """One call that ends before ``tick``: recorded, and nothing inside it need be."""
            call = self._seen.calls[number]
            if call.end <= before and number in held:
                self._outputs[number] = held[number]
                return self._copy(held[number])
            result = go()
            self._outputs[number] = self._copy(result)
            return result

        self._pass(run, compute, stop=tick, inner=held)
        size = sum(t.numel() * t.element_size() for t in tree_leaves(list(self._outputs.values())) if _is_tensor(t))
        if size > self._memory:
            self._outputs, self.tick, self.is_full = {}, 0, True
        return self._seen.share(before, tick)

    def run_from(self, run: Run) -> Any:
        """The result of ``run``, a pass that is the recorded one up to the tick."""
        return self._pass(run, lambda number, _: self._known(number), stop=None, inner={})

    @property
    def saved(self) -> float:
        """The share of a pass that is not computed."""
        calls = self._seen.calls
        return sum(self._seen.share(calls[n].start, calls[n].end) for n in self._outputs)

    def _copy(self, value: Any) -> Any:
        return tree_map(lambda t: t.clone() if _is_tensor(t) else t, value)

    def _known(self, number: int) -> Any:
        """What a call gave before the tick. Raises Astray for one that was not settled then."""
        if number not in self._outputs:
            raise Astray
        return self._copy(self._outputs[number])

    def _pass(
        self, run: Run, settle: Callable[[int, Callable[[], Any]], Any], *, stop: int | None, inner: dict[int, Any]
    ) -> Any:
        """A pass in which outermost calls that end by the tick are settled by ``settle``.

        ``inner`` are outputs of calls that may be inside of these.
        """
        calls, place, inside, over = self._seen.calls, 0, False, False

        def around(plain: Plain, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            nonlocal place, inside, over

            def go() -> Any:
                return plain(module, *args, **kwargs)

            if over:
                return go()
            number = place
            if number >= len(calls):
                raise Astray
            call = calls[number]
            if call.start >= self.tick:  # from here on other modules may run, as where a block is gone
                over = True
                if stop is not None:
                    raise _Enough
                return go()
            if call.module != id(module):
                raise Astray
            place += 1
            if inside:
                if number not in inner:
                    return go()
                place = number + 1 + call.inside
                return self._copy(inner[number])
            if call.end > self.tick or not call.pure:
                return go()
            inside = True
            result = settle(number, go)
            inside, place = False, number + 1 + call.inside
            return result

        with calls_through(around, {call.module for call in calls}):
            try:
                return run()
            except _Enough:
                return None


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)
