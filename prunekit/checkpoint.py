"""A pruned model as a folder of safetensors and JSON: weights, plan, report, and how to build the model again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from prunekit.apply import apply
from prunekit.errors import CheckpointError, PlanError
from prunekit.plan import Plan
from prunekit.registry import build
from prunekit.weights import load_state, new_folder, read_state, write_state

FORMAT = "prunekit.model/1"
WEIGHTS, PLAN, REPORT, MODEL = "model.safetensors", "plan.json", "report.json", "model.json"


class Saveable(Protocol):
    """What pruning yields, as far as keeping it goes."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def plan(self) -> Plan: ...

    @property
    def report(self) -> Any: ...


@dataclass(frozen=True)
class Bundle:
    """A pruned model and what is worth keeping about it.

    Attributes:
        model: the whole model, pruned.
        plan: names the tensors of ``part``, from the original to what ``model`` is now.
        report: a mapping or a dataclass of JSON values.
        spec, options: what ``prunekit.registry.build`` takes to make the original again; "" if unknown.
        part: path of the submodule that the plan is about; "" is the whole model.
    """

    model: nn.Module
    plan: Plan
    report: Any
    spec: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""


def save(
    result: Saveable,
    folder: str | Path,
    *,
    spec: str | None = None,
    extras: Mapping[str, Callable[[Path], None]] | None = None,
) -> Path:
    """Write ``result`` to ``folder``, whole or not at all, and return the folder.

    Args:
        result: what ``prunekit.prune`` returned, or a ``Bundle``.
        folder: a new or empty folder, or one with an earlier result, which is then replaced.
        spec: the model's name for ``prunekit.registry.build``, so that ``load`` needs no model.
        extras: more files: name -> a function that writes the path it is given.

    Raises CheckpointError where the folder cannot be used or the model's state holds more than tensors.
    """
    description = {
        "format": FORMAT,
        "spec": spec if spec is not None else getattr(result, "spec", ""),
        "options": dict(getattr(result, "options", {})),
        "part": getattr(result, "part", ""),
    }
    with new_folder(Path(folder)) as draft:
        write_state(result.model, draft / WEIGHTS)
        (draft / PLAN).write_text(result.plan.to_json())
        (draft / REPORT).write_text(_json(_plain(result.report)))
        (draft / MODEL).write_text(_json(description))
        for name, write in (extras or {}).items():
            write(draft / name)
    return Path(folder)


def load(folder: str | Path, model: nn.Module | None = None) -> nn.Module:
    """The pruned model kept in ``folder``, in evaluation mode, on the CPU.

    Imports the model's own library, and nothing that traces, scores or trains. Without ``model`` the original is built
    by the name kept in the folder; a name that starts with ``python:`` imports that module, so load such folders only
    from those you trust. With ``model``, a fresh instance of the original class, that instance is pruned in place and
    returned.

    Raises CheckpointError for files that are missing, truncated or foreign and for weights that do not fit,
    RegistryError for an unknown name, PlanError for a plan that does not fit the model.
    """
    return read(folder, model).model


def read(folder: str | Path, model: nn.Module | None = None) -> Bundle:
    """What ``save`` wrote to ``folder``, put together again: the model as ``load`` gives it, and what belongs to it.

    Raises what ``load`` raises.
    """
    folder = Path(folder)
    description = describe(folder)
    plan = _plan(folder)
    report = _parsed(folder / REPORT) if (folder / REPORT).is_file() else {}  # no model needs it
    state = read_state(folder / WEIGHTS)  # before anything is built: the likeliest thing to be broken
    if model is None:
        if not description["spec"]:
            raise CheckpointError(
                f"{folder} does not say how to build its model", hint="pass a fresh instance: load(folder, model)"
            )
        model = build(description["spec"], **description["options"]).model
    try:
        undo = apply(model.get_submodule(description["part"]), plan)
    except AttributeError as error:
        raise CheckpointError(f"{type(model).__name__} has no part {description['part']!r}") from error
    try:
        load_state(model, state, folder / WEIGHTS)
    except CheckpointError:
        undo()
        raise
    return Bundle(model.eval(), plan, report, **description)


def describe(folder: Path) -> dict[str, Any]:
    """``spec``, ``options`` and ``part`` of the model kept in ``folder``. Raises CheckpointError."""
    raw = _parsed(folder / MODEL)
    try:
        if raw["format"] != FORMAT:
            raise CheckpointError(f"{folder / MODEL} has another format", hint=f"expected {FORMAT}")
        return {"spec": str(raw["spec"] or ""), "options": dict(raw["options"]), "part": str(raw["part"])}
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / MODEL} is not a model description: {error}") from error


def _parsed(path: Path) -> Any:
    text = _text(path)
    try:
        return json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}", hint="give a folder that prunekit wrote") from error


def _plan(folder: Path) -> Plan:
    text = _text(folder / PLAN)
    try:
        return Plan.from_json(text)
    except PlanError as error:
        raise CheckpointError(f"{folder / PLAN} cannot be used: {error.what}", hint=error.hint) from error


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot read {path}", hint="give a folder that prunekit wrote") from error


def _plain(report: Any) -> Any:
    return asdict(report) if is_dataclass(report) and not isinstance(report, type) else report


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, default=str) + "\n"
