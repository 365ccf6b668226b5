"""A library of the kind of einops: functions that remember, by the sizes of what they are given, how to reshape it."""

import functools


@functools.lru_cache(256)
def _shapes(shape, heads):
    batch, places, features = shape
    return (batch, places, heads, features // heads), (batch, places, features)


def split(x, heads):
    """(B, N, D) as (B, heads, N, D / heads)."""
    return x.reshape(_shapes(tuple(x.shape), heads)[0]).transpose(1, 2)


def joined(x):
    """And back."""
    batch, heads, places, features = x.shape
    return x.transpose(1, 2).reshape(_shapes((batch, places, heads * features), heads)[1])
