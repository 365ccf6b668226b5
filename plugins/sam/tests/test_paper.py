"""``slimsam-paper`` against a second, small statement of its formulas, with no code in common."""

from dataclasses import replace

import pytest
import torch
from prunekit_sam import recipe as recipes
from prunekit_sam.models import build_sam
from torch import nn

import prunekit
from prunekit.inputs import as_samples
from prunekit.registry.criteria import scorer
from prunekit.runs.distillation.losses import term_losses
from prunekit.scorers import DisturbedTaylor, Statistics
from prunekit.scorers.kinds import parameter_kind


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return build_sam("nano", None).image_encoder.eval()


@pytest.fixture(scope="module")
def structure(encoder):
    return prunekit.trace(encoder, torch.randn(1, 3, encoder.img_size, encoder.img_size))


def paper_scorer():
    asked = {k: recipes.PAPER.settings[k] for k in ("accumulation", "within", "reads")}
    return scorer("disturbed_taylor", **asked)


def by_hand(encoder, images, targets):
    """|w sum_i g_i| of every weight, L_i = mean (y_i - t_i)^2."""
    encoder.zero_grad()
    for image, target in zip(images, targets, strict=True):
        (encoder(image[None]) - target).square().mean().backward()
    found = {name: (p * p.grad).abs().detach().double() for name, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad()
    return found


def disturbed(encoder, structure, images, monkeypatch):
    """The targets that the criterion disturbs to, by listening to its noise."""
    heard = []
    draw = torch.randn

    def listen(*args, **more):
        made = draw(*args, **more)
        if more.get("generator") is not None:
            heard.append(made)
        return made

    monkeypatch.setattr(torch, "randn", listen)
    statistics = Statistics(encoder, list(as_samples([image[None] for image in images], structure.inputs)))
    return heard, statistics


def test_a_score_is_the_mean_over_layers_of_sums_within_their_weights(encoder, structure, monkeypatch):
    torch.manual_seed(1)
    images = torch.randn(2, 3, encoder.img_size, encoder.img_size)
    heard, statistics = disturbed(encoder, structure, images, monkeypatch)
    group = next(g for g in structure.groups if g.role == "embedding")
    found = paper_scorer().score(group, statistics)
    with torch.no_grad():
        targets = [encoder(image[None]) + 0.01 * noise for image, noise in zip(images, heard, strict=True)]
    products = by_hand(encoder, images, targets)
    parts = [products["patch_embed.proj.weight"].sum((1, 2, 3))]
    for number in range(len(encoder.blocks)):
        at = f"blocks.{number}."
        parts += [products[f"{at}attn.qkv.weight"].sum(0), products[f"{at}mlp.lin1.weight"].sum(0)]
        parts += [products[f"{at}attn.proj.weight"].sum(1), products[f"{at}mlp.lin2.weight"].sum(1)]
    parts.append(products["neck.0.weight"].sum((0, 2, 3)))
    wanted = torch.stack(parts).mean(0)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=float(wanted.max()) * 1e-6)


def test_hidden_units_and_head_positions_likewise(encoder, structure, monkeypatch):
    torch.manual_seed(2)
    images = torch.randn(2, 3, encoder.img_size, encoder.img_size)
    heard, statistics = disturbed(encoder, structure, images, monkeypatch)
    mlp = next(g for g in structure.groups if g.role == "mlp.hidden")
    block = encoder.get_submodule(mlp.block)
    found = paper_scorer().score(mlp, statistics)
    with torch.no_grad():
        targets = [encoder(image[None]) + 0.01 * noise for image, noise in zip(images, heard, strict=True)]
    products = by_hand(encoder, images, targets)
    lin1, lin2 = (products[f"{mlp.name.rpartition('.lin1')[0]}.{name}.weight"] for name in ("lin1", "lin2"))
    wanted = torch.stack([lin1.sum(1), lin2.sum(0)]).mean(0)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=float(wanted.max()) * 1e-6)
    assert isinstance(block, nn.Module)


def joined(features):
    """Mean square between features that are first joined to one tensor; a tensor for each shape."""
    kinds = {}
    for mine, theirs in features:
        kinds.setdefault(tuple(mine.shape), []).append((mine, theirs))
    total = 0.0
    for pairs in kinds.values():
        mine, theirs = (torch.cat([pair[k].flatten() for pair in pairs]) for k in (0, 1))
        total = total + (mine - theirs).square().mean()
    return total


def test_the_bottleneck_is_compared_as_joined_features_after_the_activation(encoder, structure):
    import copy

    torch.manual_seed(3)
    student = copy.deepcopy(encoder)
    with torch.no_grad():
        for p in student.parameters():
            p.add_(0.02 * torch.randn_like(p))
    x = torch.randn(2, 3, encoder.img_size, encoder.img_size)
    kept = {}

    def listen(model, key):
        handles = []
        for block in model.blocks:
            handles.append(
                block.attn.qkv.register_forward_hook(lambda m, a, y: kept.setdefault((key, "qkv"), []).append(y))
            )
            handles.append(
                block.mlp.lin2.register_forward_pre_hook(lambda m, a: kept.setdefault((key, "mlp"), []).append(a[0]))
            )
        with torch.no_grad():
            out = model(x)
        for handle in handles:
            handle.remove()
        return out

    outputs = listen(student, "student"), listen(encoder, "teacher")
    stage = recipes.PAPER.stages[2]
    taps = {t.name: structure.taps(t.roles, where=t.where) if t.roles else () for t in stage.terms}
    losses = term_losses(student, {"original": encoder}, stage.terms, taps, 0.5, x)
    for kind, term in (("qkv", "attention features"), ("mlp", "hidden features")):
        wanted = joined(list(zip(kept["student", kind], kept["teacher", kind], strict=True)))
        assert losses[term].item() == pytest.approx(float(wanted), rel=1e-4)
    assert losses["output"].item() == pytest.approx(float((outputs[0] - outputs[1]).square().mean()), rel=1e-4)
    shapes = {tuple(f.shape) for f in kept["student", "qkv"]}
    assert len(shapes) > 1  # windows and whole images: the sum over shapes is no mean over places


def test_it_differs_from_ours_where_it_says_so():
    ours, theirs = recipes.SLIMSAM, recipes.PAPER
    changed = {k: v for k, v in theirs.settings.items() if ours.settings[k] != v}
    assert changed == {"accumulation": "signed", "within": "sum", "reads": "matrix", "clip": 0.0}
    assert theirs.stages[:2] + theirs.stages[3:] == ours.stages[:2] + ours.stages[3:]


@pytest.mark.parametrize("reads", ["matrix", "norm", "bias", "table", "matrix,bias", ("norm",)])
def test_kinds_are_told_apart(encoder, structure, reads):
    kinds = {
        name: parameter_kind(encoder.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2])
        for name, _ in encoder.named_parameters()
    }
    assert kinds["blocks.0.attn.qkv.weight"] == kinds["neck.0.weight"] == "matrix"
    assert kinds["blocks.0.attn.qkv.bias"] == "bias"
    assert kinds["blocks.0.norm1.weight"] == kinds["blocks.0.norm1.bias"] == kinds["neck.1.weight"] == "norm"
    assert kinds["pos_embed"] == kinds["blocks.0.attn.rel_pos_h"] == "table"
    group = next(g for g in structure.groups if g.role == "embedding")
    statistics = Statistics(encoder, list(as_samples([torch.randn(1, 3, 128, 128)], structure.inputs)))
    some = DisturbedTaylor(reads=reads).score(group, statistics)
    zeroed = replace(group, members=tuple(m for m in group.members if not m.is_buffer and kinds[m.tensor] in reads))
    torch.testing.assert_close(some, DisturbedTaylor().score(zeroed, statistics))
