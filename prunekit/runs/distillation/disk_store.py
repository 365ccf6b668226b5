"""What teachers give, on disk: each file says what it should hold, and one that a dead process damaged is made again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from prunekit.files.disk import disk_faults

DIGEST = "digest"


class Disk:
    """Keeps tensors in half precision, a safetensors file a key. What is first made is read back like the rest.

    Raises CheckpointError where the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._seen = folder, set[str]()
        with disk_faults(folder, "no teacher is remembered"):
            folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, key: str, make: Callable[[], list[Tensor]]) -> list[Tensor]:
        path = self.folder / f"{key}.safetensors"
        found = self._read(path, key)
        if found is None:
            self._write(path, make())
            found = self._read(path, key)
            assert found is not None
        return found

    def _read(self, path: Path, key: str) -> list[Tensor] | None:
        """None where there is no such file, or another process wrote it and it is not whole."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
                if key not in self._seen and (file.metadata() or {}).get(DIGEST) != _digest_of(held):
                    return None
        except (OSError, SafetensorError):
            return None
        self._seen.add(key)
        return [held[str(n)].float() for n in range(len(held))]

    def _write(self, path: Path, made: list[Tensor]) -> None:
        from safetensors.torch import save_file

        held = {str(n): t.to("cpu", torch.float16).contiguous() for n, t in enumerate(made)}
        part = path.with_suffix(f".{os.getpid()}")
        with disk_faults(path, "what the run kept is whole"):
            try:
                save_file(held, part, metadata={DIGEST: _digest_of(held)})
                part.replace(path)  # a run that is killed leaves no half a file under the final name
            finally:
                part.unlink(missing_ok=True)


def _digest_of(held: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(held):
        found.update(f"{name} {tuple(held[name].shape)} ".encode())
        found.update(held[name].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
