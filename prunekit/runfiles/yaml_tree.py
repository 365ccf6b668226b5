"""YAML as a tree of texts with the lines they stand in. What a text means is for the keys to say.

PyYAML's composer is asked for nodes and no value is constructed: no tag can make an object, ``no`` is not False before
a key asks for a switch, and ``1e-4`` is not a text where a number is due.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunekit.errors import InputError
from prunekit.runfiles.spots import Spot

MOST_BYTES, DEEPEST = 1 << 20, 20  # more than any run says, and what a hostile file may cost
_NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True)
class Text:
    """A scalar as it is written; None where nothing is."""

    value: str | None
    spot: Spot


@dataclass(frozen=True)
class Several:
    """A list."""

    items: tuple[Node, ...]
    spot: Spot


@dataclass(frozen=True)
class Entries:
    """A mapping; ``spots`` are those of its keys."""

    values: Mapping[str, Node]
    spots: Mapping[str, Spot]
    spot: Spot


Node = Text | Several | Entries


def tree_in(path: Path, what: str = "a run", needs: str = "it needs a model at least: model: timm:resnet18") -> Entries:
    """The mapping that ``path`` holds; ``what`` that is and what it ``needs`` are for messages.

    Raises InputError, with the line, for what is no YAML or no mapping, for a key that stands there twice, and for
    tags, anchors and several documents, which no file of ours needs.
    """
    import yaml

    text = _text_in(path, what)
    try:
        _refuse_the_rest(yaml.parse(text, Loader=yaml.SafeLoader), path.name, what)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise InputError(
            f"this is no YAML: {error.problem or error.context}",
            where=str(Spot(path.name, line)),
            hint="write KEY: VALUE, one a line; quote a text that begins with one of *&!%@`[{",
        ) from error
    except yaml.YAMLError as error:
        raise InputError(f"this is no YAML: {str(error).splitlines()[0]}", where=path.name) from error
    if root is None:
        raise InputError("the file says nothing", where=path.name, hint=needs)
    tree = _node(root, path.name, "")
    if not isinstance(tree, Entries):
        raise InputError(f"{what} is a mapping", where=str(tree.spot), hint="write KEY: VALUE, one a line")
    return tree


def _text_in(path: Path, what: str) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path} is too large for {what}", hint=f"at most {MOST_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="give a YAML file; docs/run.md") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text", hint="give a YAML file; docs/run.md") from error


def _refuse_the_rest(events: Any, file: str, what: str) -> None:
    """Raises InputError for what YAML has and a run does not, before anything is built from it."""
    import yaml

    depth = documents = 0
    for event in events:
        spot = Spot(file, event.start_mark.line + 1)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise InputError("anchors and aliases are not read", where=str(spot), hint="write the value out")
        if getattr(event, "tag", None):
            raise InputError(
                f"the tag {event.tag!r} is not read", where=str(spot), hint="leave it out: keys know what they take"
            )
        documents += isinstance(event, yaml.DocumentStartEvent)
        if documents > 1:
            raise InputError(f"a file holds one {what[2:]}", where=str(spot), hint="leave out what follows ---")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise InputError("this is nested too deep", where=str(spot), hint=f"at most {DEEPEST} levels")


def _node(node: Any, file: str, key: str) -> Node:
    import yaml

    spot = Spot(file, node.start_mark.line + 1, key)
    if isinstance(node, yaml.ScalarNode):
        return Text(None if node.tag == _NULL else node.value, spot)
    if isinstance(node, yaml.SequenceNode):
        return Several(tuple(_node(each, file, f"{key}[{n}]") for n, each in enumerate(node.value)), spot)
    values: dict[str, Node] = {}
    spots: dict[str, Spot] = {}
    for name_node, value in node.value:
        at = Spot(file, name_node.start_mark.line + 1, key)
        if not isinstance(name_node, yaml.ScalarNode) or name_node.tag == _NULL:
            raise InputError("a key is a word", where=str(at), hint="write KEY: VALUE")
        name = name_node.value
        full = f"{key}.{name}" if key else name
        if name in values:
            raise InputError(
                f"{name} stands here again, after line {spots[name].line}",
                where=str(Spot(file, at.line, full)),
                hint="leave one of them out",
            )
        values[name], spots[name] = _node(value, file, full), Spot(file, at.line, full)
    return Entries(values, spots, spot)
