"""Residual branches that go: the model without them is the model with what they add times zero; undo is to the bit."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn

import prunekit
from prunekit.errors import InputError, NothingToPruneError, PlanError, ScorerError, SelectionError
from prunekit.modules.absent import Absent

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
OTHER = torch.randn(3, 7, 8, generator=torch.Generator().manual_seed(1))


class Attention(nn.Module):
    """One head; ``style`` says what it returns."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self.qkv, self.out, self.style, self.heads = nn.Linear(8, 24), nn.Linear(8, 8), style, 1

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        weights = (q @ k.transpose(-1, -2)).softmax(-1)
        made = self.out(weights @ v)
        return (made, None) if self.style == "tuple" else [made, weights] if self.style == "list" else made


class Block(nn.Module):
    """An attention and an MLP on a stream, in the ways that models write them down."""

    def __init__(self, style: str, how: str) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(8), Attention(style), nn.LayerNorm(8)
        self.up, self.down, self.scale = nn.Linear(8, 12), nn.Linear(12, 8), nn.Parameter(torch.full((8,), 0.7))
        self.how, self.silence = how, set()

    def attends(self, x):
        made = self.attn(x)
        assert self.attn.heads == 1
        made = made[0] if isinstance(made, (tuple, list)) else made
        return made * 0 if "attention" in self.silence else made

    def hidden(self, x):
        made = self.down(torch.relu(self.up(x)))
        return made * 0 if "mlp" in self.silence else made

    def forward(self, x):
        if self.how == "post":
            x = self.norm1(x + self.attends(x))
            return self.norm2(self.hidden(x) + x)
        if self.how == "parallel":
            y = self.norm1(x)
            return self.attends(y) + self.hidden(self.norm2(x)) + x
        if self.how == "in-place":
            x = x + self.attends(self.norm1(x))
            x += self.hidden(self.norm2(x))
            return x
        if self.how == "onto the branch":
            y = self.attends(self.norm1(x))
            y += x
            return torch.sub(y, self.hidden(self.norm2(y)), alpha=0.5)
        x = x + self.scale * self.attends(self.norm1(x))
        return x + 0.5 * self.hidden(self.norm2(x))


class Net(nn.Module):
    """Blocks in a list."""

    def __init__(self, depth: int, style: str, how: str) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 3)
        self.blocks = nn.ModuleList(Block(style, how) for _ in range(depth))

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


def drawn(seed: int) -> Net:
    dice = random.Random(seed)
    torch.manual_seed(seed)
    style = dice.choice(["plain", "tuple", "list"])
    how = dice.choice(["pre", "post", "parallel", "in-place", "onto the branch"])
    return Net(dice.randint(2, 4), style, how).eval()


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    now = model.state_dict()
    return list(now) == list(before) and all(torch.equal(now[name], before[name]) for name in before)


def silent(dense: Net, plan: prunekit.Plan) -> Net:
    """The original with what the branches add times zero, by its own forward."""
    for width in plan.widths:
        kind = width.role.removeprefix("depth.")
        for unit in set(range(width.before)) - set(width.kept):
            dense.blocks[unit].silence.add(kind)
    return dense


@pytest.mark.parametrize("role", ["depth.attention", "depth.mlp"])
@pytest.mark.parametrize("seed", range(10))
def test_without_a_branch_is_with_it_times_zero(seed, role):
    model = drawn(seed)
    dense, before = copy.deepcopy(model), bits(model)
    result = prunekit.prune(model, X, roles=[role], ratio=0.5, scorer=prunekit.Random(seed=seed))
    (width,) = result.plan.widths
    assert (width.role, width.before) == (role, len(dense.blocks))
    assert width.before - width.after >= 1
    assert result.report.params["after"] == sum(p.numel() for p in model.parameters())
    assert result.report.params["after"] < result.report.params["before"]
    assert result.report.macs["after"] < result.report.macs["before"]
    assert not [
        name for name in model.state_dict() if any(name.startswith(f"{a.module}.") for a in result.plan.absences)
    ]
    again = prunekit.Plan.from_json(result.plan.to_json())
    assert again == result.plan
    with torch.no_grad():
        wanted = [silent(dense, result.plan)(x.clone()) for x in (X, OTHER)]  # of another size than the example
        assert all(torch.equal(model(x.clone()), y) for x, y in zip((X, OTHER), wanted, strict=True))
        with prunekit.applied(dense, again):
            assert same(dense, bits(model))
            assert torch.equal(dense(OTHER.clone()), wanted[1])
    result.undo()
    assert same(model, before)
    assert not any(isinstance(module, Absent) for module in model.modules())


@pytest.mark.parametrize("seed", range(8))
def test_branches_and_widths_are_one_plan(seed):
    model = drawn(seed)
    other, before = copy.deepcopy(model), bits(model)
    asked = {"ratio": {"depth.mlp": 0.4, "embedding": 0.5, "mlp.hidden": 0.5}, "scorer": prunekit.Random(seed=1)}
    drafted = prunekit.plan(model, X, **asked)
    assert same(model, before)
    result = prunekit.prune(model, X, **asked)
    assert result.plan.absences
    assert any(cut.tensor.startswith("blocks") for cut in result.plan.cuts)
    prunekit.apply(other, drafted)
    assert same(other, bits(model))
    with torch.no_grad():
        assert torch.equal(other(OTHER), model(OTHER))
    assert sum(layer.params[1] for layer in result.layers) == result.report.params["after"]
    result.undo()
    assert same(model, before)


def test_branches_twice_and_then_blocks_compose():
    model = Net(5, "tuple", "pre").eval()
    other = copy.deepcopy(model)
    plans = [
        prunekit.prune(model, X, roles=[role], ratio=0.4, scorer="random").plan
        for role in ("depth.mlp", "depth.mlp", "depth.attention", "depth.block")
    ]
    whole = plans[0]
    for plan in plans[1:]:
        whole = prunekit.compose(whole, plan)
    prunekit.apply(other, prunekit.Plan.from_json(whole.to_json()))
    assert same(other, bits(model))
    with torch.no_grad():
        assert torch.equal(other(OTHER), model(OTHER))


def test_the_branch_that_does_least_goes_first():
    model = Net(4, "plain", "pre").eval()
    with torch.no_grad():
        model.blocks[2].down.weight.mul_(1e-3)
        model.blocks[2].down.bias.mul_(1e-3)
    for scorer in ("damage", "damage_greedy", "block_influence", None):
        plan = prunekit.plan(model, X, roles="depth.mlp", ratio=0.25, scorer=scorer, data=[X[:1]])
        assert "blocks.2.down" in {absence.module for absence in plan.absences}


def test_a_target_is_met_and_shares_are_of_each_role():
    model = Net(4, "plain", "parallel").eval()
    result = prunekit.prune(model, X, roles=["depth.mlp", "depth.attention"], target="params<=60%")
    params = result.report.params
    assert params["after"] <= 0.6 * params["before"]
    result.undo()
    plan = prunekit.plan(model, X, ratio={"depth.mlp": 0.25, "depth.attention": 0.75}, scorer="random")
    assert {w.role: w.before - w.after for w in plan.widths} == {"depth.mlp": 1, "depth.attention": 3}
    plan = prunekit.plan(model, X, include=["depth.mlp"], ratio=0.5, exclude="blocks.0", scorer="random")
    assert not any(absence.module.startswith("blocks.0") for absence in plan.absences)


class Inline(nn.Module):
    """The branch is what forward itself computes with its own weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.norm, self.head = nn.Parameter(torch.randn(8, 8)), nn.LayerNorm(8), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(x + (self.norm(x) + 1) @ self.weight)


class ReadTwice(nn.Module):
    """What is added is returned too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)), nn.Linear(8, 2)

    def forward(self, x):
        y = self.inner(x)
        return self.head(x + y), y


class Tied(nn.Module):
    """The second branch uses the first one's matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
        self.two.weight = self.one.weight

    def forward(self, x):
        x = x + self.one(x)
        return x + self.two(x)


class Twice(nn.Module):
    """One block runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block("plain", "pre")

    def forward(self, x):
        return self.block(self.block(x))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Inline(), "differs by"),
        (ReadTwice(), "read elsewhere too"),
        (Twice(), "runs 2 times in one pass"),
    ],
    ids=["inline", "returned", "twice"],
)
def test_what_cannot_go_says_why(model, reason):
    before = bits(model.eval())
    with pytest.raises(NothingToPruneError, match=reason):
        prunekit.prune(model, X, roles=["depth.mlp", "depth.attention", "depth.branch"], ratio=0.9, scorer="random")
    assert same(model, before)


def test_a_weight_that_others_read_stays():
    model = Tied().eval()
    result = prunekit.prune(model, X, roles=["depth.mlp"], ratio=0.9, scorer="random")
    assert [absence.module for absence in result.plan.absences] == ["two"]
    assert any("is read by two too" in frozen.reason for frozen in result.plan.frozen if frozen.name == "one")
    assert sorted(model.state_dict()) == ["one.bias", "one.weight"]


def test_bad_input_is_refused():
    model = Net(4, "plain", "pre").eval()
    with pytest.raises(ScorerError, match="says nothing of whole blocks"):
        prunekit.plan(model, X, roles=["depth.mlp"], ratio=0.5, scorer="magnitude")
    with pytest.raises(InputError, match="matches no"):
        prunekit.plan(model, X, roles=["depth.mlp"], ratio=0.5, exclude="blocks.9")
    model.blocks[1].up.register_forward_hook(lambda *_: None)
    plan = prunekit.plan(model, X, roles=["depth.mlp"], ratio=0.75, scorer="random")
    assert any(frozen.name == "blocks.1.down" and "hook" in frozen.reason for frozen in plan.frozen)
    assert not any(absence.module.startswith("blocks.1") for absence in plan.absences)
    text = plan.to_json()
    for wrong in ('"like:x=2"', '"zeros"'):
        broken = prunekit.Plan.from_json(text.replace('"like"', wrong, 1))
        before = bits(model)
        with pytest.raises(PlanError, match="cannot go"):
            prunekit.apply(model, broken)
        assert same(model, before)


def test_torch_encoder_layers_give_up_their_branches():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
    dense = copy.deepcopy(model)
    result = prunekit.prune(model, X, roles=["depth.attention"], ratio=0.4, scorer="random")
    (width,) = result.plan.widths
    for unit in set(range(3)) - set(width.kept):
        out = dense.layers[unit].self_attn.out_proj
        nn.init.zeros_(out.weight)
        nn.init.zeros_(out.bias)
    with torch.no_grad():
        torch.testing.assert_close(model(OTHER), dense(OTHER), rtol=0, atol=1e-6)


def test_the_least_share_holds_for_blocks_and_branches():
    model = Net(4, "plain", "pre").eval()
    for role, group in (("depth.block", "blocks"), ("depth.mlp", "blocks.*.down")):
        asked = {"roles": [role], "scorer": "random"}
        (width,) = prunekit.plan(model, X, ratio=0.25, min_ratio=0.5, **asked).widths
        assert (width.group, width.before - width.after) == (group, 2)
        with pytest.raises(SelectionError, match="should go at least"):
            prunekit.plan(model, X, ratio=0.25, min_ratio=0.75, max_ratio=0.25, **asked)
    with pytest.raises(SelectionError, match="should go at least"):
        prunekit.plan(model, X, roles=["depth.block"], ratio=0.5, min_ratio=0.9, scorer="random")


def test_branches_of_two_kinds_at_one_place_are_two_groups():
    class Kinds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            convolved = nn.Sequential(nn.Conv1d(5, 5, 1), nn.ReLU(), nn.Conv1d(5, 5, 1))
            linear = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
            self.parts = nn.ModuleList([convolved, linear, copy.deepcopy(linear)])

        def forward(self, x):
            for part in self.parts:
                x = x + part(x)
            return x

    model = Kinds().eval()
    groups = prunekit.trace(model, X).depth.groups
    assert {(g.name, str(g.role), g.size) for g in groups if g.branches} == {
        ("parts.* depth.branch", "depth.branch", 1),
        ("parts.* depth.mlp", "depth.mlp", 2),
    }
    result = prunekit.prune(model, X, roles=["depth.branch", "depth.mlp"], ratio=0.67, scorer=prunekit.Random(seed=0))
    assert sum(width.before - width.after for width in result.plan.widths) == 2


class TypedBlock(nn.Module):
    """A forward that reads the type of a norm's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 8)
        self.silent = False

    def forward(self, x):
        made = self.down(torch.relu(self.up(self.norm(x.to(self.norm.weight.dtype)))))
        return x + (made * 0 if self.silent else made)


@pytest.mark.parametrize("roles", [["depth.mlp"], ["depth.block", "depth.mlp"]])
def test_a_norm_whose_type_is_read_goes_and_its_type_follows_the_model(roles):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8), *(TypedBlock() for _ in range(4)), nn.Linear(8, 3)).eval()
    dense, before = copy.deepcopy(net), {name: value.clone() for name, value in net.state_dict().items()}
    result = prunekit.prune(net, X, roles=roles, ratio=0.5, scorer=prunekit.Random(seed=1))
    gone = {each.module.split(".")[0] for each in result.plan.absences}
    assert gone
    assert any(each.typed for each in result.plan.absences)
    assert prunekit.Plan.from_json(result.plan.to_json()) == result.plan
    for name in gone:
        dense[int(name)].silent = True
    blocks = {path for removal in result.plan.removals for path in removal.gone}
    left = nn.Sequential(*(part for number, part in enumerate(dense) if str(number) not in blocks))
    assert torch.equal(net(OTHER), left(OTHER))
    assert result.report.params["after"] == sum(p.numel() for p in net.parameters())
    assert not [name for name in net.state_dict() if name.split(".")[0] in gone and not blocks]
    assert torch.equal(copy.deepcopy(net).double()(OTHER.double()), left.double()(OTHER.double()))
    left.float()
    result.undo()
    assert list(net.state_dict()) == list(before)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())


def test_state_space_branches_of_a_library_go_exactly():
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "state_size": 4, "time_step_rank": 2, "vocab_size": 32}
    config = MambaConfig(num_hidden_layers=3, pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes)
    model = MambaForCausalLM(config).eval()
    ids = {"input_ids": torch.randint(3, 32, (2, 9)), "use_cache": False}
    dense = copy.deepcopy(model)
    result = prunekit.prune(model, ids, roles=["depth.attention"], ratio=0.34, scorer="random")
    (layer,) = {int(each.module.split(".")[2]) for each in result.plan.absences}
    assert "norm" in {each.module.split(".")[3] for each in result.plan.absences}
    dense.backbone.layers[layer].mixer.register_forward_hook(lambda module, given, made: made * 0)
    with torch.no_grad():
        assert torch.equal(model(**ids).logits, dense(**ids).logits)
        assert torch.equal(
            model.generate(ids["input_ids"], max_new_tokens=4), dense.generate(ids["input_ids"], max_new_tokens=4)
        )
