"""What a model is called with: example inputs, generated calibration inputs, and samples out of user data."""

from prunekit.inputs.batching import Batch, moved, run_on
from prunekit.inputs.generation import generated, natural_images
from prunekit.inputs.inference import infer
from prunekit.inputs.reading import as_samples, first_row
from prunekit.inputs.running import sample_named
from prunekit.inputs.values import Inputs, Sample, is_number, map_tensors, normalise, reals, tensors_in

__all__ = [
    "Batch",
    "Inputs",
    "Sample",
    "as_samples",
    "first_row",
    "generated",
    "infer",
    "is_number",
    "map_tensors",
    "moved",
    "natural_images",
    "normalise",
    "reals",
    "run_on",
    "sample_named",
    "tensors_in",
]
