"""What one run is asked to do: the value that a run file and the flags of ``prunekit prune`` both become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunekit.options.fields import said
from prunekit.runfiles.spots import Spots

DEFAULT_SCORER = "disturbed_taylor"


@dataclass(frozen=True)
class ExportAsked:
    """One export of the result."""

    to: str = field(metadata=said("format; see: prunekit list formats"))
    out: Path = field(metadata=said("folder for it"))
    precision: tuple[str, ...] = field(
        default=(), metadata=said("fp16 or int8, beside fp32, where the format has them")
    )


@dataclass(frozen=True)
class RunFile:
    """What a run is asked to do; ``options`` are those of ``prunekit.prune`` that were given, by name.

    ``spots`` says where each key stands, for errors; it takes no part in comparisons.
    """

    model: str | None = field(
        default=None,
        metadata=said("timm:NAME, torchvision:NAME, python:pkg.mod:factory or PLUG-IN:NAME; a recipe may have one"),
    )
    recipe: str | None = field(
        default=None, metadata=said("recipe to run, by name or as a file; without, oneshot; see: prunekit list recipes")
    )
    options: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = field(default=None, metadata=said("weights: .safetensors, .pth or .pt"))
    data: Path | None = field(
        default=None, metadata=said("folder of images, or text for a model of text; without, generated")
    )
    val: Path | None = field(default=None, metadata=said("folder of validation images; without, generated"))
    out: Path = field(default=Path("out/pruned"), metadata=said("folder for the result; appears only on success"))
    device: str = field(default="cpu", metadata=said("cpu, cuda, cuda:1, mps, ..."))
    seed: int = field(default=0, metadata=said("seed of everything random"))
    scorer: str = field(default=DEFAULT_SCORER, metadata=said("criterion; see: prunekit list scorers"))
    settings: Mapping[str, Any] = field(
        default_factory=dict,
        metadata=said("what the recipe can be told, NAME: VALUE; see: prunekit recipes show RECIPE"),
    )
    track: str | None = field(
        default=None, metadata=said("log to tensorboard, wandb, mlflow or trackio too, through Accelerate")
    )
    offload: Path | None = field(
        default=None,
        metadata=said("folder on a disk with room for the model twice, for weights that memory has no room for"),
    )
    offload_memory: str | None = field(
        default=None, metadata=said("what the process then holds at most, as 8GB, which it is where nothing is said")
    )
    export: tuple[ExportAsked, ...] = field(
        default=(), metadata=said("exports of the result, each once the folder is written")
    )
    spots: Spots = field(default_factory=Spots, compare=False)
