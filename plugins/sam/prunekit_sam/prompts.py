"""What a model is asked: a prompt for every annotation of an image, by one of a few protocols."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunekit.errors import InputError

from .data import MaskedImage
from .scores import Masks

KINDS = ("point", "box", "points", "multimask", "multimask-own")


@dataclass(frozen=True)
class Protocol:
    """One way of asking.

    ``point`` is the annotation's own point and ``box`` its box, for one mask; ``points`` are ``count`` of them drawn
    inside the mask; ``multimask`` is the own point, for several masks of which the best by the truth counts, and
    ``multimask-own`` that of them which the model itself puts first.
    """

    name: str
    kind: str
    count: int = 1


@dataclass(frozen=True)
class Prompts:
    """(n, k, 2) positive points x, y, or (n, 4) boxes x0, y0, x1, y1, in pixels of the image; the other is None."""

    points: NDArray[np.float32] | None
    boxes: NDArray[np.float32] | None
    multimask: bool = False

    def __len__(self) -> int:
        given = self.points if self.points is not None else self.boxes
        return 0 if given is None else len(given)


def parsed(text: str) -> tuple[Protocol, ...]:
    """``point,box,points:3,multimask`` as protocols. Raises InputError."""
    found: dict[str, Protocol] = {}
    for name in (part.strip() for part in text.split(",")):
        kind, colon, number = name.partition(":")
        counts = kind == "points"
        if kind not in KINDS or bool(colon) != counts or (counts and not (number.isdecimal() and int(number) > 0)):
            raise InputError(f"unknown prompt {name!r}", hint="point, box, points:3, multimask, multimask-own")
        found[name] = Protocol(name, kind, int(number) if counts else 1)
    return tuple(found.values())


def ask(protocol: Protocol, sample: MaskedImage, seed: int = 0) -> Prompts:
    """The prompts for the annotations of ``sample``; its masks must not be empty where points are drawn inside."""
    if protocol.kind == "box":
        return Prompts(None, sample.boxes)
    if protocol.kind == "points":
        assert sample.masks is not None
        return Prompts(drawn(sample.name, sample.masks, protocol.count, seed), None)
    return Prompts(sample.points[:, None], None, protocol.kind.startswith("multimask"))


def drawn(name: str, masks: Masks, count: int, seed: int) -> NDArray[np.float32]:
    """(n, count, 2) pixels x, y of (n, H, W) masks, drawn evenly; again only where a mask has fewer than ``count``.

    The draw depends on ``seed``, the image's ``name`` and the place of the mask, not on what was drawn before.
    """
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    rows = []
    for index, mask in enumerate(masks):
        y, x = np.nonzero(mask)
        chosen = np.random.default_rng([seed, key, index]).choice(len(x), count, replace=len(x) < count)
        rows.append(np.stack([x[chosen], y[chosen]], 1))
    return np.array(rows, np.float32).reshape(-1, count, 2)
