"""Which mixtures of transformers hold their experts as entries of a list, and whether experts go from them.

    python -m benchmarks.expert_lists --page docs/experts.md

Every configuration with a number of experts is built small on the meta device, and the modules named after experts are
looked at. What has a list of them is built again with random weights, a quarter of its experts is cut by each
criterion, and the outputs are held against the whole model whose router never chooses what went.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

import prunekit
from prunekit.errors import PrunekitError
from prunekit.modules.unrouting import unrouted

COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
LAYERS = ("num_hidden_layers", "num_layers", "encoder_layers", "decoder_layers")
SCORERS = ("reap", "routed_frequency", "random")
BEGIN, END = "<!-- expert lists -->\n", "<!-- end of expert lists -->"
Built = tuple[nn.Module, dict[str, Tensor]]


def configurations() -> Iterator[tuple[str, Any]]:
    """Every configuration with a number of experts: four of them, in four layers."""
    for name, kind in hf.CONFIG_MAPPING.items():
        try:
            config = kind()
        except Exception:  # some need arguments
            continue
        counts = [each for each in COUNTS if type(getattr(config, each, None)) is int]
        if not counts:
            continue
        for each in (*counts, *(layers for layers in LAYERS if type(getattr(config, layers, None)) is int)):
            setattr(config, each, 4)
        yield name, config


def held(config: Any) -> str:
    """How a class holds its experts: ``list``, ``stack``, or that it is not built so or has none."""
    for auto in (hf.AutoModel, hf.AutoBackbone):
        try:
            with torch.device("meta"):
                model = auto.from_config(config)
        except Exception:  # not of this kind, or not with these numbers
            continue
        named = [module for path, module in model.named_modules() if "expert" in path]
        lists = [module for module in named if isinstance(module, nn.ModuleList | nn.ModuleDict)]
        stacks = [p for path, p in model.named_parameters() if "expert" in path and p.ndim == 3]
        return "list" if any(len(each) > 1 for each in lists) else "stack" if stacks else "none"
    return "not built"


def texts(count: int) -> list[dict[str, Tensor]]:
    """Inputs of a model that translates."""
    dice = torch.Generator().manual_seed(0)
    drawn = [torch.randint(3, 32, (2, 9), generator=dice) for _ in range(count)]
    return [{"input_ids": ids, "decoder_input_ids": ids[:, :7], "use_cache": False} for ids in drawn]


def switch() -> Built:
    """Switch Transformers, both halves."""
    layers = dict.fromkeys(("num_layers", "num_decoder_layers"), 2)
    layers |= dict.fromkeys(("num_sparse_encoder_layers", "num_sparse_decoder_layers"), 1)
    config = hf.SwitchTransformersConfig(
        vocab_size=32, d_model=16, d_kv=8, d_ff=24, num_heads=2, num_experts=8, expert_capacity=64, **layers
    )
    return hf.SwitchTransformersForConditionalGeneration(config), texts(1)[0]


def nllb() -> Built:
    """NLLB-MoE, both halves."""
    halves = {"layers": 2, "attention_heads": 2, "ffn_dim": 24, "sparse_step": 2}
    both = {f"{half}_{name}": value for half in ("encoder", "decoder") for name, value in halves.items()}
    config = hf.NllbMoeConfig(
        vocab_size=32, d_model=16, num_experts=8, max_position_embeddings=64, pad_token_id=1, **both
    )
    return hf.NllbMoeForConditionalGeneration(config), texts(1)[0]


def vitpose() -> Built:
    """The backbone of ViTPose+, whose caller says which expert."""
    config = hf.VitPoseBackboneConfig(
        image_size=[32, 32], patch_size=[16, 16], hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_experts=8, part_features=4,
    )  # fmt: skip
    return hf.VitPoseBackbone(config), {"pixel_values": torch.ones(1, 3, 32, 32), "dataset_index": torch.tensor([1])}


SMALL: dict[str, Callable[[], Built]] = {"switch_transformers": switch, "nllb-moe": nllb, "vitpose_backbone": vitpose}


def tried(make: Callable[[], Built]) -> str:
    """The largest difference to the model that never chooses what went, or why nothing goes."""
    torch.manual_seed(0)
    model, inputs = make()
    model.eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    data = texts(4) if "input_ids" in inputs else [inputs]
    structure = prunekit.trace(model, inputs)
    routes = {group.name: group.routes for group in structure.depth.groups}
    told = []
    for scorer in SCORERS:
        slim, whole = copy.deepcopy(model), copy.deepcopy(model)
        try:
            result = prunekit.prune(slim, inputs, roles=["depth.expert"], ratio=0.25, scorer=scorer, data=data)
        except PrunekitError as error:
            return f"none go: {' '.join(error.what.split())}"
        gone = [r for w in result.plan.widths for n, r in enumerate(routes[w.group]) if n not in w.kept]
        with torch.no_grad(), unrouted(whole, gone):
            apart = max(float((slim(**x)[0] - whole(**x)[0]).abs().max() / whole(**x)[0].abs().max()) for x in data)
        told.append(f"{scorer} {apart:.1g}")
    return f"{len(gone)} of {sum(map(len, routes.values()))} go; difference: {', '.join(told)}"


def page() -> str:
    """The table."""
    found = {name: held(config) for name, config in configurations()}
    kinds = Counter(found.values())
    stack, listed, none, other = (kinds[kind] for kind in ("stack", "list", "none", "not built"))
    lists = [name for name in found if found[name] == "list"]
    rows = [f"| {name} | {tried(SMALL[name]) if name in SMALL else 'not tried'} |" for name in lists]
    lines = [
        f"transformers {hf.__version__}, `python -m benchmarks.expert_lists --page docs/experts.md`: of {len(found)}",
        f"classes with a number of experts in their configuration {stack} hold them as stacks and {listed} as a list;",
        f"{none} have none with default settings and four layers, {other} are not built so.",
        "",
        "| class | a quarter of its experts, random weights |",
        "| --- | --- |",
        *rows,
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, required=True)
    path = parser.parse_args().page
    hf.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    before, _, rest = path.read_text().partition(BEGIN)
    path.write_text(f"{before}{BEGIN}{page()}{END}{rest.partition(END)[2]}")
