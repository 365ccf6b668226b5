import json

import torch
from prunekit_sam.decoding import ASKED, mask_logits, with_prompts
from prunekit_sam.models import build_sam, nano
from prunekit_sam.promptable import decode
from prunekit_sam.prompts import Prompts
from prunekit_sam.training import SceneExamples, TeacherSettings, on_scenes, rate_at, train
from safetensors.torch import load_file

TINY = TeacherSettings(dense_steps=1, steps=2, batch=2, queries=3, prompts=2)


def test_the_batched_decoder_is_segment_anythings():
    sam = build_sam("nano")
    torch.manual_seed(0)
    embedding, points = torch.randn(2, 128, 16, 16), torch.rand(2, 3, 2) * 128
    boxes = torch.tensor([[[8.0, 8, 60, 70]], [[20.0, 30, 100, 90]]])
    with torch.no_grad():
        logits, _ = with_prompts(sam, embedding, points, boxes)
        for image in range(2):
            one = embedding[image : image + 1]
            at, _ = decode(sam, one, Prompts(points[image][:, None].numpy(), None), (128, 128))
            torch.testing.assert_close(logits[image, :3, :1], at, rtol=1e-4, atol=1e-4)
            box, _ = decode(sam, one, Prompts(None, boxes[image].numpy()), (128, 128))
            torch.testing.assert_close(logits[image, 3:, :1], box, rtol=1e-4, atol=1e-4)


def test_prompts_of_a_loss_are_drawn_from_the_seed_alone():
    sam = build_sam("nano")
    embedding = torch.randn(2, 128, 16, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    first, again, other = (mask_logits(sam, embedding, seed) for seed in (3, 3, 4))
    assert first.shape == (2, 2 * ASKED, 4, 64, 64)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0, 0], first[0, 1])
    first.square().mean().backward()
    assert embedding.grad.abs().sum((1, 2, 3)).gt(0).all()


def test_rates():
    settings = TeacherSettings(dense_steps=500, steps=100, rate=1.0)
    assert rate_at(0, settings) == 0.01
    assert rate_at(499, settings) == 1
    assert rate_at(500, settings) == 1
    assert rate_at(550, settings) == 0.5
    assert rate_at(600, settings) == 0
    resumed = TeacherSettings(dense_steps=0, steps=1000, rate=1.0)
    assert rate_at(0, resumed) == 0.01
    assert 0.97 < rate_at(99, resumed) < 1


def trained(out, report):
    torch.manual_seed(TINY.seed)

    def examples(first, count):
        return SceneExamples(TINY, first, count)

    def scores(sam):
        return on_scenes(sam, 1)

    return train(nano(), out, TINY, examples, scores, report, every=1, workers=0)


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    lines = []
    whole = trained(tmp_path / "whole.safetensors", lines.append)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert set(json.loads(json.dumps(lines))[0]) == {"step", "seconds", "loss", "dense", "point", "box"}

    class Stop(Exception):
        pass

    def stop(line):
        if line["step"] == 2:
            raise Stop

    try:
        trained(tmp_path / "cut.safetensors", stop)
    except Stop:
        trained(tmp_path / "cut.safetensors", lines.append)
    assert lines[-1]["step"] == 3
    loaded = load_file(tmp_path / "cut.safetensors")
    assert all(torch.allclose(value, loaded[key], atol=1e-6) for key, value in whole.state_dict().items())
    nano().load_state_dict(loaded)
