"""Rules of operators that plug-ins bring, looked up when a trace holds an operator that nobody here knows."""

from __future__ import annotations

from typing import Any

from torch import nn

from prunekit.coupling.siblings import has_unread
from prunekit.coupling.structure import Structure, couple
from prunekit.graph.nodes import Trace
from prunekit.inputs import Inputs
from prunekit.operators import Table
from prunekit.plugins.discovery import discover
from prunekit.registry.homes import home_of
from prunekit.roles import ROLES


def coupled(model: nn.Module, trace: Trace, inputs: Inputs, table: Table, *, free_outputs: bool = False) -> Structure:
    """The structure of a trace, by the rules of ``table``, and those of plug-ins where these do not suffice.

    Plug-ins are loaded for that only: tracing a model of torch's own operators waits for none of them. Their roles are
    told before prunekit's own.
    """
    home = home_of(model)
    about: dict[str, Any] = {"free_outputs": free_outputs}
    if home is not None:
        about |= {"inner": home.inner, "alike": home.study(model).followers() if has_unread(trace) else ()}
    found = couple(trace, inputs, table, **about)
    if not found.unknown:
        return found
    plugins = discover()
    wider = table.with_(operator for plugin in plugins for operator in plugin.operators)
    if wider is table:
        return found
    roles = (*(role for plugin in plugins for role in plugin.roles), *ROLES)
    return couple(trace, inputs, wider, roles, **about)
