"""What a cut leaves alone, to be put back beside what it replaced: it may be trained or moved before an undo."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn

from prunekit.modules.snapshot import write_into
from prunekit.offloading import copied
from prunekit.surgery.way_back import Step

logger = logging.getLogger(__name__)


def way_back_of_the_rest(modules: Sequence[tuple[str, nn.Module]], replaced: Collection[int], *, most: int) -> Step:
    """The step that puts every parameter and buffer that is not among ``replaced``, by id, where and as it is now.

    Values are kept as copies, the smallest tensors first, of ``most`` bytes together: the way back holds at most twice
    what the cut replaced, and besides it tables that every forward writes into. Of one that is not kept and has been
    written since, the step says in the log that it stays.
    """
    held = [
        (store, name, tensor, f"{path}.{name}" if path else name)
        for path, module in modules
        for store in (module._parameters, module._buffers)
        for name, tensor in store.items()
        if tensor is not None and id(tensor) not in replaced and not tensor.is_meta
    ]
    renormalised = {id(module.weight) for _, module in modules if _is_renormalised(module)}
    kept: dict[int, tuple[Tensor, Tensor]] = {}
    written: dict[int, tuple[Tensor, int, str]] = {}
    for _, _, tensor, name in sorted(held, key=lambda entry: entry[2].nbytes):
        if id(tensor) in kept or id(tensor) in written:
            continue
        most -= tensor.nbytes
        if most >= 0 or id(tensor) in renormalised:
            kept[id(tensor)] = tensor, copied(tensor)
        elif not tensor.is_inference():
            written[id(tensor)] = tensor, tensor._version, name

    def put() -> None:
        for store, name, tensor, _ in held:
            store[name] = tensor  # type: ignore[assignment]
        for tensor, before in kept.values():
            if (tensor.dtype, tensor.device, tensor.shape) != (before.dtype, before.device, before.shape):
                tensor.data = before.clone()  # a model that was moved or rounded holds it with other data
            elif tensor.layout != torch.strided or not torch.equal(tensor, before):
                write_into(tensor, before)
        lost = [name for tensor, version, name in written.values() if tensor._version != version]
        if lost:
            logger.warning(
                "%d tensors that the cut left alone were written since and stay as they are: %s%s",
                len(lost),
                ", ".join(lost[:3]),
                ", ..." if lost[3:] else "",
            )

    return put


def _is_renormalised(module: nn.Module) -> TypeGuard[nn.Embedding | nn.EmbeddingBag]:
    return isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None
