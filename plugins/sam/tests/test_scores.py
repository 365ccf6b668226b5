import numpy as np
import pytest
from prunekit_sam.scores import Marks, boundaries, iou, means


def shapes(count, height, width, seed=0):
    """Random blobs, some of them touching the edge of the image."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    masks = []
    for _ in range(count):
        cy, cx, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(3, height / 2)
        hole = rng.uniform(0, r / 2)
        away = np.hypot(y - cy, x - cx)
        masks.append((away <= r) & (away >= hole))
    return np.array(masks)


def eroded_by_hand(mask, reach):
    """Pixels of which every neighbour within `reach`, in both directions, lies in the mask; outside is background."""
    height, width = mask.shape
    inner = np.zeros_like(mask)
    for y in range(reach, height - reach):
        for x in range(reach, width - reach):
            inner[y, x] = mask[y - reach : y + reach + 1, x - reach : x + reach + 1].all()
    return inner


@pytest.mark.parametrize(("size", "fraction"), [((60, 80), 0.02), ((61, 33), 0.08), ((20, 20), 0.001)])
def test_boundaries_against_a_loop(size, fraction):
    masks = shapes(6, *size)
    reach = max(1, round(fraction * float(np.hypot(*size))))
    assert masks.any()
    for mask, found in zip(masks, boundaries(masks, fraction), strict=True):
        assert np.array_equal(found, mask & ~eroded_by_hand(mask, reach))


def test_the_boundary_of_a_mask_that_fills_the_image_is_its_frame():
    full = np.ones((1, 30, 40), bool)  # diagonal 50, so one pixel
    expected = np.ones((30, 40), bool)
    expected[1:-1, 1:-1] = False
    assert np.array_equal(boundaries(full)[0], expected)


def test_boundary_iou_is_harder_than_iou_on_a_large_mask_that_is_off_by_a_little():
    true, near = np.zeros((2, 1, 100, 100), bool)
    true[0, 10:90, 10:90], near[0, 12:92, 10:90] = True, True
    assert iou(boundaries(near), boundaries(true))[0] < iou(near, true)[0] - 0.2


def test_empty_masks_are_defined():
    empty, full = np.zeros((1, 9, 9), bool), np.ones((1, 9, 9), bool)
    for score in (iou, lambda a, b: iou(boundaries(a), boundaries(b))):
        assert score(empty, empty)[0] == 1
        assert score(empty, full)[0] == score(full, empty)[0] == 0
        assert score(full, full)[0] == 1


def test_means_by_hand():
    one = Marks(np.array([1.0]), np.array([0.5]), np.array([0.5]))
    three = Marks(np.array([0.0, 0.0, 0.3]), np.array([0.0, 0.0, 0.0]), np.array([0.001, 0.029, 0.03]))
    figures = means([one, three])
    assert figures["miou"] == pytest.approx((1 + 0.1) / 2)
    assert figures["boundary_iou"] == pytest.approx(0.25)
    assert figures["mask_iou"] == pytest.approx(1.3 / 4)
    assert (figures["small_masks"], figures["medium_masks"], figures["large_masks"]) == (1, 1, 2)
    assert (figures["small"], figures["medium"], figures["large"]) == pytest.approx((0, 0, 0.65))


def test_a_size_without_masks_is_none():
    assert means([Marks(np.array([1.0]), np.array([1.0]), np.array([0.5]))])["small"] is None
