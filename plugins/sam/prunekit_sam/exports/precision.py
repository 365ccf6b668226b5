"""Smaller copies of an ONNX file, named as transformers.js asks for them."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

from prunekit.exports import optional

SUFFIXES = {"fp32": "", "fp16": "_fp16", "int8": "_quantized"}


def half(source: Path, target: Path) -> None:
    """``source`` with weights and arithmetic in half precision; inputs and outputs stay fp32."""
    onnx = optional("onnx", "prunekit-sam[onnx]")
    float16 = optional("onnxruntime.transformers.float16", "prunekit-sam[onnx]")
    with warnings.catch_warnings(action="ignore"):  # one for every weight that is too small or too large
        onnx.save(float16.convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


def quantized(source: Path, target: Path) -> None:
    """``source`` with int8 weights in matrix products, a scale a channel; activations are quantized as they come."""
    quantization = optional("onnxruntime.quantization", "prunekit-sam[onnx]")
    # the library logs through functions that give a root without handlers one that writes to the terminal
    root, silent = logging.getLogger(), logging.NullHandler()
    root.addHandler(silent)
    try:
        # seven bits: products of eight and eight overflow in onnxruntime's kernels for processors without VNNI
        quantization.quantize_dynamic(
            source, target, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, reduce_range=True
        )
    finally:
        root.removeHandler(silent)
