"""Models without some blocks are kept and read, trained on and taken back, and said to their libraries."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import prunekit
from prunekit.surgery import removing

pytestmark = pytest.mark.filterwarnings("ignore")


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(self.norm(x))))


def stack(depth=5):
    torch.manual_seed(0)
    return nn.Sequential(*(Residual() for _ in range(depth)), nn.Linear(8, 3)).eval()


X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
HALF = {"roles": ["depth.block"], "ratio": 0.4, "scorer": "random"}


@pytest.mark.parametrize("asked", [HALF, {"ratio": {"depth.block": 0.4, "mlp.hidden": 0.5}, "scorer": "random"}])
def test_a_folder_gives_the_model_back(tmp_path, asked):
    result = prunekit.prune(stack(), X, **asked)
    prunekit.save(result, tmp_path / "kept", spec="python:test_depth_kept_model:stack")
    again = prunekit.load(tmp_path / "kept", stack())
    assert list(again.state_dict()) == list(result.model.state_dict())
    with torch.no_grad():
        assert torch.equal(again(X), result.model(X))


@pytest.fixture(autouse=True)
def _named(monkeypatch):
    """The factory under a name that a folder can keep."""
    import sys
    import types

    module = types.ModuleType("test_depth_kept_model")
    module.stack = stack
    monkeypatch.setitem(sys.modules, "test_depth_kept_model", module)


def test_an_optimizer_goes_on_without_the_blocks():
    model = stack()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model(X).square().mean().backward()
    optimizer.step()
    moments = {name: optimizer.state[p]["exp_avg"].clone() for name, p in model.named_parameters()}
    result = prunekit.prune(model, X, **HALF)
    prunekit.migrate_optimizer(optimizer, result)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in model.parameters()}
    kept = [result.plan.removals[0].names[at] for at in result.plan.removals[0].kept]
    for name, parameter in model.named_parameters():
        at, _, rest = name.partition(".")
        assert torch.equal(optimizer.state[parameter]["exp_avg"], moments[f"{kept[int(at)]}.{rest}"])
    model(X).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("call", range(3))
def test_a_fault_while_blocks_go_leaves_all_as_it_was(monkeypatch, call):
    model = stack()
    plan = prunekit.plan(model, X, ratio={"depth.block": 0.4, "mlp.hidden": 0.5}, scorer="random")
    before = [(name, id(value)) for name, value in model.named_parameters()]
    real, seen = [removing.names_left, removing.putter, removing.holder][call], []

    def fails(*given):
        seen.append(1)
        if len(seen) == 1:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(removing, ["names_left", "putter", "holder"][call], fails)
    if call < 2:
        with pytest.raises(KeyboardInterrupt):
            prunekit.apply(model, plan)
        assert [(name, id(value)) for name, value in model.named_parameters()] == before
        monkeypatch.undo()
    prunekit.apply(model, plan)()
    assert [(name, id(value)) for name, value in model.named_parameters()] == before


def models():
    from transformers import (
        BertConfig,
        BertModel,
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
        T5Config,
        T5ForConditionalGeneration,
        ViTConfig,
        ViTModel,
    )

    small = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    words = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    gpt = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64, **words}
    t5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4, **words, "decoder_start_token_id": 0}
    return {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(num_hidden_layers=4, num_key_value_heads=2, **small, **words)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(num_hidden_layers=5, num_key_value_heads=2, **small, **words)),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**gpt)),
        "bert": lambda: BertModel(BertConfig(num_hidden_layers=4, **small, **words)),
        "t5": lambda: T5ForConditionalGeneration(T5Config(**t5)),
        "vit": lambda: ViTModel(ViTConfig(num_hidden_layers=4, image_size=32, patch_size=8, **small)),
    }


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "bert", "t5", "vit"])
def test_a_library_builds_fewer_layers(name, tmp_path):
    torch.manual_seed(0)
    model = models()[name]().eval()
    dense = copy.deepcopy(model)
    result = prunekit.prune(model, roles=["depth.block"], ratio=0.4, scorer=prunekit.Random(seed=3))
    assert result.plan.removals
    assert not result.home.trouble, result.home.trouble
    if name in ("llama", "qwen2", "gpt2", "t5"):
        ids = torch.arange(3, 9)[None]
        asked = {"max_new_tokens": 6, "do_sample": False, "min_new_tokens": 6}
        assert torch.equal(model.generate(ids, use_cache=True, **asked), model.generate(ids, use_cache=False, **asked))
    model.save_pretrained(tmp_path / "home")
    again = type(model).from_pretrained(tmp_path / "home").eval()
    prunekit.save(result, tmp_path / "kept")
    loaded = prunekit.load(tmp_path / "kept")
    inputs = prunekit.trace(model).inputs
    with torch.no_grad():
        wanted = model(*inputs.args, **inputs.kwargs)[0]
        for other in (again, loaded):
            assert list(other.state_dict()) == list(model.state_dict())
            assert torch.equal(other(*inputs.args, **inputs.kwargs)[0], wanted)
    result.undo()
    written = {"architectures", "dtype"}  # by save_pretrained
    now, was = (each.config.to_dict() for each in (model, dense))
    assert {key for key in now if now[key] != was[key]} <= written
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), dense.state_dict().values(), strict=True))


@pytest.mark.parametrize(("name", "role"), [("llama", "depth.attention"), ("bert", "depth.mlp")])
def test_a_library_that_cannot_say_a_missing_branch_is_not_believed(name, role, tmp_path):
    from prunekit_hf.folder import written_home

    from prunekit.errors import ExportError

    torch.manual_seed(0)
    model = models()[name]().eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    result = prunekit.prune(model, roles=[role], ratio=0.4, scorer=prunekit.Random(seed=3))
    assert "the class build" in result.home.trouble
    if name != "bert":  # the first attention goes too, and the cache of the others has no hole
        ids = torch.arange(3, 9)[None]
        asked = {"max_new_tokens": 6, "do_sample": False, "min_new_tokens": 6}
        kept = model.generate(ids, use_cache=True, **asked)
        assert torch.equal(kept, model.generate(ids, use_cache=False, **asked))
    prunekit.save(result, tmp_path / role)
    loaded = prunekit.load(tmp_path / role)
    inputs = prunekit.trace(model).inputs
    with torch.no_grad():
        assert torch.equal(loaded(*inputs.args, **inputs.kwargs)[0], model(*inputs.args, **inputs.kwargs)[0])
    assert list(loaded.state_dict()) == list(model.state_dict())
    with pytest.raises(ExportError, match=r"prunekit\.load\(folder\)"):
        written_home(prunekit.plans.Bundle(model, result.plan, {}), tmp_path / "home", ("fp32",))
    result.undo()
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())


def test_an_optimizer_goes_on_without_the_branches():
    model = stack()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    result = prunekit.prune(model, X, roles=["depth.mlp"], ratio=0.4, scorer="random")
    prunekit.migrate_optimizer(optimizer, result)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in model.parameters()}
    model(X).square().mean().backward()
    optimizer.step()


def test_widths_and_fewer_layers_are_said_together(tmp_path):
    torch.manual_seed(0)
    model = models()["llama"]().eval()
    asked = {"ratio": {"depth.block": 0.5, "mlp.hidden": 0.5}, "scorer": "random", "uniform": True}
    result = prunekit.prune(model, **asked)
    assert not result.home.trouble, result.home.trouble
    assert (model.config.num_hidden_layers, model.config.intermediate_size) == (2, 24)


def test_a_stage_of_a_recipe_takes_blocks_and_one_that_names_its_roles_refuses():
    from prunekit.errors import RecipeError
    from prunekit.options import Scope
    from prunekit.recipes.stages import Prune
    from prunekit.runs.fitting import fitted
    from prunekit.runs.prune_stage import Asked, cut, structure_of
    from prunekit.samples import Samples

    model = stack()
    samples = Samples(list(X), lambda rows: torch.stack(list(rows)))
    structure = structure_of(model, samples)
    asked = Asked.of({"images": 2}, roles=["depth.block"], ratio=0.4)
    plan, verified = cut(model, Prune("prune"), structure, samples, asked, lambda done, total: None)
    assert len(plan.removals[0].gone) == 2
    assert verified == {"shapes": "passed", "depth": "passed", "depth_error": 0.0}
    whole = Scope(include=["depth.block"])
    assert fitted((Prune("prune"),), (), structure, whole).stages
    with pytest.raises(RecipeError, match="names the roles that it cuts"):
        fitted((Prune("prune", pools=(("mlp.hidden",),)),), (), structure, whole)
    with pytest.raises(RecipeError, match="cuts in parts"):
        fitted((Prune("prune", part=0.5),), (), structure, Scope(include=["depth.block", "mlp.hidden"]))


def test_the_command_lists_blocks():
    from prunekit.cli.commands.tracing import traced

    class Inferred(nn.Sequential):
        pretrained_cfg = {"input_size": (8,)}  # noqa: RUF012  what the command infers inputs from

    told = traced(Inferred(*stack()), "python:here", "")
    assert told["groups"]["model"]["role"] == "depth.block"
    assert told["groups"]["model"]["size"] == 5
