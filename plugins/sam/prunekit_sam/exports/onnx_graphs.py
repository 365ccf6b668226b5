"""``onnx``: encoder and decoder as ONNX files, where and as transformers.js looks for them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn

from prunekit.errors import ExportError
from prunekit.exports import agreeing, difference_of, optional
from prunekit.plugins import Compared

from .config import model_config, write_preprocessor
from .geometry import whole_sam
from .graphs import PromptEncoderMaskDecoder, VisionEncoder
from .precision import SUFFIXES, half, quantized
from .probing import answers, probe

if TYPE_CHECKING:
    from prunekit.plans import Bundle

INSTALL = "prunekit-sam[onnx]"
LARGEST = 2_000_000_000  # bytes: no ONNX file, being one protocol buffer, can be of 2 GiB
ENCODER, DECODER = "vision_encoder", "prompt_encoder_mask_decoder"
IMAGE = ("image_embeddings", "image_positional_embeddings")
INPUTS = {ENCODER: ("pixel_values",), DECODER: ("input_points", "input_labels", *IMAGE)}
OUTPUTS = {ENCODER: IMAGE, DECODER: ("iou_scores", "pred_masks")}


def onnx(bundle: Bundle, folder: Path, precisions: Sequence[str]) -> Sequence[Compared]:
    """SAM of any widths: ONNX encoder and decoder in the layout of transformers.js; fp32, fp16 and int8.

    ``onnx/vision_encoder.onnx`` and ``onnx/prompt_encoder_mask_decoder.onnx``, the same with ``_fp16`` (weights and
    arithmetic in half precision, fp32 in and out) and ``_quantized`` (int8 weights of matrix products, activations
    quantized as they come) where asked, ``config.json`` and ``preprocessor_config.json``. Each file is run by
    onnxruntime beside the slimmed model, which fp32 has to agree with; of the others the difference is reported.
    Raises ExportError for a file of 2 GB and more.
    """
    for library in ("onnx", "onnxscript", "onnxruntime"):
        optional(library, INSTALL)
    slimmed = whole_sam(bundle.model)
    (folder / "onnx").mkdir()
    (folder / "config.json").write_text(json.dumps(model_config(slimmed), indent=1) + "\n")
    write_preprocessor(slimmed, folder)
    given, expected = _example(slimmed, seed=0, batch=2), _example(slimmed, seed=1, batch=1)
    for name, module in ((ENCODER, VisionEncoder(slimmed)), (DECODER, PromptEncoderMaskDecoder(slimmed))):
        plain = folder / "onnx" / f"{name}.onnx"
        _write(module.eval(), name, given, plain)
        for precision in precisions:
            if precision != "fp32":
                convert = half if precision == "fp16" else quantized
                convert(plain, plain.with_name(f"{name}{SUFFIXES[precision]}.onnx"))
    return [found for precision in precisions for found in _compared(folder / "onnx", precision, expected)]


def _example(sam: Sam, seed: int, batch: int) -> dict[str, Tensor]:
    """Every input and every output by name, as the slimmed model's own forwards have them, for ``batch`` images."""
    rows = []
    for number in range(batch):
        one = probe(sam, seed + number)
        rows.append({"pixel_values": one.pixels, "input_points": one.points, "input_labels": one.labels})
        rows[-1] |= answers(sam, one)
        rows[-1]["image_positional_embeddings"] = sam.prompt_encoder.get_dense_pe().detach()
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def _write(module: nn.Module, name: str, given: Mapping[str, Tensor], path: Path) -> None:
    """Raises ExportError for what the exporter cannot follow, and for what does not fit into a file."""
    if (size := sum(p.numel() * p.element_size() for p in module.parameters())) >= LARGEST:
        raise ExportError(
            f"{name} has weights of {size / 1e9:.1f} GB, an ONNX file holds 2",
            hint="prune by a larger --ratio, or use --to exported",
        )
    free = {"input_points": ("batch_size", "point_batch_size", "nb_points_per_image")}
    free["input_labels"] = free["input_points"]
    dims = {key: torch.export.Dim(key) for key in free["input_points"]}
    shapes = {key: {n: dims[d] for n, d in enumerate(free.get(key, ("batch_size",)))} for key in INPUTS[name]}
    try:
        with warnings.catch_warnings(action="ignore"):  # of the exporter, about itself
            torch.onnx.export(
                module,
                tuple(given[key] for key in INPUTS[name]),
                path,
                input_names=INPUTS[name],
                output_names=OUTPUTS[name],
                dynamic_shapes=shapes,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter wraps whatever its many parts raise
        first = next(iter(str(error).splitlines()), "")
        raise ExportError(f"torch.onnx cannot write {name}: {type(error).__name__}: {first}") from error


def _compared(folder: Path, precision: str, expected: Mapping[str, Tensor]) -> list[Compared]:
    """The written files one after the other, as they are used: the decoder reads what the encoder gave."""
    known: dict[str, Any] = {key: value.numpy() for key, value in expected.items() if key not in _results()}
    runtime, out = optional("onnxruntime", INSTALL), []
    for name in (ENCODER, DECODER):
        file = f"{name}{SUFFIXES[precision]}.onnx"
        session = runtime.InferenceSession(folder / file, providers=["CPUExecutionProvider"])
        values = session.run(list(OUTPUTS[name]), {key: known[key] for key in INPUTS[name]})
        known |= dict(zip(OUTPUTS[name], values, strict=True))
        check = agreeing if precision == "fp32" else difference_of
        out += [check(f"{file}: {key}", expected[key], torch.from_numpy(known[key])) for key in OUTPUTS[name]]
    return out


def _results() -> set[str]:
    return {key for names in OUTPUTS.values() for key in names}
