"""A pruned model and what is worth keeping about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from prunekit.plans.contents import Plan


@dataclass(frozen=True)
class Bundle:
    """A pruned model and what is worth keeping about it.

    Attributes:
        model: the whole model, pruned.
        plan: names the tensors of ``part``, from the original to what ``model`` is now.
        report: a mapping or a dataclass of JSON values.
        spec, options: what ``prunekit.registry.build`` takes to make the original again; "" if unknown.
        part: path of the submodule that the plan is about; "" is the whole model.
    """

    model: nn.Module
    plan: Plan
    report: Any
    spec: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
