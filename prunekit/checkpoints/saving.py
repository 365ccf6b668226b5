"""A pruned model as a folder of safetensors and JSON: weights, plan, report, and how to build the model again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, is_dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from prunekit.checkpoints.as_cut import check_as_cut
from prunekit.checkpoints.description import FORMAT, MODEL, PLAN, REPORT, WEIGHTS
from prunekit.checkpoints.housing import home_said
from prunekit.checkpoints.pages_beside import write_pages
from prunekit.checkpoints.respec import check_spec
from prunekit.errors import expect
from prunekit.files.byte_counts import as_bytes
from prunekit.files.folders import digest, new_folder
from prunekit.files.weights import write_state
from prunekit.plans.contents import Plan
from prunekit.registry.homes import recorded_by
from prunekit.surgery.history import cut_so_far


class Saveable(Protocol):
    """What pruning yields, as far as keeping it goes."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def plan(self) -> Plan: ...

    @property
    def report(self) -> Any: ...


def save(
    result: Saveable,
    folder: str | Path,
    *,
    spec: str | None = None,
    extras: Mapping[str, Callable[[Path], None]] | None = None,
    shard: int | str | None = None,
) -> Path:
    """Write ``result`` to ``folder``, whole or not at all, and return the folder.

    Args:
        result: what ``prunekit.prune`` returned, or a ``Bundle``.
        folder: a new or empty folder, or one with an earlier result, which is then replaced in one step; files in it
            that prunekit did not write stay.
        spec: the model's name for ``prunekit.registry.build``, so that ``load`` needs no model. It is built to see that
            it gives this model back, cut; with the arguments that it was made with: ``timm:resnet18?num_classes=10``.
            Not needed where the model's library builds it from a configuration that it holds.
        extras: more files: name -> a function that writes the path it is given.
        shard: where the weights have more bytes than this, they are written as several files of at most so many and an
            index; a number or a text such as ``"5GB"``.

    Raises CheckpointError where the folder cannot be used, the disk is full, the model's state holds more than tensors,
    the model is not what its plan leaves, as after ``undo``, or ``spec`` names another model.
    """
    _check_what_is_saved(result, folder, spec, extras)
    most = None if shard is None else as_bytes("shard", shard)
    recorded = recorded_by(result.model)
    source = recorded[1].spec if recorded else ""
    description: dict[str, Any] = {
        "format": FORMAT,
        "spec": spec if spec is not None else getattr(result, "spec", "") or source,
        "options": dict(getattr(result, "options", {})),
        "part": getattr(result, "part", ""),
    }
    part = result.model.get_submodule(description["part"])
    plan = cut_so_far(part) or result.plan  # a model that was pruned in several rounds is rebuilt by all of them
    check_as_cut(part, plan)
    if recorded:
        description["home"] = home_said(*recorded, description["part"], (plan, result.plan))
    if spec and spec != getattr(result, "spec", ""):
        check_spec(spec, description["options"], description["part"], result.model, plan)
    known: dict[str, Future[str]] = {}
    with ThreadPoolExecutor(1) as beside, new_folder(Path(folder), known=known) as draft:
        for name in write_state(result.model, draft / WEIGHTS, most):
            known[name] = beside.submit(digest, draft / name)
        (draft / PLAN).write_text(plan.to_json())
        report = _as_mapping(result.report)
        (draft / REPORT).write_text(_json(report))
        (draft / MODEL).write_text(_json(description))
        write_pages(draft, plan, report, getattr(result, "story", {}), description["spec"])
        for name, write in (extras or {}).items():
            write(draft / name)
    return Path(folder)


def _check_what_is_saved(result: object, folder: object, spec: object, extras: object) -> None:
    parts = all(hasattr(result, part) for part in ("model", "plan", "report"))
    expect("result", result, "what prunekit.prune returned, or a Bundle", fits=parts)
    named = isinstance(folder, (str, PathLike)) and str(folder) not in ("", ".")
    expect("folder", folder, "the path of a folder", fits=named)
    expect(
        "spec",
        spec,
        "the name of a model, as prunekit.registry.build takes it",
        fits=spec is None or isinstance(spec, str),
    )
    own = extras is None or (isinstance(extras, Mapping) and all(map(callable, extras.values())))
    expect("extras", extras, "a mapping from names to functions that write a file", fits=own)


def _as_mapping(report: Any) -> Any:
    return asdict(report) if is_dataclass(report) and not isinstance(report, type) else report


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, default=str) + "\n"
