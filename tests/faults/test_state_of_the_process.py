"""Two models in two threads, and pruning within the modes that a caller may be in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image
from prunekit_sam.sample import decode_image
from torch import nn

import prunekit
from prunekit.errors import DataError
from prunekit.runs.image_data import images

X = torch.ones(1, 3, 8, 8)


def net(width):
    generator = torch.Generator().manual_seed(width)
    model = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 4, 1)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def pruned(width, **asked):
    model = net(width)
    result = prunekit.prune(model, X, ratio=0.5, **{"scorer": "magnitude", **asked})
    return result.plan, {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one[0] == other[0] and all(torch.equal(value, other[1][name]) for name, value in one[1].items())


def test_two_models_in_two_threads_are_pruned_as_one_after_the_other():
    data = [torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(n)) for n in range(2)]
    asked = [{}, {"scorer": None}, {"scorer": "wanda", "compensate": "ridge"}, {"scorer": "activation"}]
    jobs = [(width, {"data": data, **options}) for width, options in zip((8, 12, 16, 20), asked, strict=True)]
    wanted, before = [pruned(width, **options) for width, options in jobs], dict(vars(nn.Module))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda job: pruned(job[0], **job[1]), jobs))
    assert vars(nn.Module) == before
    assert all(same(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("mode", [torch.no_grad(), torch.autocast("cpu", torch.bfloat16)], ids=["no_grad", "autocast"])
def test_within_other_modes_the_same_is_cut(mode):
    wanted = pruned(8)
    with mode:
        assert same(pruned(8), wanted)


def test_a_damaged_image_is_a_data_error_whatever_opens_images_in_this_process(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    open_image = Image.open

    def asks_for_a_codec(*given, **named):  # as a library does that looks for more decoders
        try:
            return open_image(*given, **named)
        except Image.UnidentifiedImageError:
            raise ModuleNotFoundError("No module named 'a_codec'") from None

    monkeypatch.setattr(Image, "open", asks_for_a_codec)
    with pytest.raises(DataError, match="cannot read the image a: not an image"):
        decode_image(b"no image", "a")
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    model.pretrained_cfg = {"input_size": (3, 8, 8)}
    with pytest.raises(DataError, match=r"a\.jpg"):
        images(model, tmp_path, "val", None, 0)
