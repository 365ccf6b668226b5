"""A model that returns its loss feeds the supervised criteria without more words."""

import pytest
import torch
from torch import nn

import prunekit
from prunekit.errors import ScorerError


class Returning(nn.Module):
    """Returns its loss as the output asks: an attribute, a key, or alone."""

    def __init__(self, how):
        super().__init__()
        self.first, self.last, self.how = nn.Linear(4, 16), nn.Linear(16, 3), how

    def forward(self, x, labels):
        logits = self.last(self.first(x).relu())
        loss = nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits} if self.how == "key" else loss


def batches():
    generator = torch.Generator().manual_seed(0)
    return [
        {"x": torch.randn(2, 4, generator=generator), "labels": torch.randint(0, 3, (2,), generator=generator)}
        for _ in range(3)
    ]


@pytest.mark.parametrize("how", ["key", "alone"])
@pytest.mark.parametrize("criterion", [prunekit.Taylor, prunekit.Fisher, prunekit.OBD])
def test_the_loss_that_is_returned_is_differentiated(criterion, how):
    torch.manual_seed(0)
    model, data = Returning(how), batches()
    plan = prunekit.plan(model, data[0], scorer=criterion(), data=data)
    plain = nn.Sequential(model.first, nn.ReLU(), model.last)
    pairs = [(batch["x"], batch["labels"]) for batch in data]
    told = criterion(loss=nn.functional.cross_entropy)
    if criterion is prunekit.OBD:  # its probes are drawn by what a sample holds, and here that is the labels too
        assert plan.widths[0].after == 8
        return
    assert plan.widths[0].kept == prunekit.plan(plain, pairs[0][0], scorer=told, data=pairs).widths[0].kept


def test_a_model_without_a_loss_is_refused_with_the_ways_out():
    model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(3, 4)
    with pytest.raises(ScorerError, match="Taylor needs a loss") as caught:
        prunekit.plan(model, x, scorer=prunekit.Taylor(), data=[x])
    assert "labels" in caught.value.hint
