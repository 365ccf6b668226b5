"""Rules of operators that plug-ins bring, looked up when a trace holds an operator that nobody here knows."""

from __future__ import annotations

from prunekit.coupling.structure import Structure, couple
from prunekit.graph.nodes import Trace
from prunekit.inputs import Inputs
from prunekit.operators import Table
from prunekit.plugins.discovery import discover
from prunekit.roles import ROLES


def coupled(trace: Trace, inputs: Inputs, table: Table, *, free_outputs: bool = False) -> Structure:
    """The structure of a trace, by the rules of ``table``, and those of plug-ins where these do not suffice.

    Plug-ins are loaded for that only: tracing a model of torch's own operators waits for none of them. Their roles are
    told before prunekit's own.
    """
    found = couple(trace, inputs, table, free_outputs=free_outputs)
    if not found.unknown:
        return found
    plugins = discover()
    wider = table.with_(operator for plugin in plugins for operator in plugin.operators)
    if wider is table:
        return found
    roles = (*(role for plugin in plugins for role in plugin.roles), *ROLES)
    return couple(trace, inputs, wider, roles, free_outputs=free_outputs)
