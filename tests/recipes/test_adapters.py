"""Adapters of low rank: what is trained, what is merged, and a run that is gone on with."""

import copy

import pytest
import torch
from support.small_runs import STAGED, small_run
from torch import nn

from prunekit.errors import RecipeError
from prunekit.recipes import COMMON, Distil, Term
from prunekit.recipes.records import Training
from prunekit.runs.distillation import distil
from prunekit.runs.distillation.adapters import adapted
from prunekit.samples import Samples

pytest.importorskip("peft")


class Tied(nn.Module):
    """Two layers that share a weight, one of their own, and a norm."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 6, bias=False), nn.LayerNorm(6), nn.Linear(6, 3)
        self.again = nn.Linear(6, 6, bias=False)
        self.again.weight = self.first.weight

    def forward(self, x):
        return self.last(self.norm(self.again(torch.relu(self.first(x)))))


def training(**changes):
    known = {name: value for name, value in COMMON.items() if name in Training.__dataclass_fields__}
    return Training(**{**known, "epochs": 4, "align_epochs": 0, "batch": 4, "accumulate": 1, "lr": 0.02, **changes})


def taught(student, teacher, settings, loss="mse", penalty=None):
    samples = Samples(list(torch.randn(8, 6)), lambda rows: torch.stack(list(rows)))
    stage = Distil("recover", (Term("output", loss=loss),))
    return distil(
        student, {"original": teacher}, stage, samples, lambda *_, **k: (), settings, lambda *_: None, penalty
    )


def test_what_is_added_to_a_weight_has_the_rank_and_nothing_else_moves():
    torch.manual_seed(0)
    teacher, student = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)), None
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student[2].weight.add_(torch.randn(5, 8))
    before = copy.deepcopy(student.state_dict())
    first = taught(copy.deepcopy(student), teacher, training(epochs=1))["loss"]
    last = taught(student, teacher, training(epochs=30, lora_rank=2))["loss"]
    assert last < 0.8 * first
    for name, value in student.state_dict().items():
        moved = value - before[name]
        if name.endswith("bias"):
            assert not moved.any()
        else:
            assert torch.linalg.matrix_rank(moved, rtol=1e-4) == 2
    assert [type(m) for m in student] == [nn.Linear, nn.ReLU, nn.Linear]
    assert all(p.requires_grad for p in student.parameters())


def test_a_shared_weight_has_no_adapter():
    student = Tied()
    made = adapted(student, training(lora_rank=2), penalised=False)
    assert made.layers == ("last",)
    assert student.first.weight is student.again.weight
    x = torch.randn(3, 6)
    assert torch.equal(made.model(x), student(x))  # an adapter begins at zero


@pytest.mark.parametrize(
    ("model", "changes", "penalised", "words"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3)), {}, False, "no linear layer"),
        (nn.Sequential(nn.Linear(3, 4)), {}, True, "penalty"),
        (nn.Sequential(nn.Linear(3, 4)), {"sharded": True}, False, "divided"),
    ],
)
def test_what_adapters_cannot_do(model, changes, penalised, words):
    with pytest.raises(RecipeError, match=words):
        adapted(model, training(lora_rank=2, **changes), penalised=penalised)


def test_a_run_with_adapters_is_gone_on_with_bit_for_bit(tmp_path):
    class Killed(BaseException):
        pass

    heard = []

    def listen(event):
        heard.append(event)
        if len(heard) > 22:
            raise Killed

    wanted = small_run(folder=tmp_path / "one", lora_rank=2)
    plain = small_run(folder=tmp_path / "plain")
    with pytest.raises(Killed):
        small_run(STAGED, tmp_path / "two", listen, lora_rank=2)
    again = small_run(folder=tmp_path / "two", lora_rank=2)
    assert all(torch.equal(v, again.model.state_dict()[k]) for k, v in wanted.model.state_dict().items())
    assert any(not torch.equal(v, plain.model.state_dict()[k]) for k, v in wanted.model.state_dict().items())


def test_a_loss_of_ones_own_is_asked_with_the_student_first():
    torch.manual_seed(0)
    student, teacher = nn.Linear(6, 3), nn.Linear(6, 3)
    seen = []

    def furthest(mine, theirs):
        seen.append((mine.requires_grad, theirs.requires_grad))
        return (mine - theirs).abs().max()

    assert taught(student, teacher, training(), furthest)["output"] > 0
    assert set(seen) == {(True, False)}
