"""Which coordinates of which parameters live and die together."""

from prunekit.coupling.groups import Frozen, Group, Member, Tap, Tie

__all__ = ["Frozen", "Group", "Member", "Tap", "Tie"]
