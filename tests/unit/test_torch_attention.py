"""torch's own attention and transformers: heads and feed-forward shrink, attributes stay true, masks work."""

import copy
import itertools

import pytest
import torch
import torchvision
from support.compare import differences, snapshot
from support.whole import check
from torch import nn

import prunekit
from prunekit.modules.attention import NarrowAttention, narrow


def attentions(model):
    return [m for m in model.modules() if isinstance(m, nn.MultiheadAttention)]


def true_attributes(attention):
    inner = attention.num_heads * attention.head_dim
    assert attention.out_proj.weight.shape == (attention.embed_dim, inner)
    assert (attention.out_proj.out_features, attention.out_proj.in_features) == (attention.embed_dim, inner)
    packed = attention.in_proj_weight
    if packed is not None:
        assert packed.shape == (3 * inner, attention.embed_dim)
    else:
        assert attention.k_proj_weight.shape == (inner, attention.kdim)
        assert attention.v_proj_weight.shape == (inner, attention.vdim)


class Cross(nn.Module):
    """Reads keys and values of other widths; gives its weights away."""

    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True, **options)
        self.first, self.last = nn.Linear(8, 32), nn.Linear(32, 3)

    def forward(self, x, keys, values):
        found, _ = self.attention(self.first(x), keys, values)
        return self.last(found)


def encoder(**options):
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 8, 256, **options), 2)


CASES = {
    "encoder": (lambda: encoder(batch_first=True), torch.randn(2, 7, 64)),
    "encoder, sequence first, norm first": (lambda: encoder(norm_first=True, activation="gelu"), torch.randn(7, 2, 64)),
    "encoder without biases": (lambda: encoder(batch_first=True, bias=False), torch.randn(2, 7, 64)),
    "decoder": (
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(64, 8, 256, batch_first=True), 2),
        (torch.randn(2, 5, 64), torch.randn(2, 7, 64)),
    ),
    "transformer": (
        lambda: nn.Transformer(64, 8, 1, 1, 256, batch_first=True),
        (torch.randn(2, 7, 64), torch.randn(2, 5, 64)),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_torchs_transformers_lose_heads_and_hidden_units(name):
    make, inputs = CASES[name]
    model, _, structure = check(make, inputs, dtype=torch.float32)
    assert {"mlp.hidden", "attention.head_dim"} <= {g.role for g in structure.groups}
    before = sum(p.numel() for p in make().parameters())
    assert sum(p.numel() for p in model.parameters()) <= 0.6 * before
    for attention in attentions(model):
        assert isinstance(attention, NarrowAttention)
        true_attributes(attention)
    model.train()
    copy.deepcopy(model)


def test_a_padding_mask_works_on_the_fast_path_that_torch_would_take():
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 8, 256, batch_first=True), 2).eval()
    prunekit.prune(model, torch.randn(2, 7, 64), ratio=0.5)
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[0, 3:] = True
    x = torch.randn(3, 5, 64)
    with torch.no_grad():
        found = model(x, src_key_padding_mask=mask)
        alone = model(x[:1, :3])
    torch.testing.assert_close(found[:1, :3], alone)


@pytest.mark.parametrize(
    "options", [{"kdim": 12, "vdim": 20}, {"kdim": 12, "vdim": 20, "bias": False}, {"add_bias_kv": True}]
)
def test_keys_and_values_of_other_widths(options):
    widths = options.get("kdim", 32), options.get("vdim", 32)
    x = (torch.randn(2, 5, 8), torch.randn(2, 7, widths[0]), torch.randn(2, 7, widths[1]))
    model, plan, _ = check(lambda: Cross(**options), x, dtype=torch.float32, by_mask=False)
    true_attributes(model.attention)
    assert plan.widths


def test_undo_gives_torchs_class_back():
    torch.manual_seed(0)
    model = encoder(batch_first=True).eval()
    x = torch.randn(2, 7, 64)
    before = snapshot(model)
    result = prunekit.prune(model, x, ratio=0.5)
    assert type(attentions(model)[0]) is NarrowAttention
    result.undo()
    assert differences(before, snapshot(model)) == []
    prunekit.trace(model, x)
    assert differences(before, snapshot(model)) == []


def test_torchs_class_stays_where_it_can_say_the_widths():
    model = torchvision.models.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=5).eval()
    prunekit.prune(model, torch.randn(1, 3, 32, 32), ratio=0.5)
    for attention in attentions(model):
        assert type(attention) is nn.MultiheadAttention
        assert attention.embed_dim == 16
        true_attributes(attention)


def test_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    make = lambda: encoder(batch_first=True).eval()  # noqa: E731
    model, x = make(), torch.randn(2, 7, 64)
    result = prunekit.prune(model, x, ratio=0.5)
    prunekit.save(result, tmp_path / "slim")
    again = prunekit.load(tmp_path / "slim", make())
    torch.testing.assert_close(again(x), model(x))


MASKS = [None, "bool", "float", "heads", "causal"]


@pytest.mark.parametrize(("batch_first", "mask"), list(itertools.product([False, True], MASKS)))
def test_it_computes_what_torch_computes(batch_first, mask):
    torch.manual_seed(0)
    switches = itertools.product(*[[False, True]] * 6)
    for bias, extra, zeros, padded, weights, batched in switches:
        model = nn.MultiheadAttention(
            16, 4, bias=bias, add_bias_kv=extra, add_zero_attn=zeros, batch_first=batch_first
        ).train(False)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
        x = torch.randn(3, 5, 16) if batch_first else torch.randn(5, 3, 16)
        x = x if batched else torch.randn(5, 16)
        given = {"need_weights": weights, "average_attn_weights": padded}
        batch = 3 if batched else 1
        masks = {
            "bool": torch.rand(5, 5) > 0.8,
            "float": torch.randn(5, 5),
            "heads": torch.rand(batch * 4, 5, 5) > 0.9,
            "causal": nn.Transformer.generate_square_subsequent_mask(5),
        }
        if mask is not None:
            given |= {"attn_mask": masks[mask], "is_causal": mask == "causal"}
        if padded and mask in (None, "float", "causal"):
            hidden = torch.zeros(3, 5) if batched else torch.zeros(5)
            hidden[..., -1] = -torch.inf
            given["key_padding_mask"] = hidden
        expected = model(x, x, x, **given)
        narrow(model)
        torch.testing.assert_close(model(x, x, x, **given), expected, equal_nan=True)
