"""A plan: everything that pruning will change, decided before any weight moves. Frozen, printable, JSON."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from prunekit.coupling.groups import Frozen
from prunekit.errors import PlanError
from prunekit.modules.walk import state_tensors
from prunekit.plans.checking import as_read, ascending
from prunekit.plans.lines import width_lines

if TYPE_CHECKING:
    from torch import nn

FORMAT = "prunekit.plan/1"


@dataclass(frozen=True)
class Width:
    """One group before and after: ``kept`` are the surviving units, ascending."""

    group: str
    role: str
    before: int
    kept: tuple[int, ...]

    @property
    def after(self) -> int:
        return len(self.kept)


@dataclass(frozen=True)
class Cut:
    """One axis of one parameter or buffer: ``kept`` are the surviving coordinates, ascending."""

    tensor: str
    axis: int
    size: int
    kept: tuple[int, ...]


@dataclass(frozen=True)
class Edit:
    """One number that a module holds, or one entry of a tuple (``index``)."""

    module: str
    attribute: str
    index: int | None
    before: float
    after: float


@dataclass(frozen=True)
class Fold:
    """Multiply the coordinates ``rows`` of ``tensor``'s ``axis`` (numbered after the cuts) by ``factor``.

    Keeps the function where an operator rescales by itself when a width shrinks, such as the default scale of
    scaled dot-product attention, 1/sqrt(head_dim).
    """

    tensor: str
    axis: int
    rows: tuple[int, ...]
    factor: float


@dataclass(frozen=True, repr=False)
class Plan:
    """What is kept, which attributes change, and the structure that the plan was made for."""

    fingerprint: str
    widths: tuple[Width, ...]
    cuts: tuple[Cut, ...]
    edits: tuple[Edit, ...] = ()
    folds: tuple[Fold, ...] = ()
    frozen: tuple[Frozen, ...] = ()

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Inverse of ``to_json``. Raises PlanError on anything else."""
        try:
            raw: dict[str, Any] = json.loads(text)
            if raw.pop("format") != FORMAT:
                raise PlanError("the plan was written in another format", hint=f"expected {FORMAT}")
            made = cls(
                fingerprint=str(raw["fingerprint"]),
                widths=tuple(as_read(Width, w) for w in raw["widths"]),
                cuts=tuple(as_read(Cut, c) for c in raw["cuts"]),
                edits=tuple(as_read(Edit, e) for e in raw["edits"]),
                folds=tuple(as_read(Fold, f) for f in raw["folds"]),
                frozen=tuple(as_read(Frozen, f) for f in raw["frozen"]),
            )
            for width in made.widths:
                ascending(width.kept, width.before, width.group)
            for cut in made.cuts:
                ascending(cut.kept, cut.size, cut.tensor)
            return made
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise PlanError(f"the text is not a plan: {error}", hint="pass a plan.json that prunekit wrote") from error

    def __repr__(self) -> str:
        return "\n".join([f"plan of {len(self.widths)} widths, {len(self.cuts)} cuts", *width_lines(self)])

    def explain(self) -> str:
        """One line per group, edit and frozen width, for people."""
        lines = [f"{w.group}  {w.role}  {w.before} -> {w.after}" for w in self.widths]
        for e in self.edits:
            index = "" if e.index is None else f"[{e.index}]"
            lines.append(f"set {e.module}.{e.attribute}{index}  {e.before} -> {e.after}")
        lines += [f"fold {f.tensor} axis {f.axis}: {len(f.rows)} rows x {f.factor:.6g}" for f in self.folds]
        lines += [f"frozen {f.name} ({f.size}): {f.reason}" for f in self.frozen]
        return "\n".join(lines)


def fingerprint(model: nn.Module) -> str:
    """Identifies a structure: names and shapes of all parameters and buffers, 16 hex digits."""
    text = ";".join(f"{n}{tuple(t.shape)}" for n, t in sorted(state_tensors(model).items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
