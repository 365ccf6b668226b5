"""Small files that read like rooms: the sizes that the house keeps to."""

import ast
from pathlib import Path
from statistics import median

import prunekit

PLUGINS = Path(__file__).parents[2] / "plugins"
ROOTS = (Path(prunekit.__file__).parent, PLUGINS / "sam" / "prunekit_sam", PLUGINS / "hf" / "prunekit_hf")
FILES = [file for root in ROOTS for file in root.rglob("*.py") if file.read_text().strip()]
FILE, FUNCTION, LONGEST = 90, 22, 60


def functions():
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield node.end_lineno - node.lineno + 1, f"{file.name}: {node.name}"


def test_half_of_the_files_are_short():
    assert median(len(file.read_text().splitlines()) for file in FILES) <= FILE


def test_nine_of_ten_functions_are_short_and_none_is_long():
    found = sorted(functions())
    assert found[int(0.9 * len(found))][0] <= FUNCTION
    assert [name for length, name in found if length > LONGEST] == []
