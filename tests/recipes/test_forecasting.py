"""What a run would take, by shapes: the stages that it then has, the counts that a ratio gives; no weight is read."""

from __future__ import annotations

import copy

import pytest
import torch

from prunekit.errors import InputError, SelectionError
from prunekit.options import Options
from prunekit.recipes import OWN, override
from prunekit.registry import build
from prunekit.runs import run
from prunekit.runs.forecasting import forecast, weighed
from prunekit.runs.forecasting.durations import solving_macs
from prunekit.runs.job import Job
from prunekit.scorers import Magnitude, Wanda

FAST = {"images": 2, "train_images": 2, "val_images": 2, "epochs": 1, "batch": 2, "latency": False, "prune_steps": 2}
VIT = {"img_size": 32, "patch_size": 8, "depth": 2, "num_classes": 5, "embed_dim": 48, "num_heads": 3}
BY_NAME = {recipe.name: recipe for recipe in OWN}
ON_VIT = [name for name in BY_NAME if name not in ("network-slimming", "depth-then-width")]


def made(device="cpu"):
    torch.manual_seed(0)
    with torch.device(device):
        return build("timm:vit_tiny_patch16_224", plugins=[], **VIT)


def fast(name, **more):
    recipe = BY_NAME[name]
    return override(recipe, {k: v for k, v in {**FAST, **more}.items() if k in recipe.settings})


def job(built, recipe, scorer=Magnitude(), **options):
    return Job.of(built, recipe, Options.of(**{"ratio": 0.5, **options}, scorer=scorer))


class Ticking:
    """Every call takes an hour: beside it planning is nothing."""

    def seconds(self, run, device):
        run()
        return 3600.0


@pytest.mark.parametrize("name", ON_VIT)
def test_each_recipe_is_foretold_as_it_then_runs(name):
    built, recipe = made(), fast(name)
    before = copy.deepcopy(built.model.state_dict())
    found = forecast(job(built, recipe), 2)
    assert all(torch.equal(value, before[key]) for key, value in built.model.state_dict().items())
    done = run(built, recipe, Magnitude(), ratio=0.5).report
    assert [stage.title for stage in found.stages] == [stage["title"] for stage in done["stages"]]
    assert found.before.params == done["params"]["before"]
    assert found.after.params == pytest.approx(done["params"]["after"], rel=0.1)
    assert all(stage.seconds > 0 for stage in found.stages)
    assert found.peak >= 2 * found.weights


def test_a_model_without_weights_is_foretold_the_same():
    recipe = fast("iterative")
    found = [forecast(job(made(device), recipe), 2) for device in ("cpu", "meta")]
    assert found[0].plan.widths == found[1].plan.widths
    assert found[0].after == found[1].after
    assert weighed(job(made("meta"), recipe)) == found[0].before.macs


def test_a_target_is_met_by_the_widths_that_are_foretold():
    found = forecast(job(made("meta"), fast("oneshot"), ratio=None, target="macs<=60%"), 2)
    assert found.after.macs <= 0.6 * found.before.macs


def test_what_costs_more_is_foretold_to_cost_more():
    def seconds(name, scorer=Magnitude(), **settings):
        return forecast(job(made("meta"), fast(name, **settings), scorer), 4, Ticking()).seconds

    assert seconds("isomorphic", epochs=400) > 5 * seconds("isomorphic", epochs=4)
    assert seconds("oneshot", images=2000) < 2 * seconds("oneshot", images=2)  # magnitude reads no image
    few, many = (forecast(job(made("meta"), fast("oneshot", images=4000), Wanda()), n, Ticking()) for n in (4, 4000))
    assert many.seconds > 2 * few.seconds  # no more images are read than there are


def test_what_a_teacher_gives_is_counted_once_a_sample_where_it_is_kept():
    def taught(**settings):
        return forecast(job(made("meta"), fast("isomorphic", epochs=200, **settings)), 2, Ticking()).seconds

    assert taught(teacher_cache="off") > 1.1 * taught()


def test_a_refit_is_of_layers_and_not_of_tables():
    layer = torch.nn.Sequential(torch.nn.Linear(8, 4))
    alone = solving_macs(layer)
    layer.register_parameter("positions", torch.nn.Parameter(torch.zeros(1, 64, 64, 32)))
    assert solving_macs(layer) == alone > 0


def test_widths_that_a_library_can_load_are_foretold_as_any_others():
    recipe = fast("oneshot")
    found = [forecast(job(made("meta"), recipe, uniform=uniform), 2).after for uniform in (False, True)]
    assert found[0] == found[1]


def test_latency_is_not_told_by_shapes():
    with pytest.raises(InputError, match="latency"):
        forecast(job(made("meta"), fast("oneshot"), ratio=None, target="latency<=50%"), 2)


def test_blocks_are_not_told_by_shapes():
    with pytest.raises(InputError, match="blocks"):
        forecast(job(made("meta"), fast("depth-then-width")), 2)


def test_what_the_run_would_refuse_is_refused_now():
    with pytest.raises(SelectionError):
        forecast(job(made("meta"), fast("oneshot"), ratio=None, target="params<=1"), 2)
