"""A pruned transformers model whose own config is made true, so that ``from_pretrained`` gives it back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from prunekit.inputs import Inputs
from prunekit.plugins import Settlement, Spoken, Words
from prunekit_hf.blueprint import Blueprint, Entry, Number, built, changed, get, put
from prunekit_hf.layers import layer_edits, tensor_names
from prunekit_hf.saying import Vocabulary

logger = logging.getLogger(__name__)

TOLERANCE = 1e-5  # of the largest value of an output
ATTEMPTS = 8  # configurations of the right shapes whose values are compared
LEARNT = 4  # classes and configurations of which it is kept what they build, for the next model of theirs


def recognises(model: nn.Module) -> bool:
    """Whether a model is one of transformers with a configuration to write into."""
    return isinstance(model, PreTrainedModel) and isinstance(model.config, PreTrainedConfig)


def study(model: nn.Module) -> Words:
    """What the configuration of this model can say."""
    assert isinstance(model, PreTrainedModel)
    try:
        known = vocabulary(model)
    except Exception as error:  # a class of someone else's, which may not build from what it was built from
        logger.warning("%s does not build from its own config: %s", type(model).__name__, error)
        return Words(tuple, lambda sizes: Spoken({}, frozenset(sizes)))
    return Words(known.followers, known.say)


def vocabulary(model: PreTrainedModel) -> Vocabulary:
    """Kept with the model, and found anew where its configuration, or the number of its layers, has changed."""
    written = model.config.to_json_string(use_diff=False), sum(1 for _ in model.parameters())
    if _VOCABULARIES.get(model, (("", 0), None))[0] != written:
        _VOCABULARIES[model] = written, _learnt(model, written[0])
    return _VOCABULARIES[model][1]


_VOCABULARIES: WeakKeyDictionary[nn.Module, tuple[tuple[str, int], Vocabulary]] = WeakKeyDictionary()


def _learnt(model: PreTrainedModel, written: str) -> Vocabulary:
    """What the class makes of the configuration: of two models that hold all their layers it is one and the same."""
    key = type(model), written, str(model.config._attn_implementation_internal)
    known = _LEARNT.pop(key, None)
    try:
        known = known or Vocabulary(type(model), model.config)
    except Exception as error:  # it may still build what is left of it
        logger.debug("%s does not build from its config as it is: %s", type(model).__name__, error)
    if known is None or known.original.tensors != tensor_names(model):
        return Vocabulary(type(model), model.config, layer_edits(model))
    _LEARNT[key] = known
    while len(_LEARNT) > LEARNT:
        del _LEARNT[next(iter(_LEARNT))]
    return known


_LEARNT: dict[tuple[type, str, str], Vocabulary] = {}  # the latest last


def settle(model: nn.Module, inputs: Inputs) -> Settlement:
    """Writes the new widths into ``model.config`` where they give this very model back: equal shapes, equal values.

    Shapes alone are not enough: rotary tables, scales and numbers of heads hide in what the class computes. So a model
    is built from the configuration, given these weights, and run beside this one, whose own outputs must not change
    either, since its forward may read the configuration.
    """
    assert isinstance(model, PreTrainedModel)
    try:
        return _settled_by(model, inputs)
    except Exception as error:  # a class of someone else's, which may not build or run from a changed configuration
        trouble = f"{type(model).__name__} cannot be built and run from its config: {type(error).__name__}: {error}"
        return Settlement((), (), trouble.partition("\n")[0], _no_way_back)


def _settled_by(model: PreTrainedModel, inputs: Inputs) -> Settlement:
    wanted, config = Blueprint.of(model), model.config
    trouble, tensors = "", list[str]()
    known = vocabulary(model)
    for tried, wording in enumerate(known.wordings(wanted)):
        if wording.wrong or tried == ATTEMPTS:
            trouble = trouble or _what_is_wrong(wanted, wording.wrong)
            return Settlement((), tuple(sorted({name for name, _ in wording.wrong})), trouble, _no_way_back)
        edits = {**known.layers, **wording.edits}
        trouble, tensors = _differences(model, changed(config, edits), inputs)
        if not trouble:
            return _written(model, edits)
        logger.debug("%s: %s", dict(edits), trouble)
    return Settlement((), tuple(tensors), trouble, _no_way_back)


def _differences(model: PreTrainedModel, config: PreTrainedConfig, inputs: Inputs) -> tuple[str, list[str]]:
    """What is not equal between this model, this model under ``config``, and one that the class builds from it."""
    twin = built(type(model), config, _device_name(model))
    twin.load_state_dict(model.state_dict(), assign=True)
    twin.train(False)
    _round_alike(twin, model)
    expected = _outputs_in_eval(model, inputs)
    if (far := _farthest(expected, _outputs_in_eval(twin, inputs))) > TOLERANCE:
        tensors = [
            name for name, held in model.named_buffers() if not _equal(held, dict(twin.named_buffers()).get(name))
        ]
        numbers = _numbers_apart(Blueprint.of(model), Blueprint.of(twin))
        what = ", ".join([*tensors[:3], *numbers[:3]]) or "outputs"
        return f"{type(model).__name__} built from the config computes other values ({far:.1e}): {what}", tensors
    before = model.config
    try:
        model.config = config
        far = _farthest(expected, _outputs_in_eval(model, inputs))
    finally:
        model.config = before
    return (f"the model's own forward reads the config ({far:.1e})", []) if far > TOLERANCE else ("", [])


def _numbers_apart(mine: Blueprint, other: Blueprint) -> list[str]:
    return [
        f"{path}.{name} is {mine.numbers[path, name]:g}, not {value:g}"
        for (path, name), value in other.numbers.items()
        if mine.numbers.get((path, name), value) != value
    ]


def _round_alike(twin: nn.Module, model: nn.Module) -> None:
    """Buffers that the class computes, such as rotary tables, in the precision to which ``model.to`` rounded them."""
    held = dict(model.named_buffers())
    for prefix, module in twin.named_modules():
        for name, own in module._buffers.items():
            theirs = held.get(f"{prefix}.{name}" if prefix else name)
            if own is not None and theirs is not None and torch.equal(own.to(theirs.dtype), theirs):
                module._buffers[name] = own.to(theirs.dtype)


def _equal(a: Tensor, b: Tensor | None) -> bool:
    return (
        b is not None and a.shape == b.shape and bool(torch.allclose(a.double(), b.double(), atol=1e-6, equal_nan=True))
    )


def _outputs_in_eval(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    training = [(module, module.training) for module in model.modules()]
    rng = torch.get_rng_state()
    try:
        model.eval()
        torch.manual_seed(0)
        with torch.no_grad():
            found = _tensors_of(model(*inputs.args, **inputs.kwargs))
    finally:
        torch.set_rng_state(rng)
        for module, was in training:
            module.training = was
    return [tensor.double() for tensor in found if tensor.is_floating_point()]


def _tensors_of(tree: Any) -> list[Tensor]:
    """The tensors of an output; a cache, which is no mapping, is left out."""
    if isinstance(tree, Tensor):
        return [tree]
    values = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, (list, tuple)) else ()
    return [tensor for value in values for tensor in _tensors_of(value)]


def _farthest(a: list[Tensor], b: list[Tensor]) -> float:
    if [x.shape for x in a] != [x.shape for x in b]:
        return float("inf")
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x.numel()]
    return max((float((x - y).abs().max()) / max(float(x.abs().max()), 1e-12) for x, y in pairs), default=0.0)


def _device_name(model: nn.Module) -> str:
    return str(next((p.device for p in model.parameters()), "cpu"))


def _written(model: PreTrainedModel, edits: Mapping[Entry, Number]) -> Settlement:
    """Writes ``edits`` into the model's configuration and the copies of it that its parts hold."""
    steps: list[tuple[Any, Entry, Any]] = []
    configs = {
        id(config): config for module in model.modules() if (config := getattr(module, "config", None)) is not None
    }
    before = {entry: get(model.config, entry) for entry in edits}

    def undo() -> None:
        for config, entry, value in reversed(steps):
            put(config, entry, value)

    try:
        for config in configs.values():
            for entry, value in edits.items():
                try:
                    same = get(config, entry) == before[entry]
                except (AttributeError, KeyError, IndexError, TypeError):
                    continue  # of another kind, such as the one of a part
                if same:
                    steps.append((config, entry, before[entry]))
                    put(config, entry, value)
    except BaseException:
        undo()
        raise
    said = tuple((".".join(map(str, entry)), before[entry], value) for entry, value in edits.items())
    return Settlement(said, (), "", undo)


def _what_is_wrong(wanted: Blueprint, wrong: frozenset[tuple[str, int]]) -> str:
    places = sorted(wrong)
    some = ", ".join(f"{name} axis {axis} of {wanted.sizes.get((name, axis), 'none')}" for name, axis in places[:4])
    more = f" and {len(places) - 4} more" if len(places) > 4 else ""
    return f"no entry of the config makes the class build {some}{more}"


def _no_way_back() -> None:
    return None
