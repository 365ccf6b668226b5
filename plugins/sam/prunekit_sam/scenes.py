"""Generated scenes: textured, shaded, occluding objects with exact masks. Free of any licence, numpy only.

Every scene is a function of `(seed, index, size)`. The segments of a scene are disjoint: what is visible of each
object, of each inner part of an object, and of each region of the background.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Masks = NDArray[np.bool_]
Field = NDArray[np.float32]
Shape = Callable[[np.random.Generator, Field, Field], Masks]

MIN_AREA = 0.012  # of the image; smaller visible segments are not annotated
_BANK = 24  # textures in the bank


@dataclass(frozen=True)
class Scene:
    """`image` is HWC uint8; `masks` is (n, H, W) bool, pairwise disjoint, none of them empty."""

    image: Image
    masks: Masks


def scene(seed: int, index: int, size: int = 128) -> Scene:
    """The scene number `index` of the stream `seed`, `size` x `size` pixels. Equal arguments give equal bytes."""
    rng = np.random.default_rng((seed, index, size))
    y, x = np.meshgrid(*[np.linspace(-1, 1, size, dtype=np.float32)] * 2, indexing="ij")
    labels = _background(rng, x, y)
    colours = _palette(rng)
    canvas = np.zeros((size, size, 3), np.float32)
    for label in range(int(labels.max()) + 1):
        region = labels == label
        canvas[region] = _surface(rng, colours(), x, y)[region]
    for _ in range(int(rng.integers(2, 6))):
        _add_object(rng, canvas, labels, colours, x, y)
    return Scene(_expose(rng, canvas, x, y), _visible(labels))


def _add_object(
    rng: np.random.Generator,
    canvas: Field,
    labels: NDArray[np.int16],
    colours: Callable[[], Field],
    x: Field,
    y: Field,
) -> None:
    """Paint one object, in place, over what is there; sometimes with a shadow and with an inner part of its own."""
    u, v, scale = _frame(rng, x, y)
    shape = _SHAPES[int(rng.choice(len(_SHAPES), p=_SHARES))]
    mask = shape(rng, u, v)
    if rng.random() < 0.25:
        shift = tuple(int(s) for s in rng.integers(1, max(2, len(x) // 24), 2))
        canvas[np.roll(mask, shift, (0, 1))] *= np.float32(rng.uniform(0.6, 0.85))
    paint = _surface(rng, colours(), x, y)
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        lit = 1 + rng.uniform(0.1, 0.35) * np.clip(u * np.cos(angle) + v * np.sin(angle), -1, 1)
        paint = paint * lit[..., None].astype(np.float32)
    canvas[mask] = paint[mask]
    labels[mask] = labels.max() + 1
    if scale > 0.3 and rng.random() < 0.35:
        du, dv = rng.uniform(-0.3, 0.3, 2).astype(np.float32)
        part = mask & _ellipse(rng, (u - du) * 2.2, (v - dv) * 2.2)
        canvas[part] = _surface(rng, colours(), x, y)[part]
        labels[part] = labels.max() + 1


def _frame(rng: np.random.Generator, x: Field, y: Field) -> tuple[Field, Field, float]:
    """Coordinates of a rotated, scaled frame somewhere in the image; the object fills about the unit disc of it."""
    cx, cy = rng.uniform(-0.9, 0.9, 2)
    scale = float(np.exp(rng.uniform(np.log(0.28), np.log(0.95))))
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(angle) / scale), np.float32(np.sin(angle) / scale)
    dx, dy = x - np.float32(cx), y - np.float32(cy)
    return cos * dx + sin * dy, cos * dy - sin * dx, scale


# Shapes: boolean masks over frame coordinates.


def _ellipse(rng: np.random.Generator, u: Field, v: Field) -> Masks:
    return np.asarray(u**2 + (v / np.float32(rng.uniform(0.45, 1))) ** 2 < 1)


def _rectangle(rng: np.random.Generator, u: Field, v: Field) -> Masks:
    return (np.abs(u) < 0.9) & (np.abs(v) < rng.uniform(0.35, 0.9))


def _bar(rng: np.random.Generator, u: Field, v: Field) -> Masks:
    return (np.abs(u) < 1.3) & (np.abs(v + 0.15 * u**2) < rng.uniform(0.12, 0.3))


def _polygon(rng: np.random.Generator, u: Field, v: Field) -> Masks:
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))))
    inside = np.ones(u.shape, bool)
    for angle in angles:
        inside &= u * np.float32(np.cos(angle)) + v * np.float32(np.sin(angle)) < 0.65
    return inside & (u**2 + v**2 < 1.4)


def _blob(rng: np.random.Generator, u: Field, v: Field) -> Masks:
    theta, radius = np.arctan2(v, u), np.full(u.shape, 0.8, np.float32)
    for wave in range(2, 6):
        radius += np.float32(rng.normal(0, 0.28 / wave)) * np.cos(wave * theta + np.float32(rng.uniform(0, 6.3)))
    return np.asarray(u**2 + v**2 < radius**2)


def _star(rng: np.random.Generator, u: Field, v: Field) -> Masks:
    points = int(rng.integers(3, 7))
    saw = np.abs(np.mod(np.arctan2(v, u) * np.float32(points / np.pi), 2) - 1)
    return np.asarray(np.sqrt(u**2 + v**2) < 0.35 + np.float32(rng.uniform(0.5, 0.9)) * saw)


def _ring(rng: np.random.Generator, u: Field, v: Field) -> Masks:
    radius = np.sqrt(u**2 + (v / np.float32(rng.uniform(0.6, 1))) ** 2)
    return (radius < 1) & (radius > rng.uniform(0.45, 0.7))


def _crescent(rng: np.random.Generator, u: Field, v: Field) -> Masks:
    shift = np.float32(rng.uniform(0.4, 0.8))
    return np.asarray((u**2 + v**2 < 1) & ((u - shift) ** 2 + v**2 > np.float32(rng.uniform(0.5, 0.9))))


def _cross(rng: np.random.Generator, u: Field, v: Field) -> Masks:
    """Two bars: a cross, an L or a T, by where they meet."""
    width = rng.uniform(0.16, 0.32)
    du, dv = (np.float32(s) for s in rng.choice([-0.7, 0.0, 0.7], 2))
    across = (np.abs(u) < 1) & (np.abs(v - dv) < width)
    return np.asarray(across | ((np.abs(v) < 1) & (np.abs(u - du) < width)))


_SHAPES: tuple[Shape, ...] = (_ellipse, _rectangle, _bar, _polygon, _blob, _star, _ring, _crescent, _cross)
_SHARES = np.array([2, 2, 3, 2, 3, 2, 2, 2, 2]) / 20


def _background(rng: np.random.Generator, x: Field, y: Field) -> NDArray[np.int16]:
    """One to three regions: halves of the image parted by wavy lines."""
    labels = np.zeros(x.shape, np.int16)
    for _ in range(int(rng.choice(3, p=[0.35, 0.45, 0.2]))):
        angle = rng.uniform(0, np.pi)
        u = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
        v = y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))
        wave = np.float32(rng.uniform(0, 0.15)) * np.sin(v * np.float32(rng.uniform(2, 6)))
        labels[u > np.float32(rng.uniform(-0.6, 0.6)) + wave] = labels.max() + 1
    return labels


# Colour, texture, light.


def _palette(rng: np.random.Generator) -> Callable[[], Field]:
    """A source of colours (3,) in [0, 1]: mostly drawn at large, sometimes close to one that the scene already has."""
    used: list[Field] = []

    def draw() -> Field:
        if used and rng.random() < 0.12:
            colour = used[int(rng.integers(len(used)))] + rng.normal(0, 0.09, 3).astype(np.float32)
        else:
            grey = rng.uniform(0.08, 0.92)
            colour = (grey + rng.uniform(0.05, 0.3) * rng.normal(0, 1, 3)).astype(np.float32)
        used.append(np.clip(colour, 0.03, 0.97))
        return used[-1]

    return draw


def _surface(rng: np.random.Generator, colour: Field, x: Field, y: Field) -> Field:
    """An (H, W, 3) paint: a colour, moved towards a second one by a random texture."""
    size = len(x)
    bank = _texture_bank(size)
    top, left = rng.integers(0, size, 2)
    field = bank[int(rng.integers(len(bank))), top : top + size, left : left + size]
    if rng.random() < 0.5:
        field = field.T
    kind = rng.random()
    if kind < 0.15:  # stripes, bent by the texture
        angle, pitch = rng.uniform(0, np.pi), rng.uniform(10, 45)
        phase = (x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))) * np.float32(pitch)
        field = np.sin(phase + np.float32(0.4) * field)
    elif kind < 0.25:  # spots
        field = np.where(field > 0.5, np.float32(1), np.float32(-0.6))
    amount = np.float32(rng.uniform(0.01, 0.11))
    direction = (1 + 0.5 * rng.normal(0, 1, 3)).astype(np.float32)
    return colour + amount * field[..., None] * direction


@lru_cache(maxsize=4)
def _texture_bank(size: int) -> Field:
    """(n, 2 size, 2 size) noise fields, spectra 1/f^0.5 to 1/f^2, mean 0, deviation 1. The same for every seed."""
    rng = np.random.default_rng(0)
    side = 2 * size
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    frequency = np.sqrt(rows**2 + columns**2)
    frequency[0, 0] = np.inf
    fields = []
    for slope in np.linspace(0.5, 2, _BANK):
        noise = np.fft.rfft2(rng.normal(size=(side, side)))
        field = np.fft.irfft2(noise * np.maximum(frequency, 2 / side) ** -slope, s=(side, side))
        fields.append(((field - field.mean()) / field.std()).astype(np.float32))
    return np.stack(fields)


def _expose(rng: np.random.Generator, canvas: Field, x: Field, y: Field) -> Image:
    """Light from one side, a slight blur in half of the scenes, sensor noise, then uint8."""
    gain_x, gain_y = rng.uniform(-0.2, 0.2, 2).astype(np.float32)
    canvas = canvas * (1 + gain_x * x + gain_y * y)[..., None]
    if rng.random() < 0.5:
        for axis in (0, 1):
            near = np.concatenate([canvas.take([0], axis), canvas, canvas.take([-1], axis)], axis)
            n = canvas.shape[axis]
            before, after = near.take(range(n), axis), near.take(range(2, n + 2), axis)
            canvas = np.asarray(0.25 * before + 0.5 * canvas + 0.25 * after, np.float32)
    canvas = canvas + rng.normal(0, 1, canvas.shape).astype(np.float32) * np.float32(rng.uniform(0, 0.02))
    return np.clip(canvas * 255, 0, 255).astype(np.uint8)


def _visible(labels: NDArray[np.int16]) -> Masks:
    counts = np.bincount(labels.ravel())
    kept = [label for label, count in enumerate(counts) if count >= MIN_AREA * labels.size]
    return np.stack([labels == label for label in kept])


# Prompts.


def depth(mask: Masks) -> NDArray[np.int16]:
    """How far inside the (H, W) mask each pixel lies, in pixels (octagonal distance; outside the image is outside)."""
    inside = np.pad(mask, 1)
    result = inside.astype(np.int16)
    corners = False
    while True:
        a = inside[:-2] & inside[1:-1] & inside[2:] if corners else inside[:-2] & inside[2:]
        b = a[:, :-2] & a[:, 1:-1] & a[:, 2:] if corners else inside[1:-1, :-2] & inside[1:-1, 2:] & a[:, 1:-1]
        inside = np.pad(b & inside[1:-1, 1:-1], 1)
        corners = not corners
        if not inside.any():
            return result[1:-1, 1:-1]
        result += inside


def point_inside(mask: Masks, rng: np.random.Generator | None = None) -> tuple[float, float]:
    """A point (x, y) of the non-empty mask: the deepest one, or with `rng` a random one that avoids the very border."""
    if rng is None:
        row, column = np.unravel_index(int(depth(mask).argmax()), mask.shape)
        return float(column), float(row)
    inner = mask.copy()
    inner[1:-1, 1:-1] &= mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    spots = np.flatnonzero(inner if inner.any() else mask)
    row, column = divmod(int(rng.choice(spots)), mask.shape[1])
    return float(column), float(row)


def bounding_box(
    mask: Masks, rng: np.random.Generator | None = None, jitter: float = 0.05
) -> tuple[float, float, float, float]:
    """The box (x0, y0, x1, y1) of the non-empty mask, pixel edges; with `rng`, every side moved, by about `jitter`."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)
    if rng is not None:
        sides = np.tile(box[2:] - box[:2], 2)
        height, width = mask.shape
        box = np.clip(box + rng.normal(0, jitter, 4) * sides, 0, [width, height, width, height])
    return float(box[0]), float(box[1]), float(box[2]), float(box[3])
