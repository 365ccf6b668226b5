from __future__ import annotations

import logging
from importlib.metadata import EntryPoint

import pytest
import torch
from torch import nn

from prunekit.errors import CheckpointError, RegistryError
from prunekit.plugins import ModelEntry, Plugin, load_all
from prunekit.registry import build, known_scorers, scorer
from prunekit.scorers import DisturbedTaylor, Random, Wanda

TOY = Plugin("toy", models={"line": ModelEntry(lambda checkpoint: nn.Linear(2, 2), part="")})


def test_a_plugins_model():
    built = build("toy:line", plugins=[TOY])
    assert isinstance(built.model, nn.Linear)
    assert (built.spec, built.part) == ("toy:line", "")
    assert not built.model.training


@pytest.mark.parametrize(
    ("spec", "near"),
    [
        ("toy:lime", "toy:line"),
        ("toyy:line", "toy:line"),
        ("timm:vit_tiny_patch16_22", "timm:vit_tiny_patch16_224"),
        ("torchvision:resnet19", "torchvision:resnet18"),
        ("python:collections:OrderdDict", "python:collections:OrderedDict"),
    ],
)
def test_an_unknown_name_gives_the_nearest(spec, near):
    with pytest.raises(RegistryError, match=near):
        build(spec, plugins=[TOY])


@pytest.mark.parametrize("spec", ["python:collections", "python:no.such.module:f", "python:math:sqrt", "toy:", "", "x"])
def test_what_is_no_model_is_refused(spec):
    with pytest.raises(RegistryError):
        build(spec, plugins=[TOY])


def test_options_reach_the_factory_and_are_kept():
    built = build("timm:vit_tiny_patch16_224", plugins=[], img_size=32, patch_size=8, depth=1, num_classes=3)
    assert built.model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    again = build(built.spec, plugins=[], **built.options)
    assert {n: p.shape for n, p in again.model.named_parameters()} == {
        n: p.shape for n, p in built.model.named_parameters()
    }


def test_a_checkpoint_must_fit(tmp_path):
    torch.save(nn.Linear(3, 3).state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="does not fit"):
        build("torchvision:squeezenet1_1", checkpoint=tmp_path / "w.pth", plugins=[])


def test_scorers_take_the_options_that_they_know():
    assert scorer("Disturbed-Taylor", plugins=[], seed=3, accumulation="squared") == DisturbedTaylor(
        seed=3, accumulation="squared"
    )
    assert scorer("random", plugins=[], seed=3, accumulation="squared") == Random(seed=3)
    with pytest.raises(RegistryError, match="magnitude"):
        scorer("magnitud", plugins=[])


def test_a_broken_plugin_warns_by_name_and_the_others_load(caplog):
    good = EntryPoint("good", f"{__name__}:TOY", "prunekit.plugins")
    bad = EntryPoint("bad", "prunekit.no_such_module:plugin", "prunekit.plugins")
    odd = EntryPoint("odd", "math:pi", "prunekit.plugins")
    import sys

    sys.modules.setdefault(__name__, type(sys)(__name__)).TOY = TOY
    with caplog.at_level(logging.WARNING, "prunekit"):
        found = load_all((bad, good, odd))
    assert found == (TOY,)
    assert "'bad'" in caplog.text
    assert "'odd'" in caplog.text


def test_a_plugin_brings_criteria_and_takes_no_name_of_prunekits_own():
    bold = Plugin("bold", scorers={"wanda": Random, "bold": Random})
    assert isinstance(scorer("bold", plugins=[bold]), Random)
    assert isinstance(scorer("wanda", plugins=[bold]), Wanda)
    assert known_scorers([bold])["wanda"] is Wanda
