from __future__ import annotations

from collections import UserDict
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from prunekit.errors import InputError
from prunekit.inputs import Inputs, Sample, as_samples, generated, infer, natural_images, normalise, tensors_in


def only(inputs: Inputs) -> torch.Tensor:
    (tensor,) = tensors_in(inputs)
    return tensor


class TestNormalise:
    def test_tensor_tuple_and_mapping(self):
        x, y = torch.zeros(1, 3), torch.zeros(1, 4)
        assert normalise(x).args == (x,)
        assert normalise((x, y)).args == (x, y)
        assert normalise([x, y]).args == (x, y)
        assert normalise({"x": x}).kwargs == {"x": x}
        assert normalise(UserDict(x=x)).kwargs == {"x": x}
        assert normalise(Inputs((x,))).args == (x,)

    @pytest.mark.parametrize("bad", [None, 3, (), {}, "image", {1: torch.zeros(1)}])
    def test_anything_else_is_refused(self, bad):
        with pytest.raises(InputError, match="example_inputs"):
            normalise(bad)


class Says(nn.Module):
    """A model that says what it is told to say; its forward must never be called by infer."""

    def __init__(self, stem: nn.Module, **attributes):
        super().__init__()
        self.stem = stem
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, **_):
        raise AssertionError("infer must not run the model")


class TestInfer:
    def test_config_of_published_weights(self):
        model = Says(nn.Conv2d(3, 4, 3), pretrained_cfg={"input_size": (3, 96, 64), "first_conv": "stem"})
        assert only(infer(model)).shape == (1, 3, 96, 64)

    def test_the_instance_outweighs_its_config(self):
        model = Says(nn.Conv2d(1, 4, 3), default_cfg={"input_size": (3, 224, 224), "first_conv": "stem"})
        model.stem.img_size = (32, 48)
        assert only(infer(model)).shape == (1, 1, 32, 48)

    def test_space_to_depth_stem_keeps_the_channels(self):
        model = Says(nn.Conv2d(48, 4, 3), default_cfg={"input_size": (3, 224, 224), "first_conv": "stem"})
        assert only(infer(model)).shape == (1, 3, 224, 224)

    def test_image_config(self):
        config = SimpleNamespace(num_channels=1, image_size={"height": 30, "width": 40})
        model = Says(nn.Conv2d(1, 4, 3), config=config, main_input_name="pixel_values")
        inputs = infer(model)
        assert list(inputs.kwargs) == ["pixel_values"]
        assert only(inputs).shape == (1, 1, 30, 40)

    def test_nested_image_config_and_video(self):
        config = SimpleNamespace(inner=SimpleNamespace(image_size=20, num_channels=3), num_frames=4)
        model = Says(nn.Identity(), config=config, main_input_name="pixel_values")
        assert only(infer(model)).shape == (1, 4, 3, 20, 20)

    def test_text_config(self):
        config = SimpleNamespace(vocab_size=11, main_input_name="input_ids")
        tokens = only(infer(Says(nn.Identity(), config=config)))
        assert tokens.shape == (1, 16)
        assert tokens.dtype == torch.int64
        assert 0 <= tokens.min() <= tokens.max() < 11

    @pytest.mark.parametrize(
        ("name", "settings", "shape"),
        [
            ("input_values", {}, (1, 16_000)),
            ("input_values", {"num_mel_bins": 8, "max_length": 10}, (1, 10, 8)),
            ("input_features", {"num_mel_bins": 8, "max_source_positions": 15}, (1, 8, 30)),
        ],
    )
    def test_sound_configs(self, name, settings, shape):
        model = Says(nn.Identity(), config=SimpleNamespace(**settings), main_input_name=name)
        assert only(infer(model)).shape == shape

    def test_image_size_attribute_takes_channels_of_the_first_convolution(self):
        assert only(infer(Says(nn.Conv2d(2, 4, 3), img_size=40))).shape == (1, 2, 40, 40)

    @pytest.mark.parametrize(
        ("stem", "shape"),
        [
            (nn.Conv2d(5, 2, 1), (1, 5, 224, 224)),
            (nn.Conv1d(5, 2, 1), (1, 5, 224)),
            (nn.Embedding(7, 2), (1, 16)),
            (nn.Linear(9, 2), (1, 9)),
        ],
    )
    def test_first_layer(self, stem, shape):
        assert only(infer(nn.Sequential(nn.ReLU(), stem))).shape == shape

    def test_type_of_the_weights_and_a_notice(self, caplog):
        x = only(infer(nn.Sequential(nn.Linear(4, 2)).half()))
        assert x.dtype == torch.float16
        assert "(1, 4)" in caplog.text
        assert "Linear '0'" in caplog.text

    def test_sizes_that_the_model_states_are_no_warning(self, caplog):
        caplog.set_level("INFO")
        infer(Says(nn.Conv2d(3, 4, 3), pretrained_cfg={"input_size": (3, 96, 64), "first_conv": "stem"}))
        assert [record.levelname for record in caplog.records] == ["INFO"]

    def test_a_meta_model_gets_real_inputs_even_inside_a_meta_context(self):
        with torch.device("meta"):
            x = only(infer(nn.Linear(4, 2)))
        assert x.device.type == "cpu"

    def test_nothing_said(self):
        with pytest.raises(InputError, match="pass example_inputs"):
            infer(nn.Sequential(nn.ReLU()))


class TestGenerated:
    def test_images_have_the_spectrum_of_natural_scenes(self):
        image = natural_images((1, 3, 128, 128), torch.Generator().manual_seed(0))
        assert image.mean().abs() < 1e-5
        assert abs(float(image.std()) - 1) < 1e-3
        power = torch.fft.rfft2(image).abs().square().mean((0, 1))
        radius = torch.hypot(torch.fft.fftfreq(128)[:, None], torch.fft.rfftfreq(128)[None])
        band = (radius > 0.02) & (radius < 0.4)
        x, y = radius[band].log(), power[band].log()
        slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
        assert abs(float(slope) + 2) < 0.15  # amplitude 1/f is power 1/f^2

    def test_colour_channels_correlate(self):
        image = natural_images((1, 3, 64, 64), torch.Generator().manual_seed(0))
        assert torch.corrcoef(image[0].flatten(1)).min() > 0.7

    def test_each_kind_of_argument(self):
        example = Inputs(
            (torch.zeros(2, 3, 16, 16),),
            {
                "tokens": torch.tensor([[3, 9], [4, 5]]),
                "flag": torch.tensor([[True], [False]]),
                "values": torch.tensor([[4.0, 6.0], [4.0, 6.0]]),
                "mask": torch.ones(2, 5),
                "name": "x",
            },
        )
        many = generated(example, 200, 0)
        one = many[0]
        assert one.args[0].shape == (1, 3, 16, 16)
        assert one.args[0].std() > 0.9
        assert one.kwargs["name"] == "x"
        assert torch.equal(one.kwargs["flag"], torch.tensor([[True]]))
        assert torch.equal(one.kwargs["mask"], torch.ones(1, 5))
        tokens = torch.cat([inputs.kwargs["tokens"] for inputs in many])
        assert sorted(set(tokens.flatten().tolist())) == [3, 4, 5, 6, 7, 8, 9]
        values = torch.cat([inputs.kwargs["values"] for inputs in many])
        assert abs(float(values.mean()) - 5) < 0.3
        assert abs(float(values.std()) - 1) < 0.2

    def test_a_constant_main_input_is_a_placeholder(self):
        (one,) = generated(Inputs((torch.zeros(1, 50),)), 1, 0)
        assert one.args[0].std() > 0.5

    def test_determined_by_the_seed_and_the_global_rng_is_untouched(self):
        example = Inputs((torch.zeros(1, 3, 8, 8),))
        before = torch.get_rng_state()
        first, again, other = (generated(example, 2, seed) for seed in (0, 0, 1))
        assert torch.equal(before, torch.get_rng_state())
        assert torch.equal(first[1].args[0], again[1].args[0])
        assert not torch.equal(first[0].args[0], first[1].args[0])
        assert not torch.equal(first[0].args[0], other[0].args[0])

    def test_zero_is_refused(self):
        with pytest.raises(InputError):
            generated(Inputs((torch.zeros(1),)), 0)


class Items(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return torch.full((3, 4, 4), float(index)), index  # never raises IndexError


class TestSamples:
    image = Inputs((torch.zeros(2, 3, 4, 4),))

    def test_a_loader_of_pairs_is_split(self):
        images, labels = torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 3, 4, 4), torch.arange(5)
        samples = list(as_samples(DataLoader(TensorDataset(images, labels), batch_size=2), self.image))
        assert [int(s.target) for s in samples] == [0, 1, 2, 3, 4]
        assert all(only(s.inputs).shape == (1, 3, 4, 4) for s in samples)
        assert [float(only(s.inputs)[0, 0, 0, 0]) for s in samples] == [0, 1, 2, 3, 4]

    def test_limit_reads_no_more_than_it_needs(self):
        read = []

        def batches():
            for index in range(10):
                read.append(index)
                yield torch.zeros(2, 3, 4, 4)

        assert len(list(as_samples(batches(), self.image, limit=3))) == 3
        assert read == [0, 1]

    def test_a_dataset_gains_the_batch_axis(self):
        samples = list(as_samples(Items(), self.image))
        assert [s.target.tolist() for s in samples] == [[0], [1], [2]]
        assert only(samples[0].inputs).shape == (1, 3, 4, 4)

    def test_mappings_with_labels(self):
        like = Inputs((), {"ids": torch.zeros(1, 4, dtype=torch.long), "flag": True})
        batch = {"ids": torch.arange(8).reshape(2, 4), "labels": torch.tensor([5, 6]), "index": torch.tensor([0, 1])}
        samples = list(as_samples([batch], like))
        assert [s.target.tolist() for s in samples] == [[5], [6]]
        assert samples[1].inputs.kwargs["ids"].tolist() == [[4, 5, 6, 7]]
        assert set(samples[1].inputs.kwargs) == {"ids", "flag"}

    def test_tuples_that_match_the_arity_are_inputs(self):
        like = Inputs((torch.zeros(1, 2), torch.zeros(1, 3)))
        pair = (torch.zeros(2, 2), torch.ones(2, 3))
        assert [s.target for s in as_samples([pair], like)] == [None, None]
        assert [int(s.target) for s in as_samples([(*pair, torch.tensor([7, 8]))], like)] == [7, 8]
        assert [int(s.target) for s in as_samples([(pair, torch.tensor([7, 8]))], like)] == [7, 8]

    def test_one_tensor_a_keyword_model_and_ready_samples(self):
        assert len(list(as_samples(torch.zeros(3, 3, 4, 4), self.image))) == 3
        keyword = Inputs((), {"pixels": torch.zeros(1, 3, 4, 4)})
        (sample,) = as_samples([(torch.ones(3, 4, 4), 2)], keyword)
        assert sample.inputs.kwargs["pixels"].shape == (1, 3, 4, 4)
        ready = Sample(Inputs((torch.zeros(7),)))
        assert list(as_samples([ready], self.image)) == [ready]

    def test_one_record_an_image_is_split(self):
        records = [{"boxes": torch.zeros(2, 4)}, {"boxes": torch.zeros(5, 4)}]
        samples = list(as_samples([(torch.zeros(2, 3, 4, 4), records)], self.image))
        assert [s.target[0]["boxes"].shape[0] for s in samples] == [2, 5]

    def test_floats_take_the_type_of_the_example(self):
        like = Inputs((torch.zeros(1, 2, dtype=torch.float16),))
        (sample,) = as_samples([torch.zeros(1, 2)], like)
        assert only(sample.inputs).dtype == torch.float16

    @pytest.mark.parametrize(
        ("item", "message"),
        [
            (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "uint8"),
            (torch.zeros(4, 4), "shape"),
            ("cat.png", "does not match"),
            ({"x": torch.zeros(1, 3, 4, 4)}, "does not match"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, item, message):
        with pytest.raises(InputError, match=message):
            list(as_samples([item], self.image))

    def test_missing_key_and_no_data(self):
        with pytest.raises(InputError, match="'ids' is missing"):
            list(as_samples([{"text": 1}], Inputs((), {"ids": torch.zeros(1, 2)})))
        with pytest.raises(InputError, match="no sample"):
            list(as_samples([], self.image))
        with pytest.raises(InputError, match="iterated"):
            list(as_samples(3, self.image))
