"""What several commands do before they start: the model, the device, and settings for generated data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunekit.cli.console.voice import busy
from prunekit.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from prunekit.registry.building import Built

# For models that no plug-in speaks for, on generated images: minutes rather than days
GENERATED = {"images": 32, "train_images": 64, "val_images": 16, "epochs": 2, "align_epochs": 2}


MOST = 10**9  # of anything that is counted out one by one


def check_seed_flag(seed: int, seeds: int = 1) -> None:
    """Raises InputError for a seed, or the last of several, that torch's generators do not take."""
    if not 0 <= seed <= 2**63 - seeds:
        what = "is negative" if seed < 0 else "is too large"
        raise InputError(f"--seed {seed} {what}", hint="pass a whole number from 0 to 2**63 - 1")


def check_count(flag: str, value: int | None) -> None:
    """Raises InputError for a number of things that cannot be."""
    if value is not None and not 1 <= value <= MOST:
        raise InputError(f"{flag} {value} is out of range", hint=f"pass a whole number from 1 to {MOST:,}")


def build_model(spec: str, checkpoint: Path | None, seed: int) -> Built:
    """The model that ``spec`` names; one without weights is drawn from ``seed``. Raises RegistryError."""
    import torch

    from prunekit.registry.building import build

    check_seed_flag(seed)
    torch.manual_seed(seed)  # factories that draw random weights draw the same ones again
    return build(spec, checkpoint=checkpoint)


def built_on(device: str, spec: str, checkpoint: Path | None, seed: int, shown: Console | None) -> Built:
    """``build_model`` on a device, with what it waits for said on ``shown``. Raises InputError for no such device."""
    with busy(shown, "importing torch"):
        check_device(device)
    with busy(shown, f"building {spec}"):
        built = build_model(spec, checkpoint, seed)
    built.model.to(device)
    return built


def light_model(spec: str, checkpoint: Path | None, seed: int) -> Built:
    """The model without values, on the meta device, where it can be built so: full-size ones take minutes to draw."""
    import warnings

    import torch

    from prunekit.registry.building import build

    check_seed_flag(seed)
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that weights are not read, for one
            return build(spec)
    except Exception:  # the factory's own code, where it expects values: it may raise anything, and so may a bad name
        return build_model(spec, checkpoint, seed)


def suited(built: Built) -> Mapping[str, Any]:
    """Recipe settings that suit a model whose data are generated."""
    own = None if built.entry is None else built.entry.generated
    return GENERATED if own is None else own


def sample_count(built: Built, asked: int | None, data: Path | None) -> int:
    """Samples to score or refit on where ``asked`` says none: the recipes' number, or the model's own of generated."""
    from prunekit.recipes import COMMON

    own = suited(built).get("images") if data is None else None
    return asked or int(own or COMMON["images"])


def check_device(device: str) -> None:
    """Raises InputError where ``device`` cannot be used."""
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # unknown, not built in, or not allocating
        first = next(iter(str(error).splitlines()), "")
        raise InputError(f"--device {device} cannot be used: {first}", hint="--device cpu always can") from error
    if torch.device(device).type == "meta":
        raise InputError(
            "--device meta holds no weights to cut", hint="--device cpu always can; prunekit.plan needs none"
        )
