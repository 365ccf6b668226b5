import numpy as np
import pytest
from prunekit_sam.data import GeneratedScenes
from prunekit_sam.scenes import MIN_AREA, bounding_box, depth, point_inside, scene
from scipy.ndimage import distance_transform_edt


@pytest.mark.parametrize("size", [48, 128])
def test_scenes_are_functions_of_seed_and_index(size):
    first, again = scene(3, 5, size), scene(3, 5, size)
    assert first.image.shape == (size, size, 3)
    assert first.image.dtype == np.uint8
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.masks, again.masks)
    for other in (scene(3, 6, size), scene(4, 5, size)):
        assert not np.array_equal(first.image, other.image)


def test_masks_are_disjoint_and_not_tiny():
    for index in range(12):
        masks = scene(0, index, 64).masks
        assert masks.sum(0).max() == 1
        assert masks.sum((1, 2)).min() >= MIN_AREA * 64 * 64
        assert len(masks) >= 2


def test_masks_cut_where_the_picture_changes():
    """Exact masks: colours differ more across a segment's border than within segments."""
    across, within = [], []
    for index in range(12):
        made = scene(0, index, 128)
        step = np.abs(np.diff(made.image.astype(int), axis=1)).mean(-1)
        labels = (made.masks * np.arange(1, len(made.masks) + 1)[:, None, None]).sum(0)
        border = labels[:, 1:] != labels[:, :-1]
        across.append(step[border].mean())
        within.append(step[~border].mean())
    assert np.mean(across) > 3 * np.mean(within)


def test_depth_ranks_like_the_distance_transform():
    for index in range(4):
        for mask in scene(1, index, 64).masks:
            exact = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
            x, y = point_inside(mask)
            assert mask[int(y), int(x)]
            assert exact[int(y), int(x)] >= 0.7 * exact.max()
            assert ((depth(mask) > 0) == mask).all()


def test_random_points_and_jittered_boxes_stay_with_their_segment():
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 50), bool)
    mask[10:20, 5:35] = True
    assert bounding_box(mask) == (5, 10, 35, 20)
    for _ in range(20):
        x, y = point_inside(mask, rng)
        assert mask[int(y), int(x)]
        x0, y0, x1, y1 = bounding_box(mask, rng, 0.03)
        assert 0 <= x0 < x1 <= 50
        assert 0 <= y0 < y1 <= 40


def test_generated_scenes_are_a_sequence():
    data = GeneratedScenes(3, seed=9, size=48)
    assert len(data) == 3
    assert [sample.name for sample in data] == ["scene-9-0", "scene-9-1", "scene-9-2"]
    assert data[-1].name == data[2].name
    assert [sample.name for sample in data[:2]] == ["scene-9-0", "scene-9-1"]
    with pytest.raises(IndexError):
        data[3]
    sample = data[0]
    assert len(sample.points) == len(sample.boxes) == len(sample.masks)
