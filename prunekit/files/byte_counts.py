"""Numbers of bytes as people write them."""

from __future__ import annotations

import re

from prunekit.errors import as_plain, expect

BYTES = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZE = re.compile(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([KMG]?i?B)?\s*", re.IGNORECASE)


def as_bytes(name: str, value: object) -> int:
    """``value`` as a number of bytes: one, or a text such as ``"8GB"`` or ``"512 MiB"``. Raises InputError."""
    value = as_plain(value)
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    unit = (found[2] or "").lower() if found else ""
    number = float(found[1]) * BYTES[unit] if found and unit in BYTES else value
    fits = isinstance(number, (int, float)) and not isinstance(number, bool) and 1 <= number < 2.0**63
    expect(name, value, "a number of bytes, or a text such as '8GB'", fits=fits)
    return int(number)  # type: ignore[call-overload, no-any-return]
