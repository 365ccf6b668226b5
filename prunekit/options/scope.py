"""What goes: how much, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prunekit.errors import InputError, with_plain_fields
from prunekit.options.checks import check_bool, check_names, check_ratio, refuse
from prunekit.options.fields import said
from prunekit.options.shares import DEFAULT_RATIO, read_shares
from prunekit.options.types import Ratio
from prunekit.quantities.limits import Target, parse_target


@dataclass(frozen=True)
class Scope:
    """What goes. Raises InputError for shares and targets that cannot be."""

    ratio: Ratio | None = field(
        default=None,
        metadata=said(
            "share of the units of every group to remove, in [0, 1); or a mapping from roles, modules or globs to "
            "shares, the most specific of which counts. 0.5 where neither it nor a target is given.",
            flag="Share of units to remove, in [0, 1), or ROLE=SHARE,ROLE=SHARE. [default: 0.5]",
            read=read_shares,
        ),
    )
    target: Target | None = field(
        default=None,
        metadata=said(
            'limits instead of a ratio, e.g. ``"macs<=2.3G, params<=50%"``; the widest model that keeps them all. '
            "Quantities: params, macs, layer_macs, memory (bytes of parameters and buffers), activations (bytes at the "
            "fullest moment of a forward pass), kv_cache (bytes of the cache that it returns), latency (measured here; "
            "``latency[compiled]`` as torch.compile runs the model, ``latency[onnx]`` as onnxruntime does).",
            flag="Limits instead of a ratio: 'macs<=50%, params<=9.1M, latency<=15ms'.",
        ),
    )
    include: Sequence[str] | str | None = field(
        default=None,
        metadata=said(
            "globs over parameters, modules, roles and group names: every width that they write or read; one that "
            "matches nothing is an error.",
            flag="Glob over parameters, modules, roles; repeat.",
            repeats=True,
        ),
    )
    exclude: Sequence[str] | str | None = field(
        default=None,
        metadata=said(
            "globs over what to leave alone: of a layer the width that it writes. The one that it reads is its "
            "neighbour's and may shrink; ``NAME:in`` keeps that.",
            flag="Glob over what to leave alone, NAME:in for what it reads; repeat.",
            repeats=True,
        ),
    )
    roles: Sequence[str] | str | None = field(
        default=None,
        metadata=said(
            "prune only groups of these roles.", flag="Prune only groups of this role; repeat.", repeats=True
        ),
    )
    min_ratio: Ratio | None = field(
        default=None, metadata=said("the share that any group loses at least, as ``ratio`` is written.")
    )
    max_ratio: Ratio | None = field(
        default=None, metadata=said("the share that any group loses at most, as ``ratio`` is written.")
    )
    free_outputs: bool = field(
        default=False,
        metadata=said(
            "whether widths of what the model returns may shrink too, as those of a backbone's features; its outputs "
            "then have other shapes."
        ),
    )

    def __post_init__(self) -> None:
        with_plain_fields(self)
        if self.ratio is not None and self.target is not None:
            raise InputError("ratio and target both say how much goes", where="target", hint="give one of them")
        if self.target is not None:
            if not isinstance(self.target, (str, Mapping)):
                refuse("target", self.target, 'limits such as "macs<=2.3G, params<=50%", or a mapping')
            parse_target(self.target)
        for name in ("ratio", "min_ratio", "max_ratio"):
            check_ratio(name, getattr(self, name))
        for name in ("include", "exclude", "roles"):
            check_names(name, getattr(self, name))
        if hasattr(self.roles, "named_modules"):
            refuse("roles", self.roles, "the name of a role, such as mlp.hidden, or a list of them")
        check_bool("free_outputs", self.free_outputs)

    @property
    def share(self) -> Ratio:
        """The ratio, where no target is given."""
        return DEFAULT_RATIO if self.ratio is None else self.ratio
