"""What an option says of itself beside its name, type and default: the metadata of a field, read by all who show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, fields
from typing import Any

Setting = str | int | float | bool


@dataclass(frozen=True)
class Said:
    """What a field says of itself.

    Attributes:
        doc: a sentence for docstrings and the reference page.
        flag: a shorter sentence for the command's help; "" where the command has no such flag.
        repeats: whether the flag may be given more than once, and makes a list.
        read: what a flag's text becomes; None takes it as it is.
        setting: the default of the recipe setting of that name, of whose type it is; None where recipes have none. An
            empty or zero setting stands for None.
        choices: the words that a setting may be, or a function that gives them, so that nothing is imported before
            they are needed.
        least: the smallest number that a setting may be.
        check: raises RecipeError for another reason why a setting of that name cannot have a value.
    """

    doc: str
    flag: str = ""
    repeats: bool = False
    read: Callable[[str], Any] | None = None
    setting: Setting | None = None
    choices: Sequence[str] | Callable[[], Sequence[str]] = ()
    least: float = 0
    check: Callable[[str, Any], None] | None = None


def said(doc: str, **more: Any) -> Mapping[str, Said]:
    """The metadata of a field: ``dataclasses.field(default=..., metadata=said("a sentence", flag="..."))``."""
    return {"said": Said(doc, **more)}


def said_of(record: Any) -> dict[str, tuple[Field[Any], Said]]:
    """The fields of a record class that say something of themselves, by name."""
    return {field.name: (field, field.metadata["said"]) for field in fields(record) if "said" in field.metadata}
