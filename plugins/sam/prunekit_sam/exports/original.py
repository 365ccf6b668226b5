"""``sam``: a state dict that stock segment_anything loads, and the few lines that build its Sam for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from prunekit.exports import agreeing, only_fp32
from prunekit.plugins import Compared

from . import loading
from .geometry import buildable, whole_sam
from .probing import NAMES, answers, probe
from .sam_arguments import arguments
from .scale import rescaled_state

if TYPE_CHECKING:
    from prunekit.plans import Bundle


def sam(bundle: Bundle, folder: Path, precisions: Sequence[str]) -> Sequence[Compared]:
    """SAM of uniform widths: state dict for stock segment_anything, with the arguments that build it.

    ``sam.safetensors``, ``sam.json`` and ``load_sam.py``, which needs segment_anything and safetensors alone. Raises
    ExportError for other widths.
    """
    only_fp32(precisions, "sam")
    slimmed = whole_sam(bundle.model)
    widths = buildable(slimmed, "sam")
    save_file(rescaled_state(slimmed), folder / "sam.safetensors")
    (folder / "sam.json").write_text(json.dumps(arguments(slimmed, widths), indent=1) + "\n")
    (folder / "load_sam.py").write_text(Path(loading.__file__).read_text())
    given = probe(slimmed)
    wanted, found = answers(slimmed, given), answers(loading.load_sam(folder), given)
    return [agreeing(name, wanted[name], found[name]) for name in NAMES]
