"""What a run keeps so that a later process can go on from it: one folder, replaced as a whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.errors import CheckpointError, RecipeError

STATE = "state.json"
FORMAT = "prunekit.run/1"


@dataclass(frozen=True)
class Kept:
    """``position``: JSON values that say where the run is; ``tensors``: weights and optimiser states by name."""

    position: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run that is under way. ``identity`` says what it is a run of."""

    path: Path
    identity: Mapping[str, Any]

    @property
    def begun(self) -> bool:
        """Whether there is a state to go on from."""
        return (self.path / STATE).is_file()

    def keep(self, position: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Replaces what was kept. A process that dies at any time leaves the old state or the new one, whole."""
        from safetensors.torch import save_file

        self.path.mkdir(parents=True, exist_ok=True)
        before = self._read() if self.begun else None
        name = f"tensors-{(before['serial'] if before else 0) + 1}.safetensors"
        save_file({key: value.contiguous() for key, value in tensors.items()}, self.path / name)
        _flushed(self.path / name)
        serial = (before["serial"] if before else 0) + 1
        whole = {"format": FORMAT, "serial": serial, "tensors": name, "identity": self.identity, "position": position}
        part = self.path / f"{STATE}.part"
        part.write_text(json.dumps(whole, allow_nan=True))
        _flushed(part)
        os.replace(part, self.path / STATE)
        for old in self.path.glob("tensors-*.safetensors"):
            if old.name != name:
                old.unlink()

    def kept(self) -> Kept:
        """What was kept last.

        Raises RecipeError where it is of another run, CheckpointError where it cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        whole = self._read()
        for key, value in json.loads(json.dumps(self.identity)).items():
            if whole["identity"].get(key) != value:
                raise RecipeError(
                    f"the interrupted run had another {key}: {whole['identity'].get(key)!r}, not {value!r}",
                    where=str(self.path),
                    hint="give the same arguments, or remove that folder to start again",
                )
        try:
            return Kept(whole["position"], load_file(self.path / whole["tensors"]))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{self.path / whole['tensors']} cannot be read: {error}", hint="start again"
            ) from error

    def _read(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.path / STATE).read_text())
            if found["format"] != FORMAT:
                raise CheckpointError(f"{self.path / STATE} has another format", hint=f"expected {FORMAT}")
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{self.path / STATE} cannot be read: {error}", hint="start again") from error
        return found


def discard(folder: Path) -> None:
    """Removes what a run kept in ``folder``, and the folder if nothing else is in it: other files are the user's."""
    for file in (folder / STATE, folder / f"{STATE}.part", *folder.glob("tensors-*.safetensors")):
        file.unlink(missing_ok=True)
    for empty in (folder / "teachers", folder):
        if empty.is_dir() and not any(empty.iterdir()):
            empty.rmdir()


def _flushed(path: Path) -> None:
    """The file's content reaches the disk before its name does."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def weights_digest(model: nn.Module) -> str:
    """A digest of the model's state: names, shapes, types and values."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
