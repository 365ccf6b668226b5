"""What imports what, read out of the source: every import counts, also those for types and those inside functions."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import networkx


@dataclass(frozen=True)
class Import:
    """``name`` of ``module``, taken by ``by``; ``name`` is "" where the module itself is taken."""

    by: str
    module: str
    name: str


def modules(root: Path) -> dict[str, Path]:
    """The modules of the package in folder ``root``, by dotted name."""
    found = {}
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = file
    return found


def imports(root: Path) -> list[Import]:
    """Every import of a package's modules, relative ones written out."""
    found = []
    for by, file in modules(root).items():
        package = by if file.name == "__init__.py" else by.rpartition(".")[0]
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found += [Import(by, alias.name, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = package.rsplit(".", node.level - 1)[0] if node.level else ""
                module = ".".join(part for part in (base, node.module or "") if part)
                found += [Import(by, module, alias.name) for alias in node.names]
    return found


def graph(root: Path) -> networkx.DiGraph:
    """Which module of a package imports which; its own ``__init__``, which all share, left out."""
    known, found = modules(root), networkx.DiGraph()
    for each in imports(root):
        deeper = f"{each.module}.{each.name}"
        target = deeper if deeper in known else each.module
        if target in known and target != each.by and root.name not in (target, each.by):
            found.add_edge(each.by, target)
    return found


def circles(root: Path) -> list[list[str]]:
    """Modules that import each other in a circle, and rooms that do."""
    fine = graph(root)
    coarse = networkx.DiGraph((_room(a), _room(b)) for a, b in fine.edges if _room(a) != _room(b))
    both = [*networkx.strongly_connected_components(fine), *networkx.strongly_connected_components(coarse)]
    return [sorted(circle) for circle in both if len(circle) > 1]


def private(root: Path) -> list[Import]:
    """Imports of a name with an underscore out of another room."""
    return [
        each
        for each in imports(root)
        if each.module.startswith(f"{root.name}.")
        and _room(each.module) != _room(each.by)
        and any(part.startswith("_") and not part.startswith("__") for part in (*each.module.split("."), each.name))
    ]


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2])
