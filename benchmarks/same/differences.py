"""What of two results differs."""

from __future__ import annotations

Found = dict[str, str]  # what was looked at -> its digest; ``error`` alone where the item ended in one


def differences(before: Found | None, after: Found | None) -> list[str]:
    """One remark a difference; none where both are the same."""
    if before is None or after is None:
        return [f"no answer from {'the base' if before is None else 'this tree'}"]
    if "error" in before or "error" in after:
        same = before.get("error") == after.get("error")
        return [] if same else [f"{before.get('error', 'worked')} became {after.get('error', 'works')}"]
    return [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
