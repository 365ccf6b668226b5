"""What a run keeps so that a later process can go on from it: one folder, replaced as a whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from prunekit.errors import CheckpointError, RecipeError
from prunekit.files.disk import disk_faults, flushed
from prunekit.files.folders import digest

STATE, LOCK, TEACHERS, DAMAGES = "state.json", "run.lock", "teachers", "damages.json"
FORMAT = "prunekit.run/1"
_OWN = re.compile(rf"{re.escape(STATE)}(\.part)?|{re.escape(LOCK)}|{re.escape(DAMAGES)}|tensors-\d+\.safetensors")
_CACHED = re.compile(r".+-(features|output)\.(safetensors|\d+)")


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
        return is_begun(self.path)

    def keep(self, position: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Replaces what was kept. A process that dies at any time leaves the old state or the new one, whole.

        Raises CheckpointError where the disk refuses; the old state is then still there.
        """
        from safetensors.torch import save_file

        serial = (self._read()["serial"] if self.begun else 0) + 1
        name, part = f"tensors-{serial}.safetensors", self.path / f"{STATE}.part"
        try:
            with disk_faults(self.path, "what was kept before is whole"):
                self.path.mkdir(parents=True, exist_ok=True)
                save_file({key: value.contiguous() for key, value in tensors.items()}, self.path / name)
                flushed(self.path / name)
                said = {"format": FORMAT, "serial": serial, "tensors": name, "digest": digest(self.path / name)}
                part.write_text(_sealed({**said, "identity": self.identity, "position": position}))
                flushed(part)
                os.replace(part, self.path / STATE)
                flushed(self.path)
        except CheckpointError:
            for half in (self.path / name, part):
                half.unlink(missing_ok=True)
            raise
        for old in self.path.glob("tensors-*.safetensors"):
            if old.name != name and _OWN.fullmatch(old.name):
                old.unlink()

    def kept(self) -> Kept:
        """What was kept last.

        Raises RecipeError where it is of another run, CheckpointError where it cannot be read or is damaged.
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
        file = self.path / str(whole["tensors"])
        try:
            if whole.get("digest", digest(file)) != digest(file):
                raise CheckpointError(f"{file} is damaged: its bytes are not those that were kept", hint="start again")
            return Kept(whole["position"], load_file(file))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{file} cannot be read: {error}", hint="start again") from error

    def _read(self) -> dict[str, Any]:
        file = self.path / STATE
        try:
            found: dict[str, Any] = json.loads(file.read_text())
            if found["format"] != FORMAT:
                raise CheckpointError(f"{file} has another format", hint=f"expected {FORMAT}")
            seal = found.pop("seal", None)
            if seal is not None and json.loads(_sealed(found))["seal"] != seal:
                raise CheckpointError(f"{file} is damaged: it is not what was kept", hint="start again")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{file} cannot be read: {error}", hint="start again") from error
        return found


def _sealed(values: Mapping[str, Any]) -> str:
    """JSON with a digest of itself."""
    plain = json.loads(json.dumps(values))
    return json.dumps({**plain, "seal": hashlib.sha256(json.dumps(plain).encode()).hexdigest()})


def is_begun(folder: Path) -> bool:
    """Whether a run left a state in ``folder`` to go on from."""
    return (folder / STATE).is_file()


def holds_work(folder: Path) -> bool:
    """Whether a run left more in ``folder`` than measurements: something was cut or trained."""
    try:
        position = RunFolder(folder, {})._read()["position"]
        trained = any("loss" in stage for stage in position["done"])
        return bool(position["plans"] or position["loop"] or trained)
    except CheckpointError:
        return is_begun(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within the block no other process runs into ``folder``; the system frees it when this one dies.

    A block that leaves no state leaves nothing else either. Raises RecipeError where another run is at work there.
    """
    with disk_faults(folder, "nothing was begun"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RecipeError(
                "another run is at work in this folder", where=str(folder), hint="wait for it, or write elsewhere"
            ) from error
    try:
        yield
    finally:
        lock.release()
        if not is_begun(folder):
            discard(folder)


def discard(folder: Path) -> None:
    """Removes what a run kept in ``folder``, and the folder if nothing else is in it: other files are the user's."""
    drop_teachers(folder / TEACHERS)
    for file in sorted(folder.glob("*")):
        if _OWN.fullmatch(file.name) and (file.is_file() or file.is_symlink()):
            file.unlink(missing_ok=True)
    _removed_if_empty(folder)


def drop_teachers(folder: Path) -> None:
    """Removes what teachers gave in stages, as far as it lies in ``folder`` or a folder in it."""
    for file in [*folder.glob("*"), *folder.glob("*/*")]:
        if _CACHED.fullmatch(file.name) and file.is_file():
            file.unlink(missing_ok=True)
    for place in (*folder.glob("*"), folder):
        _removed_if_empty(place)


def _removed_if_empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()


def weights_digest(model: nn.Module) -> str:
    """A digest of the model's state: names, shapes, types and values."""
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
