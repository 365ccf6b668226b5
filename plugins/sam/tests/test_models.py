import pytest
import torch
from prunekit_sam.models import NAMES, build_sam, load_checkpoint, nano
from safetensors.torch import save_file

from prunekit.errors import CheckpointError, RegistryError


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return {key: value.contiguous() for key, value in nano().state_dict().items()}


def test_names_and_a_near_miss():
    assert NAMES == ("vit_b", "vit_l", "vit_h", "nano", "tiny")
    with pytest.raises(RegistryError, match="did you mean"):
        build_sam("nanoo")


def test_nano_ships_with_weights():
    first, again = build_sam("nano"), build_sam("nano")
    assert not first.training
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    fresh = nano().state_dict()
    assert any(not torch.equal(value, fresh[key]) for key, value in first.state_dict().items())


def test_tiny_reads_256_px_and_brings_no_weights():
    torch.manual_seed(0)
    sam, again = build_sam("tiny"), build_sam("tiny")
    assert sam.image_encoder(torch.zeros(1, 3, 256, 256)).shape == (1, 128, 16, 16)
    assert not torch.equal(sam.image_encoder.blocks[0].attn.qkv.weight, again.image_encoder.blocks[0].attn.qkv.weight)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_checkpoints_load(tmp_path, state, suffix):
    path = tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded = build_sam("nano", path).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def _refused(path, match):
    model = nano()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=match) as caught:
        load_checkpoint(model, path)
    assert path.name in str(caught.value)
    assert "next:" in str(caught.value)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    return str(caught.value)


def test_a_missing_file(tmp_path):
    _refused(tmp_path / "gone.pth", "no checkpoint at")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file(tmp_path, state, suffix):
    path = tmp_path / f"cut{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[:5000])
    _refused(path, "cannot read")


def test_a_pickle_that_holds_more_than_tensors(tmp_path):
    torch.save(nano(), tmp_path / "whole.pth")
    _refused(tmp_path / "whole.pth", "cannot read")


def test_a_list_is_no_state_dict(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    _refused(tmp_path / "list.pth", "state dict")


def test_all_faults_in_one_message(tmp_path, state):
    wrong = dict(state)
    wrong["image_encoder.pos_embed"] = torch.zeros(1, 4, 4, 128)
    wrong["extra.weight"] = torch.zeros(1)
    del wrong["image_encoder.neck.0.weight"]
    torch.save(wrong, tmp_path / "wrong.pth")
    message = _refused(tmp_path / "wrong.pth", "does not fit Sam")
    assert "1 missing (image_encoder.neck.0.weight)" in message
    assert "1 unexpected (extra.weight)" in message
    assert "1 of another shape (image_encoder.pos_embed is (1, 4, 4, 128), the model has (1, 16, 16, 128))" in message
