"""Whether two runs of a model that reads values decided alike: where they did, their outputs have to compare."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunekit.graph.tree import of_type
from prunekit.modules.dispatching import DispatchMode


class Decisions(DispatchMode):
    """Notes every value that is read, and every place, order or count that is found by comparing numbers.

    Of a mask only how many there are is kept: its places move where units are permuted.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.taken: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not any(t.is_floating_point() for t in of_type(args, Tensor)):
            dynamic = torch.Tag.dynamic_output_shape in func.tags
            self.taken += [tuple(t.shape) for t in of_type(result, Tensor)] if dynamic else []
            return result
        if isinstance(result, (bool, int)):
            self.taken.append(result)
        for found in of_type(result, Tensor):
            if found.dtype is torch.bool:
                self.taken.append(int(found.sum()))
            elif not found.is_floating_point() and not found.is_complex():
                self.taken.append(tuple(found.flatten().tolist()))
        return result
