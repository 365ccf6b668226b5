"""Low-rank adapters in the place of whole weights (Hu et al. 2021, LoRA, 2106.09685): peft's, merged at the end."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.errors import RecipeError
from prunekit.recipes.records import Training

ADAPTERS = "adapters."
_SCALE = 2  # alpha over rank: what an adapter's product counts


@dataclass(frozen=True, eq=False)
class Adapted:
    """A copy of a student with adapters beside ``layers``, the only ones of its parameters that are trained."""

    student: nn.Module
    model: nn.Module
    layers: tuple[str, ...]

    def values(self) -> dict[str, Tensor]:
        """The adapters' parameters by name, on the CPU."""
        return {ADAPTERS + name: p.detach().to("cpu", copy=True) for name, p in self._trained()}

    @torch.no_grad()
    def put_back(self, tensors: Mapping[str, Tensor]) -> None:
        """Gives the adapters the values that ``values`` gave. Raises RecipeError for those of others."""
        for name, p in self._trained():
            if ADAPTERS + name not in tensors:
                raise RecipeError("the kept state is of another run", hint="remove it, and start again")
            p.copy_(tensors[ADAPTERS + name])

    @torch.no_grad()
    def merge(self) -> None:
        """Adds every adapter's product to the student's own weight."""
        for name in self.layers:
            layer: Any = self.model.get_submodule(name)
            layer.merge(safe_merge=True)  # raises for products that are not finite
            own: Any = self.student.get_submodule(name)
            own.weight.copy_(layer.get_base_layer().weight)

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]


def adapted(student: nn.Module, settings: Training, *, penalised: bool) -> Adapted:
    """Adapters of rank ``settings.lora_rank`` for every linear layer whose weight is its own.

    Raises RecipeError where there is no peft or no layer to adapt, and for settings that want whole weights.
    """
    if penalised:
        raise RecipeError("a penalty draws whole weights to zero, and adapters leave them", hint="--set lora_rank=0")
    if settings.sharded:
        raise RecipeError("adapters are too small to be divided", hint="--set sharded=false")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise RecipeError("adapters need peft, which is not installed", hint="pip install peft") from error
    uses = Counter(id(p) for _, p in student.named_parameters(remove_duplicate=False))
    # exactly this class: what derives from it may read its weight elsewhere
    linear = [(name, module) for name, module in student.named_modules() if type(module) is nn.Linear]
    layers = tuple(name for name, module in linear if name and uses[id(module.weight)] == 1)
    if not layers:
        raise RecipeError("there is no linear layer to adapt", hint="--set lora_rank=0 trains all weights")
    rank = settings.lora_rank
    config: Any = LoraConfig(r=rank, lora_alpha=_SCALE * rank, target_modules=list(layers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # on how to save a model of transformers, which is not done here
        model: nn.Module = inject_adapter_in_model(config, copy.deepcopy(student))
    return Adapted(student, model.eval(), layers)
