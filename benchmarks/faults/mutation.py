"""Files with something else in them: other bytes, other values at any place of JSON, by a seed."""

from __future__ import annotations

import json
import math

VALUES = [None, -1, 10**20, 1.5, "x", "", [], {}, True, math.nan, math.inf, "../../etc/passwd", [[]], {"a": [1]}]
DEEP = "[" * 100_000


def places(value, at=()):
    """Where there is a value, as keys from the root; of lists the first three."""
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*at, key))


def with_another_value(text: str, draw) -> str:
    """JSON with one value replaced or left out; now and then brackets without end."""
    if draw.random() < 0.02:
        return DEEP
    told = json.loads(text)
    at = draw.choice(list(places(told)))
    holder = told
    for key in at[:-1]:
        holder = holder[key]
    if draw.random() < 0.2 and isinstance(holder, dict):
        del holder[at[-1]]
    else:
        holder[at[-1]] = draw.choice(VALUES)
    return json.dumps(told)


def with_other_bytes(data: bytes, draw) -> bytes:
    """A bit flipped, an end cut off, a piece twice, zeros in the middle, or noise alone."""
    made = bytearray(data)
    place = draw.randrange(len(made))
    way = draw.choice(["flip", "cut", "twice", "zeros", "noise"])
    if way == "flip":
        made[place] ^= 1 << draw.randrange(8)
    elif way == "cut":
        del made[place:]
    elif way == "twice":
        made[place:place] = made[place : place + 100]
    elif way == "zeros":
        made[place : place + 50] = bytes(len(made[place : place + 50]))
    return bytes(made) if way != "noise" else draw.randbytes(draw.randrange(200))
