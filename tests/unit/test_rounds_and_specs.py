"""What is saved loads, after several rounds too; a spec of another model is refused, and a damaged folder."""

import pytest
import timm
import torch
import torchvision
from torch import nn

import prunekit
from prunekit.errors import CheckpointError, RegistryError
from prunekit.registry import build
from prunekit.registry.specs import parts_of
from prunekit.surgery.history import cut_so_far

X = torch.randn(1, 3, 64, 64)


def made(width=12, depth=2):
    """A factory for ``python:`` specs."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), *[nn.Linear(width, width) for _ in range(depth)], nn.Linear(width, 3))


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "toy_specs", type("toy", (), {"made": staticmethod(made)}))


def test_a_spec_that_is_tried_does_not_move_the_random_state(tmp_path, toy):
    result = prunekit.prune(made().eval(), torch.randn(2, 4), ratio=0.5)
    before = torch.get_rng_state()
    prunekit.save(result, tmp_path / "slim", spec="python:toy_specs:made")
    assert torch.equal(torch.get_rng_state(), before)


class TestRounds:
    def test_three_rounds_load_as_one(self, tmp_path, toy):
        model, x = made().eval(), torch.randn(2, 4)
        for seed in range(3):
            result = prunekit.prune(model, x, ratio=0.2, align=1, scorer=prunekit.Random(seed=seed))
            with torch.no_grad():
                model[0].bias += 1  # it is trained in between
        prunekit.save(result, tmp_path / "slim", spec="python:toy_specs:made")
        torch.testing.assert_close(prunekit.load(tmp_path / "slim")(x), model(x))
        torch.testing.assert_close(prunekit.load(tmp_path / "slim", made())(x), model(x))

    def test_a_loaded_model_is_pruned_on_and_saved_again(self, tmp_path):
        model = timm.create_model("test_resnet", num_classes=5).eval()
        prunekit.save(prunekit.prune(model, X, ratio=0.25), tmp_path / "one", spec="timm:test_resnet?num_classes=5")
        again = prunekit.load(tmp_path / "one")
        prunekit.save(prunekit.prune(again, X, ratio=0.25), tmp_path / "two", spec="timm:test_resnet?num_classes=5")
        torch.testing.assert_close(prunekit.load(tmp_path / "two")(X), again(X))

    def test_undo_forgets_a_round(self):
        model, x = made().eval(), torch.randn(2, 4)
        first = prunekit.prune(model, x, ratio=0.25, align=1)
        one = cut_so_far(model)
        second = prunekit.prune(model, x, ratio=0.25, align=1)
        assert cut_so_far(model).to_json() != one.to_json() == first.plan.to_json()
        second.undo()
        assert cut_so_far(model) is one
        first.undo()
        assert cut_so_far(model) is None


class TestSpecs:
    @pytest.mark.parametrize(
        ("spec", "parts"),
        [
            ("timm:resnet18", ("timm", "resnet18", {})),
            ("timm:a?num_classes=10&in_chans=1", ("timm", "a", {"num_classes": 10, "in_chans": 1})),
            (
                "python:a.b:c?flag=True&name=wide&shape=(1,2)",
                ("python", "a.b:c", {"flag": True, "name": "wide", "shape": (1, 2)}),
            ),
            ("torchvision:a?x=none&y=false", ("torchvision", "a", {"x": None, "y": False})),
        ],
    )
    def test_arguments_are_literals_or_text(self, spec, parts):
        assert parts_of(spec) == parts

    @pytest.mark.parametrize("spec", ["timm:a?", "timm:a?x", "timm:a?1=2", "timm:a?x=1&x=2"])
    def test_what_is_no_argument_is_refused(self, spec):
        with pytest.raises(RegistryError, match="not written"):
            parts_of(spec)

    def test_an_argument_that_the_factory_lacks_is_refused_by_name(self, toy):
        with pytest.raises(RegistryError, match="colour"):
            build("python:toy_specs:made?colour=3")

    @pytest.mark.parametrize(
        ("make", "wrong", "right", "x"),
        [
            (
                lambda: timm.create_model("test_vit", num_classes=10),
                "timm:test_vit",
                "?num_classes=10",
                torch.randn(1, 3, 160, 160),
            ),
            (lambda: torchvision.models.mnasnet0_5(num_classes=7), "torchvision:mnasnet0_5", "?num_classes=7", X),
            (lambda: made(16), "python:toy_specs:made", "?width=16", torch.randn(2, 4)),
        ],
        ids=["timm", "torchvision", "python"],
    )
    def test_a_spec_of_another_model_is_refused_and_the_right_one_gives_it_back(
        self, tmp_path, toy, make, wrong, right, x
    ):
        model = make().eval()
        result = prunekit.prune(model, x, ratio=0.5)
        with pytest.raises(CheckpointError, match="does not give this model back") as caught:
            prunekit.save(result, tmp_path / "wrong", spec=wrong)
        assert not (tmp_path / "wrong").exists()
        assert "would be" in str(caught.value)
        prunekit.save(result, tmp_path / "right", spec=wrong + right)
        torch.testing.assert_close(prunekit.load(tmp_path / "right")(x), model(x))


class TestDamage:
    @pytest.mark.parametrize("name", ["model.safetensors", "plan.json"])
    def test_a_flipped_bit_is_found(self, tmp_path, toy, name):
        result = prunekit.prune(made().eval(), torch.randn(2, 4), ratio=0.5)
        folder = prunekit.save(result, tmp_path / "slim", spec="python:toy_specs:made")
        raw = bytearray((folder / name).read_bytes())
        raw[-9] ^= 0x02
        (folder / name).write_bytes(raw)
        with pytest.raises(CheckpointError, match=f"{name} is damaged"):
            prunekit.load(folder)

    def test_a_folder_without_checksums_loads(self, tmp_path, toy):
        result = prunekit.prune(made().eval(), torch.randn(2, 4), ratio=0.5)
        folder = prunekit.save(result, tmp_path / "slim", spec="python:toy_specs:made")
        (folder / "checksums.json").unlink()
        prunekit.load(folder)
