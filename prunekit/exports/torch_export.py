"""``exported``: the pruned part as one ``torch.export`` program, which runs without the model's code and prunekit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from prunekit.exports.agreement import agreeing
from prunekit.exports.following import followed, repeated
from prunekit.exports.requirements import only_fp32
from prunekit.inputs import Inputs, infer, tensors_in
from prunekit.plugins.formats import Compared

if TYPE_CHECKING:
    from prunekit.plans.bundle import Bundle

PROGRAM = "program.pt2"


def exported(bundle: Bundle, folder: Path, precisions: Sequence[str]) -> Sequence[Compared]:
    """Any model: the pruned part as a torch.export program.

    ``folder/program.pt2`` is for ``torch.export.load(path).module()``. It takes any batch size where the part's code
    allows it, else batches of one. The program read back is compared on random inputs of the shape that the part says
    it reads. Raises ExportError where the part cannot be exported or the program gives something else.
    """
    only_fp32(precisions, "exported")
    part = bundle.model.get_submodule(bundle.part).eval()
    inputs = infer(part)
    program, batches = followed(part, inputs)
    torch.export.save(program, folder / PROGRAM)
    again = torch.export.load(folder / PROGRAM).module()
    return [found for batch in batches for found in _checked(part, again, repeated(inputs, batch), batch)]


def _checked(part: nn.Module, again: nn.Module, inputs: Inputs, batch: int) -> list[Compared]:
    with torch.no_grad():
        wanted, given = part(*inputs.args, **inputs.kwargs), again(*inputs.args, **inputs.kwargs)
    pairs = list(zip(tensors_in(wanted), tensors_in(given), strict=True))
    return [
        agreeing(f"{PROGRAM}: output {number} at batch {batch}", one, other)
        for number, (one, other) in enumerate(pairs)
    ]
