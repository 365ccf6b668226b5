"""A run as a file: read, checked with line numbers, done as flags would do it, and written back by every run."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import prunekit
from benchmarks.run_page import PATH
from prunekit.cli.app import run
from prunekit.cli.command_table import COMMANDS, ready_command
from prunekit.errors import InputError
from prunekit.recipes import ITERATIVE, ONESHOT
from prunekit.runfiles import ExportAsked, RunFile, read_run, run_reference, run_text
from prunekit.runfiles.key_page import EXAMPLE
from prunekit.runfiles.keys import run_keys

NETS = "from benchmarks.faults.tiny import tiny_model\n"
HOW_NOT_WHAT = {"resume", "dry_run", "as_json", "quiet", "verbose", "help"}  # of a call, not of a run


@pytest.fixture
def nets(tmp_path, monkeypatch):
    (tmp_path / "run_file_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "run_file_nets", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder, text):
    path = folder / "slim.yaml"
    path.write_text(textwrap.dedent(text))
    return path


def test_every_flag_of_prune_is_a_key_and_every_key_but_exports_a_flag():
    flags = {p.name for p in ready_command("prune", COMMANDS["prune"]).params} - HOW_NOT_WHAT
    assert flags | {"export"} == run_keys().keys()


def test_the_page_is_what_the_keys_say_and_its_example_is_read(tmp_path):
    assert PATH.read_text() == run_reference(), "python -m benchmarks.run_page"
    assert read_run(written(tmp_path, EXAMPLE)).options == {"ratio": 0.3, "exclude": ["layer4.0.conv1"]}


def values_of(default):
    if isinstance(default, bool):
        return st.booleans()
    return st.integers(1, 10**6) if isinstance(default, int) else st.floats(0.01, 1e6)


WORDS = st.text("aN0 :#-+{}[],&*!|>'\"%@`\\~=.é漢\n", min_size=1, max_size=12)  # what YAML reads something into
SHARES = st.floats(0, 0.99) | st.dictionaries(WORDS, st.floats(0, 0.99), min_size=1)
NUMBERS = {name: value for name, value in ITERATIVE.settings.items() if type(value) in (int, float, bool)}
RUNS = st.builds(
    RunFile,
    model=WORDS,
    recipe=st.just("iterative"),
    options=st.fixed_dictionaries({}, optional={"ratio": SHARES, "include": st.lists(WORDS, min_size=1)}),
    data=st.none() | WORDS.map(Path),
    seed=st.integers(0, 2**31),
    settings=st.fixed_dictionaries({}, optional={name: values_of(value) for name, value in NUMBERS.items()}),
    export=st.lists(st.builds(ExportAsked, WORDS, WORDS.map(Path)), max_size=2).map(tuple),
)


@settings(max_examples=40, deadline=None)  # the first example imports what reads a file
@given(RUNS)
def test_what_is_written_is_read_as_it_was(tmp_path_factory, asked):
    path = tmp_path_factory.getbasetemp() / "law.yaml"
    path.write_text(run_text(asked, "a line\nanother"), encoding="utf-8")
    found = read_run(path)
    assert {name: type(asked.settings[name])(text) for name, text in found.settings.items() if text != "false"} == {
        name: value for name, value in asked.settings.items() if value is not False
    }
    assert RunFile(**{**vars(found), "settings": asked.settings}) == asked


MISTAKES = [
    ("modell: x", 1, "did you mean model"),
    ("model: x\nset:\n  images: 2", 2, "did you mean"),
    ("model: x\n\nrecipe: onshot", 3, "oneshot"),
    ("model: x\nscorer: magnitud", 2, "magnitude"),
    ("model: x\nsettings:\n  images: 4\n  imagse: 2", 4, "try images"),
    ("model: x\nsettings:\n  images: many", 3, "type int"),
    ("model: x\nsettings:\n  images: .nan", 3, "type int"),
    ("model: x\nsettings:\n  images: [4]", 3, "it takes a value"),
    ("model: x\nsettings: [images, 4]", 2, "it takes a mapping"),
    ("model: x\nratio: 1.5", 2, "share in [0, 1)"),
    ("model: x\nratio: nan", 2, "share in [0, 1)"),
    ("model: x\nratio: {a: 0.5, b: }", 2, "share in [0, 1)"),
    ("model: x\nratio: 0.5\ntarget: macs<=50%", 3, "give one of them"),
    ("model: x\ntarget: makes<=50%", 2, "makes"),
    ("model: x\ntarget:", 2, "nothing cannot be used here"),
    ("model: x\nranking: globl", 2, "'global'"),
    ("model: x\nranking: global\nuniform: yes", 3, "ranking"),
    ("model: x\nranking: local\nsettings:\n  ranking: global", 4, "said twice"),
    ("model: x\ncompensate: rigde", 2, "ridge"),
    ("model: x\nuniform: perhaps", 2, "true or false"),
    ("model: x\nseed: -1", 2, "whole number"),
    ("model: x\nseed: 1.5", 2, "whole number"),
    ("model: [x]", 1, "a list cannot be used here"),
    ("model: x\nmodel: y", 2, "again, after line 1"),
    ("model: x\ninclude: []", 2, "list of texts"),
    ("model: x\nexport:\n  to: onnx", 3, "no out"),
    ("model: x\nexport:\n  - to: onnx\n    outt: here", 4, "did you mean out"),
    ("model: x\nexport: onnx", 2, "a mapping of to, out"),
    ("model: !!python/object/apply:os.system [x]", 1, "tag"),
    ("model: !x y", 1, "tag"),
    ("model: &a x\nrecipe: *a", 1, "anchors"),
    ("model: x\n---\nmodel: y", 2, "one run"),
    ("model: x\n  recipe: y", 2, "no YAML"),
    ("model: 'x", 1, "no YAML"),
    ("? [a]\n: b", 1, "a key is a word"),
    ("- model", 1, "a mapping"),
    ("just words", 1, "a mapping"),
    ("model: " + 30 * "[" + 30 * "]", 1, "nested too deep"),
]


@pytest.mark.parametrize(
    ("text", "line", "word"), MISTAKES, ids=[text.splitlines()[-1][:30] for text, _, _ in MISTAKES]
)
def test_a_mistake_is_named_by_its_line(tmp_path, text, line, word):
    with pytest.raises(InputError) as caught:
        read_run(written(tmp_path, text))
    assert caught.value.where.startswith(f"slim.yaml, line {line}"), caught.value
    assert word in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "folder", "bytes", "control", "large", "empty", "comment"])
def test_a_file_that_is_no_run_is_refused(tmp_path, capsys, kind):
    path = tmp_path / "slim.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(
            {
                "bytes": b"\xff\xfe\xfa",
                "control": b"a\x01b",
                "large": b"# " * (1 << 20),
                "empty": b"",
                "comment": b"# x",
            }[kind]
        )
    assert run(["run", str(path)]) == 2
    said = capsys.readouterr().err
    assert "slim.yaml" in said
    assert "internal" not in said


@pytest.mark.parametrize(
    ("more", "line", "word"),
    [
        ("device: toaster", 5, "toaster"),
        ("checkpoint: none.pth", 5, "none.pth"),
        ("data: nowhere", 5, "nowhere"),
        ("track: wndb", 5, "wandb"),
        ("export: {to: onx, out: x}", 5, "onnx"),
        ("out: run_file_nets.py", 5, "is a file"),
    ],
)
def test_what_only_the_run_can_tell_has_its_line_too(nets, capsys, more, line, word):
    path = written(nets, f"model: python:run_file_nets:tiny_model\nsettings:\n  images: 2\n  latency: no\n{more}\n")
    assert run(["run", str(path)]) == 2
    said = capsys.readouterr().err
    assert f"slim.yaml, line {line}" in said
    assert word in said
    assert not (nets / "out").exists()


def test_what_is_wrong_with_the_run_is_not_laid_to_a_line(nets, capsys):
    (nets / "photos").mkdir()
    text = (
        "model: python:run_file_nets:tiny_model\ntarget: params<=1\ndata: photos\nsettings: {images: 2, latency: no}\n"
    )
    assert run(["run", str(written(nets, text))]) == 2
    said = capsys.readouterr().err
    assert "no images in photos" in said
    assert "line" not in said  # of two folders the message names the one that it is about


def test_a_model_that_is_not_there_is_named_by_its_line(nets, capsys):
    assert run(["run", str(written(nets, "# mine\nmodel: python:run_file_nets:tiny_modl\n"))]) == 2
    said = capsys.readouterr().err
    assert "slim.yaml, line 2, model" in said
    assert "tiny_model" in said


def test_a_file_does_what_flags_do_and_what_a_run_leaves_does_it_again(nets, capsys):
    pairs = ["images=2", "train_images=4", "val_images=1", "latency=false"]
    flags = [f"--set={pair}" for pair in pairs]
    model = "python:run_file_nets:tiny_model"
    assert (
        run(["prune", model, "--scorer", "magnitude", "--ratio", "0.4", "--out", "by_flags", "--seed=3", *flags]) == 0
    )
    lines = "".join(f"  {pair.replace('=', ': ')}\n" for pair in pairs)
    text = f"model: {model}\nscorer: magnitude\nratio: 0.4\nseed: 3\nout: by_file\nsettings:\n{lines}"
    assert run(["run", str(written(nets, text + "export: {to: exported, out: program}\n"))]) == 0
    assert (nets / "program" / "export.json").is_file()
    assert run(["run", "by_file/run.yaml", "--out", "again", "-q"]) == 0
    capsys.readouterr()
    wanted = prunekit.load("by_flags").state_dict()
    for folder in ("by_file", "again"):
        found = prunekit.load(folder).state_dict()
        assert all(torch.equal(value, found[name]) for name, value in wanted.items())
        told = read_run(nets / folder / "run.yaml")
        assert told.settings.keys() == ONESHOT.settings.keys()
        assert (told.model, told.recipe, told.options, told.seed) == (model, "oneshot", {"ratio": 0.4}, 3)


def test_flags_stand_in_for_what_the_file_says(nets, capsys):
    text = (
        "model: python:run_file_nets:tiny_model\nscorer: magnitude\nsettings: {images: 2, val_images: 1, latency: no}\n"
    )
    assert run(["run", str(written(nets, text)), "--out", "there", "--set", "images=1", "-v"]) == 0
    said = capsys.readouterr().out
    assert "images: 1" in said  # -v prints the run
    assert read_run(nets / "there" / "run.yaml").settings["images"] == "1"
    assert run(["run", str(written(nets, text)), "--set", "imags=1"]) == 2
    assert "images" in capsys.readouterr().err
