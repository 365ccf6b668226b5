"""What a plug-in brings: one frozen ``Plugin`` an entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from prunekit.operators import Operator
from prunekit.plugins.data import Dataset, Evaluator, Exporter
from prunekit.plugins.examination import Examiner
from prunekit.plugins.exhibits import Exhibitor
from prunekit.plugins.formats import Format
from prunekit.plugins.homes import Home
from prunekit.recipes.stages import Recipe
from prunekit.roles import Role

if TYPE_CHECKING:  # who loads a slimmed model needs no criterion
    from prunekit.scorers import Scorer


@dataclass(frozen=True)
class ModelEntry:
    """One model that a plug-in can build.

    Attributes:
        factory: (checkpoint path or None) -> the whole model. Raises CheckpointError.
        part: path of the submodule that recipes prune and distil; "" is the whole model.
        rest: runs everything outside ``part`` once on an example, so that it can be counted; None if there is none.
        answers: (whole model, an output of ``part``, a seed) -> what the rest makes of it, with a gradient in it, for
            losses. Questions, such as prompts, are drawn from the seed alone. None where nothing follows.
        dataset, evaluator, exporters, exhibitors, formats: names in the plug-in's tables; "" where the generic ones of
            prunekit do.
        examiner: a name too; "" where ``prunekit eval`` is not for this model.
        generated: recipe settings that suit this model when its data are generated rather than given; None for the
            usual ones.
        holds_out: whether a run that is given data, and none to validate on, validates on a part of these that it does
            not train on. For models that generated samples tell nothing about.
        uniform: whether the command prunes to widths that the model's own library can load, unless it is told otherwise
            or there are none.
        lean: a context in which a module gives the same up to rounding, for less time or memory; recipes score, train
            and evaluate in it. None where there is nothing to gain.
    """

    factory: Callable[[Path | None], nn.Module]
    part: str = ""
    rest: Callable[[nn.Module], object] | None = None
    answers: Callable[[nn.Module, Tensor, int], Tensor] | None = None
    dataset: str = ""
    evaluator: str = ""
    examiner: str = ""
    exporters: tuple[str, ...] = ()
    exhibitors: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    generated: Mapping[str, Any] | None = None
    holds_out: bool = False
    uniform: bool = False
    lean: Callable[[nn.Module], AbstractContextManager[None]] | None = None


@dataclass(frozen=True)
class Foreign:
    """Folders of another library that hold a whole model, so that it can be scored beside prunekit's own.

    Attributes:
        recognises: whether a folder is one.
        build: the model in it. Raises CheckpointError.
        examiner: its name in the plug-in's table.
    """

    recognises: Callable[[Path], bool]
    build: Callable[[Path], nn.Module]
    examiner: str


@dataclass(frozen=True)
class Plugin:
    """Everything that one distribution adds, by name. Models are asked for as ``<plug-in name>:<model name>``.

    ``operators`` say what is known of operators that prunekit has no rule for (``docs/operators.md``); ``roles`` are
    told before prunekit's own where such rules are in use (``prunekit/roles.py``). ``exporters`` maps a file name to
    the writer of a picture about a run, ``exhibitors`` a name to what shows single samples in report.html, ``formats``
    maps what ``prunekit export --to`` takes to its writer. ``foreign`` maps a library to its folders, ``homes`` a
    library to how its models say their own widths.
    ``source`` builds ``<plug-in name>:NAME?key=value`` for any other name, with the arguments, and says what recipes
    should know of it, as an entry whose factory is not asked; all of the plug-in's formats are for these models, and
    ``prunekit eval`` asks ``source_examiner`` for them.
    ``entry_of`` says what recipes should know of a model that came from elsewhere, in the names of this plug-in's
    tables, and None where it is none of this plug-in's.
    """

    name: str
    models: Mapping[str, ModelEntry] = field(default_factory=dict)
    roles: tuple[Role, ...] = ()
    operators: tuple[Operator, ...] = ()
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    scorers: Mapping[str, Callable[[], Scorer]] = field(default_factory=dict)
    datasets: Mapping[str, Dataset] = field(default_factory=dict)
    evaluators: Mapping[str, Evaluator] = field(default_factory=dict)
    examiners: Mapping[str, Examiner] = field(default_factory=dict)
    exporters: Mapping[str, Exporter] = field(default_factory=dict)
    exhibitors: Mapping[str, Exhibitor] = field(default_factory=dict)
    formats: Mapping[str, Format] = field(default_factory=dict)
    foreign: Mapping[str, Foreign] = field(default_factory=dict)
    homes: Mapping[str, Home] = field(default_factory=dict)
    source: Callable[[str, Mapping[str, Any]], tuple[nn.Module, ModelEntry | None]] | None = None
    source_examiner: str = ""
    entry_of: Callable[[nn.Module], ModelEntry | None] | None = None
