"""The docs hold together: pages in the navigation, links that lead somewhere, a place for each public name and flag."""

import re
from pathlib import Path

import pytest

import prunekit
from benchmarks.cli_page import PATH, page
from prunekit.cli.command_table import COMMANDS, ready_command

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if path.parent.name != "examples"]
FILES = [*PAGES, *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md"))]


def anchors(path):
    """What the headings of a page are linked by."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def links(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", target)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(path):
    for target in links(path):
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), target


def test_every_page_is_in_the_navigation_once():
    yaml = pytest.importorskip("yaml")
    nav = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"]

    def leaves(entry):
        if isinstance(entry, str):
            return [entry]
        return [leaf for part in (entry.values() if isinstance(entry, dict) else entry) for leaf in leaves(part)]

    assert sorted(leaves(nav)) == [str(path.relative_to(DOCS)) for path in PAGES]


def test_every_public_name_is_in_the_python_reference():
    said = re.findall(r"^::: (\S+)$", (DOCS / "python.md").read_text(), re.M)
    values = {name: getattr(prunekit, name) for name in prunekit.__all__}
    assert sorted(said) == sorted(f"{value.__module__}.{value.__name__}" for value in values.values())


def test_the_command_line_page_is_what_the_command_says():
    assert PATH.read_text() == page(), "python -m benchmarks.cli_page"
    text = PATH.read_text()
    assert "## prunekit plugins new" in text
    for flag in (flag for p in ready_command("prune", COMMANDS["prune"]).params for flag in p.opts):
        assert flag in text or flag in ("-q", "-v", "--quiet", "--verbose", "--help"), flag
