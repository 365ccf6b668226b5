"""A wrong argument is refused by prunekit's own error: short, with the option's name; nothing happens to the model."""

import math

import pytest
import torch
from torch import nn

import prunekit
from prunekit.errors import InputError, PrunekitError, TraceError

WRONG = [
    ("scorer", prunekit.Magnitude),
    ("scorer", 3),
    ("scorer", "magnitud"),
    ("seed", math.nan),
    ("seed", 2**70),
    ("seed", -1),
    ("seed", True),
    ("seed", "0"),
    ("target", 5),
    ("target", ["macs<=50%"]),
    ("target", "macs<=half"),
    ("ratio", "half"),
    ("ratio", "0.5"),
    ("ratio", {}),
    ("ratio", [0.5]),
    ("ratio", {"mlp.hidden": 2}),
    ("ratio", {1: 0.5}),
    ("min_ratio", {}),
    ("max_ratio", 1.5),
    ("include", 5),
    ("exclude", 5),
    ("exclude", [3]),
    ("roles", {"a": 1}),
    ("ranking", None),
    ("ranking", 3),
    ("rounding", "up"),
    ("align", -8),
    ("align", "8"),
    ("align", {"*": 0}),
    ("pools", "mlp"),
    ("pools", [3]),
    ("normaliser", 3),
    ("steps", 0),
    ("steps", 1.5),
    ("on_step", 3),
    ("schedule", "cubik"),
    ("verify", "yes"),
    ("verify", None),
    ("compensate", "rigde"),
    ("latency", 3),
    ("progress", 3),
]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2)), torch.randn(3, 4)


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda x: str(x)[:24])
def test_a_wrong_value_is_refused_by_the_name_of_its_option(name, value):
    model, x = network()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(PrunekitError) as caught:
        prunekit.prune(model, x, **{name: value}, **({"steps": 2} if name == "schedule" else {}))
    said = str(caught.value)
    assert name in said
    assert len(said) < 600
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_a_schedule_that_gives_no_numbers_is_refused():
    model, x = network()
    with pytest.raises(InputError, match="schedule"):
        prunekit.prune(model, x, ratio=0.5, steps=2, schedule=lambda k, n: "half")


@pytest.mark.parametrize("other", [8, 32])
def test_a_structure_of_another_model_is_refused(other):
    model, x = network()
    structure = prunekit.trace(nn.Sequential(nn.Linear(4, other), nn.ReLU(), nn.Linear(other, 2)), x)
    with pytest.raises(InputError, match=r"another model: 0\.weight"):
        prunekit.prune(model, x, ratio=0.5, structure=structure)
    assert model[0].out_features == 16


def test_a_structure_from_before_a_cut_is_refused():
    model, x = network()
    structure = prunekit.trace(model, x)
    prunekit.prune(model, x, ratio=0.5, structure=structure)
    with pytest.raises(InputError, match="structure"):
        prunekit.prune(model, x, ratio=0.5, structure=structure)
    assert model[0].out_features == 8


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        (torch.zeros(0, 3, 4), InputError),
        (torch.zeros(2, 3, 4, device="meta"), TraceError),
        (torch.zeros(2, 3, 4).to_sparse(), TraceError),
    ],
    ids=["no rows", "meta", "sparse"],
)
def test_inputs_on_which_forward_fails_by_their_values_are_refused(inputs, error):
    model = nn.Sequential(nn.Conv1d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv1d(16, 2, 1))
    with pytest.raises(error, match="example inputs"):
        prunekit.prune(model, inputs, ratio=0.5)


def test_a_criterion_may_be_named():
    model, x = network()
    named = prunekit.plan(model, x, scorer="random", ratio=0.5)
    assert named.to_json() == prunekit.plan(model, x, scorer=prunekit.Random(), ratio=0.5).to_json()


def test_a_module_is_as_good_as_its_name():
    model, x = network()
    with pytest.raises(PrunekitError, match="nothing can be pruned"):
        prunekit.plan(model, x, exclude=[model[0]])
    assert prunekit.plan(model, x, ratio={model[0]: 0.25}).widths[0].after == 12
    assert prunekit.plan(model, x, include=model[2]).widths[0].after == 8
    with pytest.raises(InputError, match="no module inside"):
        prunekit.plan(model, x, exclude=[nn.Linear(2, 2)])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.num_heads, self.head_dim = 4, 4
        self.qkv, self.proj, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, x):
        qkv = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(*qkv).transpose(1, 2)
        return self.head(self.proj(y.reshape(*x.shape[:2], self.num_heads * self.head_dim)))


class TestRatios:
    def wide(self):
        torch.manual_seed(0)
        stem, body = nn.Sequential(nn.Linear(4, 16), nn.ReLU()), nn.Sequential(nn.Linear(16, 32), nn.ReLU())
        return nn.Sequential(stem, nn.Sequential(body, nn.ReLU()), nn.Linear(32, 2))

    @pytest.mark.parametrize("turned", [False, True])
    @pytest.mark.parametrize(
        ("ratio", "widths"),
        [
            ({"*": 0.25, "1.*": 0.5}, [12, 16]),
            ({"*": 0.25, "1": 0.5}, [12, 16]),
            ({"*": 0.25, "1.0.0": 0.5, "1.*": 0.75}, [12, 16]),
            ({"mlp.hidden": 0.25, "1.0.0.weight:0": 0.5, "*": 0.9}, [12, 16]),
            ({"mlp.*": 0.25, "mlp.h*": 0.5}, [8, 16]),
        ],
    )
    def test_the_most_specific_pattern_wins_whatever_the_order(self, ratio, widths, turned):
        ratio = dict(reversed(ratio.items())) if turned else ratio
        plan = prunekit.plan(self.wide(), torch.ones(1, 4), ratio=ratio)
        assert [width.after for width in plan.widths] == widths

    def test_heads_are_pruned_where_the_ratio_names_them(self):
        model, x = Attention().eval(), torch.randn(2, 3, 16)
        (heads,) = prunekit.plan(model, x, ratio={"attention.heads": 0.5}).widths
        assert (heads.role, heads.after) == ("attention.heads", 2)
        roles = [w.role for w in prunekit.plan(model, x, ratio={"*": 0.5}).widths]
        assert "attention.head_dim" in roles
        assert "attention.heads" not in roles


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
def test_a_tensor_in_compressed_rows_is_refused_by_its_name():
    model, x = network()
    model.register_buffer("graph", torch.eye(3).to_sparse_csr())
    with pytest.raises(TraceError, match="graph"):
        prunekit.prune(model, x, ratio=0.5)
