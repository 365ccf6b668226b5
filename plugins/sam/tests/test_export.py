"""Slimmed SAMs in other libraries: the same input gives the same masks, or the export is refused and leaves nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prunekit_sam import models
from prunekit_sam.data import MaskedImage
from prunekit_sam.exports import onnx_graphs as onnx_format
from prunekit_sam.exports import original as sam_format
from prunekit_sam.exports.geometry import uniform
from prunekit_sam.exports.probing import NAMES, answers, probe
from prunekit_sam.exports.sam_arguments import mlp_ratio
from prunekit_sam.plugin import plugin, preprocessed
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

import prunekit
from prunekit.checkpoints import save
from prunekit.cli.app import run as command
from prunekit.errors import ExportError
from prunekit.exports import export
from prunekit.plans.bundle import Bundle

SETTINGS = ("distill=false", "images=2", "val_images=2", "latency=false")
MOST = 1e-4
SEED = 11  # of inputs that no exporter compares on


def slimmed(folder, ranking):
    sets = [part for setting in (*SETTINGS, f"ranking={ranking}") for part in ("--set", setting)]
    arguments = ["prune", "sam:nano", "--recipe", "slimsam", "--scorer", "magnitude", *sets, "--out", str(folder)]
    assert command(arguments) == 0
    return folder


@pytest.fixture(scope="module")
def same(tmp_path_factory):
    """A folder whose blocks all have one width."""
    return slimmed(tmp_path_factory.mktemp("same") / "slim", "local")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A folder whose blocks differ in width."""
    folder = slimmed(tmp_path_factory.mktemp("mixed") / "slim", "global")
    assert uniform(prunekit.load(folder)) is None
    return folder


@pytest.fixture(scope="module")
def padded():
    """A bundle with a Sam of two blocks and one decoder layer, of one part, whose blocks differ in width."""
    torch.manual_seed(0)
    norm = partial(nn.LayerNorm, eps=1e-6)
    windows = {"window_size": 3, "global_attn_indexes": (1,), "use_rel_pos": True}  # 3 does not divide 4: padded
    encoder = ImageEncoderViT(32, 8, 3, 256, 2, 4, out_chans=16, norm_layer=norm, **windows)
    decoder = MaskDecoder(transformer_dim=16, transformer=TwoWayTransformer(1, 16, 2, 24), iou_head_hidden_dim=20)
    sam = Sam(encoder, PromptEncoder(16, (4, 4), (32, 32), 8), decoder).eval()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.05)  # positions too, which start at zero
    result = prunekit.prune(sam.image_encoder, ratio=0.5, ranking="global")
    assert uniform(sam) is None
    return Bundle(sam, result.plan, result.report, part="image_encoder")


@pytest.fixture(scope="module")
def as_onnx(padded, tmp_path_factory):
    """The folder, and what was compared."""
    out = tmp_path_factory.mktemp("onnx")
    return out, onnx_format.onnx(padded, out, ["fp32", "fp16", "int8"])


def differences(wanted, found):
    return {name: float((wanted[name] - found[name]).abs().max()) for name in NAMES}


def test_transformers_loads_it_and_gives_the_same(same, tmp_path):
    from transformers import SamModel, SamProcessor

    done = export(same, "hf", tmp_path / "out")
    assert done.files == ("config.json", "model.safetensors", "preprocessor_config.json")
    sam, model = prunekit.load(same), SamModel.from_pretrained(tmp_path / "out").eval()
    prompt = probe(sam, SEED)
    with torch.no_grad():
        out = model(pixel_values=prompt.pixels, input_points=prompt.points, input_labels=prompt.labels)
        embedding = model.get_image_embeddings(prompt.pixels)
    found = dict(zip(NAMES, (embedding, out.iou_scores, out.pred_masks), strict=True))
    assert max(differences(answers(sam, prompt), found).values()) < MOST
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)  # not resized, but padded
    pixels = SamProcessor.from_pretrained(tmp_path / "out")(images=image, return_tensors="pt")["pixel_values"]
    empty = np.zeros((0, 96, 128), dtype=bool)
    sample = MaskedImage("", image, empty, np.zeros((0, 2)), np.zeros((0, 4)))
    torch.testing.assert_close(pixels, preprocessed(sam, [sample]), rtol=0, atol=1e-5)


def test_stock_segment_anything_loads_it_without_prunekit_and_gives_the_same(same, tmp_path):
    export(same, "sam", tmp_path / "out")
    sam = prunekit.load(same)
    prompt = probe(sam, SEED)
    torch.save(vars(prompt), tmp_path / "prompt.pt")
    code = (
        "import sys, torch; sys.path.insert(0, sys.argv[1])\n"
        "from load_sam import load_sam\n"
        "sam, given = load_sam(sys.argv[1]), torch.load(sys.argv[2], weights_only=True)\n"
        "with torch.no_grad():\n"
        "    embedding = sam.image_encoder(given['pixels'])\n"
        "    sparse, dense = sam.prompt_encoder((given['points'][0], given['labels'][0]), None, None)\n"
        "    masks, scores = sam.mask_decoder(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense, True)\n"
        "torch.save([embedding, scores[None], masks[None]], sys.argv[3])\n"
        "assert not [name for name in sys.modules if name.startswith('prunekit')]\n"
    )
    paths = [str(tmp_path / name) for name in ("out", "prompt.pt", "found.pt")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True, timeout=100)
    found = dict(zip(NAMES, torch.load(paths[2], weights_only=True), strict=True))
    assert max(differences(answers(sam, prompt), found).values()) < MOST
    assert json.loads((tmp_path / "out" / "sam.json").read_text())["image_encoder"]["mlp_ratio"] == 4.0


def run_onnx(folder, prompt, suffix=""):
    """What onnxruntime makes of the two files, the decoder fed by the encoder."""
    import onnxruntime

    def session(name):
        path = folder / "onnx" / f"{name}{suffix}.onnx"
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    encoder, decoder = session("vision_encoder"), session("prompt_encoder_mask_decoder")
    assert [i.name for i in encoder.get_inputs()] == ["pixel_values"]
    assert [o.name for o in encoder.get_outputs()] == ["image_embeddings", "image_positional_embeddings"]
    names = {"input_points", "input_labels", "image_embeddings", "image_positional_embeddings"}
    assert {i.name for i in decoder.get_inputs()} == names
    assert {i.type for i in decoder.get_inputs() if i.name == "input_labels"} == {"tensor(int64)"}
    embedding, positions = encoder.run(None, {"pixel_values": prompt.pixels.numpy()})
    fed = {"image_embeddings": embedding, "image_positional_embeddings": positions}
    fed |= {"input_points": prompt.points.numpy(), "input_labels": prompt.labels.numpy()}
    scores, masks = decoder.run(["iou_scores", "pred_masks"], fed)
    return dict(zip(NAMES, map(torch.from_numpy, (embedding, scores, masks)), strict=True))


@pytest.mark.timeout(400)
def test_onnxruntime_gives_the_same_and_smaller_files_nearly(padded, as_onnx):
    sam, (out, compared) = padded.model, as_onnx
    prompt = probe(sam, SEED)
    wanted = answers(sam, prompt)
    assert max(differences(wanted, run_onnx(out, prompt)).values()) < MOST
    fp16, int8 = (differences(wanted, run_onnx(out, prompt, s)) for s in ("_fp16", "_quantized"))
    largest = {name: float(wanted[name].abs().max()) for name in NAMES}
    for name in NAMES:
        assert MOST / 10 < fp16[name] < int8[name] < 0.1 * largest[name]
    sizes = [(out / "onnx" / f"vision_encoder{s}.onnx").stat().st_size for s in ("", "_fp16", "_quantized")]
    assert sizes[1] < 0.6 * sizes[0]
    assert sizes[2] < 0.8 * sizes[0]
    assert len(compared) == 3 * 4
    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["vision_config"]["image_size"]) == ("sam", 32)
    assert "mlp_dim" not in config["vision_config"], "there is no one width"
    assert json.loads((out / "preprocessor_config.json").read_text())["pad_size"]["height"] == 32


@pytest.mark.timeout(400)
def test_any_number_of_images_prompts_and_points_goes_to_onnx(padded, as_onnx):
    sam, (out, _) = padded.model, as_onnx
    first = probe(sam, SEED)
    shaped = [
        first,
        type(first)(first.pixels, first.points[:, :1, :1], first.labels[:, :1, :1]),
        type(first)(first.pixels, first.points.repeat(1, 1, 2, 1), first.labels.repeat(1, 1, 2)),
    ]
    for prompt in shaped:
        assert max(differences(answers(sam, prompt), run_onnx(out, prompt)).values()) < MOST
    second = probe(sam, SEED + 1)
    both = type(first)(*(torch.cat(pair) for pair in zip(vars(first).values(), vars(second).values(), strict=True)))
    found = run_onnx(out, both)
    for row, prompt in enumerate((first, second)):
        one = {name: values[row : row + 1] for name, values in found.items()}
        assert max(differences(answers(sam, prompt), one).values()) < MOST


@pytest.mark.parametrize("to", ["hf", "sam"])
def test_widths_that_differ_are_refused_with_the_setting_that_would_do(mixed, tmp_path, capsys, to):
    assert command(["export", str(mixed), "--to", to, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "--set ranking=local" in said
    assert "--to onnx" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["hf", "sam"])
def test_an_attention_of_another_width_than_the_embedding_is_refused(tmp_path, to):
    sam = models.build_sam("nano")
    result = prunekit.prune(sam.image_encoder, ratio=0.5, roles=["embedding"], align=4)
    folder = save(Bundle(sam, result.plan, result.report, "sam:nano", part="image_encoder"), tmp_path / "in")
    with pytest.raises(ExportError, match=r"4 x 32 = 128, the embedding 64(.|\n)*--set ranking=local"):
        export(folder, to, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_the_scale_folded_the_outputs_are_off_and_nothing_is_written(same, tmp_path, monkeypatch):
    plain = lambda sam: {name: value.contiguous() for name, value in sam.state_dict().items()}  # noqa: E731
    monkeypatch.setattr(sam_format, "rescaled_state", plain)
    with pytest.raises(ExportError, match="image_embeddings"):
        export(same, "sam", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_file_that_onnx_cannot_hold_is_refused(same, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_format, "LARGEST", 1000)
    with pytest.raises(ExportError, match="--ratio"):
        export(same, "onnx", tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("library", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_library_is_named_with_its_extra(same, tmp_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ExportError, match=rf"{library} (.|\n)*prunekit-sam\[onnx\]"):
        export(same, "onnx", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_every_model_names_formats_that_there_are():
    for entry in plugin.models.values():
        assert set(entry.formats) == set(plugin.formats) == {"hf", "sam", "onnx"}


@given(st.integers(1, 2000), st.integers(1, 8000))
def test_a_ratio_gives_its_width_back(embedding, mlp):
    assert int(embedding * mlp_ratio(embedding, mlp)) == mlp


def test_loading_imports_nothing_that_traces_scores_trains_or_exports(mixed):
    code = (
        "import sys, prunekit; prunekit.load(sys.argv[1])\n"
        "heavy = {'prunekit.api', 'prunekit.scorers', 'prunekit.tracing.recorder', 'prunekit.runs.runner',\n"
        "         'prunekit.runs.distillation', 'prunekit.selection', 'matplotlib', 'transformers', 'onnx', 'timm',\n"
        "         'accelerate', 'pycocotools'}\n"
        "assert not heavy & set(sys.modules), sorted(heavy & set(sys.modules))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(mixed)], check=True, timeout=100)
