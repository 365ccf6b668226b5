"""A plan: everything that pruning will change, decided before any weight moves. Frozen, printable, JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from prunekit.coupling.groups import Absence, Frozen
from prunekit.errors import PlanError
from prunekit.modules.containers import place
from prunekit.modules.walk import state_tensors
from prunekit.plans.checking import as_read, ascending
from prunekit.plans.lines import width_lines

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = "prunekit.plan/1"
WITH_REMOVALS = "prunekit.plan/2"  # an earlier prunekit must not carry out half of such a plan
WITH_ABSENCES = "prunekit.plan/3"


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


@dataclass(frozen=True)
class Removal:
    """Whole entries of a list or sequence of modules go: ``kept`` are the places that stay, ascending.

    ``container`` is its path, "" the model itself; ``names`` are those of all entries. What stays is numbered as if the
    container had been built with it alone. Everything else in a plan names modules and tensors as they were before.
    """

    container: str
    names: tuple[str, ...]
    kept: tuple[int, ...]

    @property
    def gone(self) -> tuple[str, ...]:
        """The paths of the entries that go."""
        return tuple(place(self.container, name) for at, name in enumerate(self.names) if at not in self.kept)


@dataclass(frozen=True)
class Shortening:
    """A plain list or tuple that has a value an entry: only the places ``kept`` of ``size`` stay, ascending.

    ``attribute`` may lead through objects that a module holds: ``config.layer_types``.
    """

    module: str
    attribute: str
    size: int
    kept: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Plan:
    """What is kept, which attributes change, and the structure that the plan was made for.

    Cuts, edits and folds come first, then removals and shortenings, and absences last: what stands in their place is
    fitted in the model that is left. ``tables`` names attributes that hold a dict of tensors which forward reads and
    does not fill itself: others are emptied by a cut.
    """

    fingerprint: str
    widths: tuple[Width, ...]
    cuts: tuple[Cut, ...]
    edits: tuple[Edit, ...] = ()
    folds: tuple[Fold, ...] = ()
    frozen: tuple[Frozen, ...] = ()
    removals: tuple[Removal, ...] = ()
    shortenings: tuple[Shortening, ...] = ()
    absences: tuple[Absence, ...] = ()
    tables: tuple[str, ...] = ()

    def to_json(self) -> str:
        values = asdict(self)
        for absence in values["absences"]:
            if not absence["typed"]:  # as before there were any: an earlier prunekit reads such a plan
                del absence["typed"]
            if not absence["kept"]:
                del absence["kept"]
        if not self.tables:
            del values["tables"]
        if self.absences:
            return json.dumps({"format": WITH_ABSENCES, **values}, separators=(",", ":"))
        del values["absences"]
        if self.removals or self.shortenings:
            return json.dumps({"format": WITH_REMOVALS, **values}, separators=(",", ":"))
        del values["removals"], values["shortenings"]
        return json.dumps({"format": FORMAT, **values}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Inverse of ``to_json``. Raises PlanError on anything else."""
        try:
            raw: dict[str, Any] = json.loads(text)
            if raw.pop("format") not in (known := (FORMAT, WITH_REMOVALS, WITH_ABSENCES)):
                raise PlanError("the plan was written in another format", hint=f"expected one of {', '.join(known)}")
            made = cls(
                fingerprint=str(raw["fingerprint"]),
                widths=tuple(as_read(Width, w) for w in raw["widths"]),
                cuts=tuple(as_read(Cut, c) for c in raw["cuts"]),
                edits=tuple(as_read(Edit, e) for e in raw["edits"]),
                folds=tuple(as_read(Fold, f) for f in raw["folds"]),
                frozen=tuple(as_read(Frozen, f) for f in raw["frozen"]),
                removals=tuple(as_read(Removal, r) for r in raw.get("removals", ())),
                shortenings=tuple(as_read(Shortening, s) for s in raw.get("shortenings", ())),
                absences=tuple(as_read(Absence, a) for a in raw.get("absences", ())),
                tables=tuple(str(name) for name in raw.get("tables", ())),
            )
            for width in made.widths:
                ascending(width.kept, width.before, width.group)
            for cut in made.cuts:
                ascending(cut.kept, cut.size, cut.tensor)
            for removal in made.removals:
                ascending(removal.kept, len(removal.names), removal.container or "the model")
            for short in made.shortenings:
                ascending(short.kept, short.size, f"{short.module}.{short.attribute}")
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
        for each in self.absences:
            stands = f"by one linear layer, an affine map of {each.leaves[0].rpartition('=')[2]} features"
            own = f"replace {each.module} {stands}" if each.has_map else f"remove {each.module}, which adds to a stream"
            lines.append(own)
        lines += [f"remove {path}" for removal in self.removals for path in removal.gone]
        lines += [f"shorten {s.module}.{s.attribute}  {s.size} -> {len(s.kept)}" for s in self.shortenings]
        lines += [f"frozen {f.name} ({f.size}): {f.reason}" for f in self.frozen]
        return "\n".join(lines)


def fingerprint(model: nn.Module, state: Mapping[str, Tensor] | None = None) -> str:
    """Identifies a structure: names and shapes of all parameters and buffers, 16 hex digits.

    ``state`` are the model's ``state_tensors``, where they are known.
    """
    held = state_tensors(model) if state is None else state
    text = ";".join(f"{n}{tuple(t.shape)}" for n, t in sorted(held.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
