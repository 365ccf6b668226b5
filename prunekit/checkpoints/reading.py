"""A folder read back: the model is built, cut by its plan and given its weights."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from prunekit.checkpoints.damage import check_damage, name_not_finite
from prunekit.checkpoints.description import PLAN, REPORT, WEIGHTS, describe, json_in, text_of
from prunekit.checkpoints.housing import housed
from prunekit.errors import CheckpointError, PlanError, expect
from prunekit.files.weights import load_state, read_state
from prunekit.plans.bundle import Bundle
from prunekit.plans.contents import Plan
from prunekit.registry.building import build
from prunekit.surgery.cutting import apply_unfitted


def load(folder: str | Path, model: nn.Module | None = None) -> nn.Module:
    """The pruned model kept in ``folder``, in evaluation mode, on the CPU.

    Imports the model's own library, and nothing that traces, scores or trains. Without ``model`` it is built from the
    configuration that the folder keeps, where its library builds models so, else by the kept name. A name that starts
    with ``python:`` imports that module, so load such folders only from those you trust. With ``model``, a fresh
    instance of the original class, that instance is pruned in place and returned.

    Raises CheckpointError for files that are missing, truncated or foreign and for weights that do not fit,
    RegistryError for an unknown name, PlanError for a plan that does not fit the model.
    """
    return read(folder, model).model


def read(folder: str | Path, model: nn.Module | None = None) -> Bundle:
    """What ``save`` wrote to ``folder``, put together again: the model as ``load`` gives it, and what belongs to it.

    Raises what ``load`` raises.
    """
    expect("folder", folder, "the path of a folder that prunekit wrote", fits=isinstance(folder, (str, PathLike)))
    expect("model", model, "a model of the original class", fits=model is None or isinstance(model, nn.Module))
    folder = Path(folder)
    description = describe(folder)
    home = description.pop("home")
    with check_damage(folder) as undamaged:
        plan = _plan(folder)
        report = json_in(folder / REPORT) if (folder / REPORT).is_file() else {}  # no model needs it
        state = read_state(folder / WEIGHTS)  # before anything is built: the likeliest thing to be broken
        undo = None
        try:
            if model is None and home is not None:
                model = housed(home, description["part"], plan)
            else:
                model = _original(folder, description) if model is None else model
                undo = apply_unfitted(model.get_submodule(description["part"]), plan)
        except AttributeError as error:
            raise CheckpointError(f"the model in {folder} has no part {description['part']!r}") from error
        try:
            undamaged()
            load_state(model, state, folder / WEIGHTS)
        except CheckpointError:
            if undo is not None:
                undo()
            raise
    name_not_finite(model, folder / WEIGHTS)
    return Bundle(model.eval(), plan, report, **description)


def _original(folder: Path, description: Mapping[str, Any]) -> nn.Module:
    if not description["spec"]:
        raise CheckpointError(
            f"{folder} does not say how to build its model", hint="pass a fresh instance: load(folder, model)"
        )
    return build(description["spec"], **description["options"]).model


def _plan(folder: Path) -> Plan:
    text = text_of(folder / PLAN)
    try:
        return Plan.from_json(text)
    except PlanError as error:
        raise CheckpointError(f"{folder / PLAN} cannot be used: {error.what}", hint=error.hint) from error
