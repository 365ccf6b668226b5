"""The core knows no model: nothing under prunekit/ names, imports or tests for a class of a model library."""

import ast
import importlib
import inspect
import pkgutil
import re
import warnings
from functools import cache
from pathlib import Path

import pytest
import timm
import torchvision
import transformers
from torch import nn

import prunekit

ROOT = Path(prunekit.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LIBRARIES = ("timm", "torchvision", "transformers", "segment_anything", "diffusers", "mmseg", "mmdet")
# the one file that builds models by name: it may name the two libraries, and still none of their models
REGISTRY, NAMED_BY_REGISTRY = ROOT / "registry" / "sources.py", {"timm", "torchvision"}
OPERATORS = ROOT / "operators"  # operators are named by the library that registers them
SHORTEST = 5  # letters: shorter names, such as MLP, are words of every language
OWN = {"Stage"}  # a step of a recipe
# files of those packages that hold no family, and families named by a word that means something here
WORDS = {"aria", "auto", "helpers", "features", "registry", "layers", "factory", "align", "clip"}


@cache
def classes() -> frozenset[str]:
    """Names of the modules that the libraries define, less those that torch itself has."""
    found = {n for n in dir(transformers) if re.fullmatch(r"[A-Z]\w*(Model|For[A-Z]\w*|Config|PreTrainedModel)", n)}
    for package in (timm.models, torchvision.models):
        for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of the old places of files
                members = vars(importlib.import_module(info.name)).items()
            found |= {n for n, v in members if inspect.isclass(v) and issubclass(v, nn.Module)}
    own = {n for n in dir(nn) if inspect.isclass(getattr(nn, n))}
    return frozenset(n for n in found - own - OWN if len(n) >= SHORTEST)


@cache
def families() -> frozenset[str]:
    """Names of model families, as the libraries spell the files that hold them."""
    packages = (timm.models, torchvision.models, transformers.models)
    names = {info.name for package in packages for info in pkgutil.iter_modules(package.__path__)}
    return frozenset(n for n in names if not n.startswith("_") and n not in WORDS)


def words(path: Path) -> set[str]:
    """Identifiers and the words of strings of a file, docstrings left out: prose may tell what a rule is good for."""
    tree = ast.parse(path.read_text())
    prose = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            found |= set(re.findall(r"\w+", node.value))
        for field in ("id", "attr", "name", "arg", "module"):
            value = getattr(node, field, None)
            found |= set(value.split(".")) if isinstance(value, str) else set()
    return found


def test_the_lists_are_no_empty_sieve():
    assert {"VisionTransformer", "LlamaForCausalLM", "SwinTransformerBlock", "ConvNeXtBlock"} <= classes()
    assert {"resnet", "vision_transformer", "llama", "bert", "sam"} <= families()
    assert len(FILES) > 50


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_names_a_model(path):
    says_specs = ROOT / "cli" in path.parents or path.parent in (ROOT / "runfiles", OPERATORS) or path == REGISTRY
    allowed = NAMED_BY_REGISTRY if says_specs else set()
    named = words(path)
    assert not named & classes()
    assert not named & (set(LIBRARIES) - allowed)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_names_a_family(path):
    assert not words(path) & families()


@pytest.mark.parametrize("code", ["isinstance(m, LlamaForCausalLM)", "type(m).__name__ == 'SwinTransformerBlock'"])
def test_a_name_would_be_found(tmp_path, code):
    (tmp_path / "rule.py").write_text(code)
    assert words(tmp_path / "rule.py") & classes()


@pytest.mark.parametrize("room", ["recipes", "runs", "options", "planning"])
def test_settings_that_one_recipe_alone_has_are_no_word_of_the_core(room):
    for path in (ROOT / room).rglob("*.py"):
        assert not words(path) & {"alphas", "ALPHAS", "scratch", "slimsam", "SLIMSAM"}, path
        if room in ("recipes", "runs"):
            assert "alpha" not in words(path), path
