"""What is measured: prunekit, and Torch-Pruning on the same rows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prunekit.errors import PrunekitError

RATIO = 0.5
Record = dict[str, Any]


class Tool(Protocol):
    """Prunes ``model`` in place and tells what it measured; ``rebuild`` gives another, equal model."""

    def __call__(self, model: nn.Module, x: Any, entry: Record, rebuild: Callable[[], nn.Module]) -> Record: ...


def call(model: nn.Module, x: Any) -> Any:
    return model(**x) if isinstance(x, dict) else model(*x) if isinstance(x, tuple) else model(x)


def tensors(tree: Any) -> list[Tensor]:
    """Tensors of an output of any nesting, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        return [t for v in tree.values() for t in tensors(v)]
    if isinstance(tree, (list, tuple)):
        return [t for v in tree for t in tensors(v)]
    return [t for f in fields(tree) for t in tensors(getattr(tree, f.name))] if is_dataclass(tree) else []


def prunekit_tool(model: nn.Module, x: Any, entry: Record, rebuild: Callable[[], nn.Module]) -> Record:
    """Prunes with nothing configured, verified in full; before that, another model without symmetry, for its time.

    The timed call comes first, so that it pays for whatever a first call on this architecture costs, as the other
    tool's only call does.
    """
    import prunekit

    prunekit.prune(_small(), torch.randn(2, 4), ratio=RATIO)  # imports; no clock runs
    found: Record = {}
    plain = rebuild()
    # a refusal comes again below, where the record tells it
    with contextlib.suppress(PrunekitError), _clock(found, "seconds"):
        prunekit.prune(plain, example_inputs=x, ratio=RATIO, verify="shapes")
    del plain
    with _clock(found, "seconds_verified"):
        result = prunekit.prune(model, example_inputs=x, ratio=RATIO, verify="full")
    if "seconds" not in found:
        raise RuntimeError("the first call was refused and the second was not: a call has left something behind")
    return found | {
        "symmetry": result.report.verify["symmetry"],
        "symmetry_error": result.report.verify.get("symmetry_error"),
        "left_alone": result.report.verify.get("symmetry_broken", []),
        "edits": len(result.plan.edits),
    }


def torch_pruning_tool(model: nn.Module, x: Any, entry: Record, rebuild: Callable[[], nn.Module]) -> Record:
    """Torch-Pruning by its documented defaults: L2 group magnitude, every width by half, the classifier protected."""
    import torch_pruning

    def pruner(model: nn.Module, inputs: Any, ignored: list[nn.Module], **options: Any) -> Any:
        importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
        how = {"global_pruning": False, "pruning_ratio": RATIO, "ignored_layers": ignored}
        return torch_pruning.pruner.BasePruner(model, inputs, importance=importance, **how, **options)

    small = _small()
    pruner(small, torch.randn(2, 4), [small[-1]]).step()  # imports; no clock runs
    options: Record = {}
    if entry.get("source") == "transformers" or entry.get("multi_out"):
        options["output_transform"] = lambda out: sum(t.sum() for t in tensors(out) if t.is_floating_point())
    if isinstance(x, tuple):
        options["forward_fn"] = lambda m, z: m(*z)
    found: Record = {}
    with _clock(found, "seconds_build"):
        made = pruner(model, x, _classifiers(model, entry), **options)
    with _clock(found, "seconds_prune"):
        made.step()
    return found | {"seconds": round(found["seconds_build"] + found["seconds_prune"], 4)}


@contextlib.contextmanager
def _clock(record: Record, name: str) -> Iterator[None]:
    """Writes the CPU seconds of a block that ends well."""
    start = time.process_time()
    yield
    record[name] = round(time.process_time() - start, 4)


def _small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def _classifiers(model: nn.Module, entry: Record) -> list[nn.Module]:
    """The final classifier: what the list names, else what the model says, and layers of 1000 or 400 outputs."""
    if entry.get("ignore"):
        return [model.get_submodule(name) for name in entry["ignore"]]
    found: list[Any] = []
    own = getattr(model, "get_classifier", None)
    if callable(own):
        classifier = own()
        found += classifier if isinstance(classifier, (list, tuple)) else [classifier]
    for m in model.modules():
        width = m.out_features if isinstance(m, nn.Linear) else m.out_channels if isinstance(m, nn.Conv2d) else 0
        if (width == 1000 or (width == 400 and isinstance(m, nn.Linear))) and not any(m is f for f in found):
            found.append(m)
    return [m for m in found if isinstance(m, nn.Module)]


TOOLS: dict[str, Tool] = {"prunekit": prunekit_tool, "torch-pruning": torch_pruning_tool}
