"""What a class makes of a configuration: the shape of every tensor and the numbers that its modules hold."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from prunekit.plugins import Place

Entry = tuple[str | int, ...]  # where in a configuration: names, and the index in a list
Number = int | float
LARGEST_RATIO = 16.0  # of two widths; temperatures and bases of rotations are above it, rates below one


@dataclass(frozen=True)
class Blueprint:
    """Sizes by tensor and axis, int and float attributes by module and name, and the names of all tensors."""

    sizes: Mapping[Place, int]
    numbers: Mapping[tuple[str, str], float]
    tensors: frozenset[str] = frozenset()

    @classmethod
    def of(cls, model: nn.Module) -> Blueprint:
        modules = list(model.named_modules())
        tensors: dict[str, torch.Tensor] = {}
        for store in ("_parameters", "_buffers"):  # one of several names of a tensor counts, the first: as torch tells
            seen: set[int] = set()
            for path, module in modules:
                prefix = f"{path}." if path else ""
                for name, tensor in getattr(module, store).items():
                    if tensor is not None and id(tensor) not in seen:
                        seen.add(id(tensor))
                        tensors[prefix + name] = tensor
        sizes = {(name, axis): size for name, tensor in tensors.items() for axis, size in enumerate(tensor.shape)}
        numbers = {
            (path, name): value
            for path, module in modules
            for name, value in vars(module).items()
            if type(value) in (int, float) and not name.startswith("_")
        }
        return cls(sizes, numbers, frozenset(tensors))

    def apart(self, other: Blueprint) -> set[Place]:
        """Places whose sizes differ, or that only one of the two has."""
        return {p for p in self.sizes.keys() | other.sizes.keys() if self.sizes.get(p) != other.sizes.get(p)}


def built(kind: type[PreTrainedModel], config: PreTrainedConfig, device: str = "meta") -> PreTrainedModel:
    """A model of the class without weights; whatever the class raises for a configuration that it refuses."""
    fresh = config.__class__.from_dict(config.to_dict())  # as it comes out of a file
    fresh._attn_implementation_internal = config._attn_implementation_internal
    return empty(kind, fresh, device)


def empty(kind: type[PreTrainedModel], config: PreTrainedConfig, device: str) -> PreTrainedModel:
    """A model of the class whose weights have no values yet; random numbers that it draws all the same are put back."""
    with torch.random.fork_rng([]), torch.device(device), no_init_weights():
        model = kind(config)
    model.tie_weights()
    return model


def entries(config: PreTrainedConfig) -> Iterator[tuple[Entry, Number | None]]:
    """Every number that a width may follow, of a configuration, of those inside it, and of its lists.

    Whole numbers, and fractions that may be a ratio of widths; None where a number may stand.
    """

    def walk(held: Any, at: Entry) -> Iterator[tuple[Entry, Number | None]]:
        if type(held) is int or held is None or (type(held) is float and 1 < held <= LARGEST_RATIO):
            yield at, held
        elif isinstance(held, PreTrainedConfig):
            for name, value in vars(held).items():
                if not name.startswith("_") and not name.endswith("_token_id"):
                    yield from walk(value, (*at, name))
        elif isinstance(held, (list, tuple)):
            for number, value in enumerate(held):
                yield from walk(value, (*at, number))

    yield from walk(config, ())


def changed(config: PreTrainedConfig, edits: Mapping[Entry, Number]) -> PreTrainedConfig:
    """A copy of a configuration with other numbers."""
    copied = copy.deepcopy(config)
    for at, value in edits.items():
        put(copied, at, value)
    return copied


def put(config: Any, at: Entry, value: Any) -> None:
    """Writes one number into a configuration; a list that holds it is replaced by another one."""
    *way, last = at
    if isinstance(last, int):
        held = get(config, tuple(way))
        items = list(held)
        items[last] = value
        put(config, tuple(way), type(held)(items))
    else:
        setattr(get(config, tuple(way)), last, value)


def get(config: Any, at: Entry) -> Any:
    """What stands at an entry."""
    for name in at:
        config = config[name] if isinstance(name, int) else getattr(config, name)
    return config
