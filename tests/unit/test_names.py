"""One word for one thing: no module bears a function's name, and no import changes what a public name is."""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from support.walls import modules

import prunekit

PLUGINS = Path(__file__).parents[2] / "plugins"
ROOTS = (Path(prunekit.__file__).parent, PLUGINS / "sam" / "prunekit_sam", PLUGINS / "hf" / "prunekit_hf")
# Words that are said twice on purpose
TWICE = {
    "prune": "the call, and the command of its name",
    "compare": "the call, and the command of its name",
    "export": "the call, and the command of its name",
    "evaluate": "the command, and what it does for whole models",
    "main": "what runs a script",
    "run": "a recipe, and the command line: both are the field's word",
}


def defined(*kinds):
    """Top-level names of the given syntax by the modules that define them."""
    found = defaultdict(list)
    for root in ROOTS:
        for module, file in modules(root).items():
            for node in ast.parse(file.read_text()).body:
                if isinstance(node, kinds):
                    found[node.name].append(module)
    return found


def test_no_module_bears_the_name_of_a_public_function():
    functions = {name for name in defined(ast.FunctionDef) if not name.startswith("_")}
    named = [module for root in ROOTS for module in modules(root) if module.rpartition(".")[2] in functions]
    assert named == []


def test_no_name_is_defined_twice():
    twice = {name: where for name, where in defined(ast.FunctionDef, ast.ClassDef).items() if len(where) > 1}
    assert {name: where for name, where in twice.items() if name not in TWICE} == {}
    assert TWICE.keys() <= twice.keys(), "an exception that is none any more"


WALK = """
import importlib, os, pkgutil, sys, torch
backwards = os.fork() == 0  # torch takes seconds to import, once for both; of ours nothing is imported yet
import prunekit
assert type(prunekit).__name__ == "module"
public = {} if backwards else {name: getattr(prunekit, name) for name in prunekit.__all__}
names = [i.name for i in pkgutil.walk_packages(prunekit.__path__, "prunekit.") if not i.name.endswith("__main__")]
for name in sorted(names, reverse=backwards):
    importlib.import_module(name)
assert len(names) > 200, len(names)
for name in prunekit.__all__:
    value = getattr(prunekit, name)
    assert type(value).__name__ != "module", (name, backwards)
    assert public.get(name, value) is value, (name, backwards)
sys.exit(0 if backwards else os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_no_import_changes_what_a_public_name_is():
    """After names were asked for, and before, in the other order."""
    done = subprocess.run([sys.executable, "-c", WALK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
