"""The metric of a run: the plug-in's, or, for a model without labels, how well it still agrees with the original."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from prunekit.inputs.batching import moved, run_on
from prunekit.plugins.data import Evaluator
from prunekit.samples.tasks import Samples
from prunekit.runs.distillation import floats
from prunekit.registry.building import Built

AGREEMENT = "output_cosine"


def evaluator_for(built: Built, original: nn.Module) -> Evaluator:
    """The plug-in's evaluator for this model, else the agreement with ``original``."""
    if built.entry and built.plugin and built.entry.evaluator:
        return built.plugin.evaluators[built.entry.evaluator]

    def agreement(model: nn.Module, samples: Samples, progress: Callable[[int, int], None]) -> Mapping[str, float]:
        return {AGREEMENT: output_cosine(original, model, samples, progress)}

    return agreement


@torch.no_grad()
def output_cosine(
    original: nn.Module, model: nn.Module, samples: Samples, progress: Callable[[int, int], None]
) -> float:
    """Mean over the samples of the cosine between the outputs of the two models, in [-1, 1]; 1 is agreement."""
    device = next(model.parameters()).device
    total = 0.0
    for index in range(len(samples)):
        batch = moved(samples.batch([index]), device)
        theirs = torch.cat([t.flatten() for t in floats(run_on(original, batch))])
        mine = torch.cat([t.flatten() for t in floats(run_on(model, batch))])
        total += float(nn.functional.cosine_similarity(mine, theirs, dim=0))
        progress(index + 1, len(samples))
    return total / len(samples)
