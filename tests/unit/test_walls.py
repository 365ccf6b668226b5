"""Imports point down, in no circle, at public names; each check is shown to fail on a tree that breaks it."""

import importlib
from pathlib import Path

import pytest
from support.walls import circles, imports, modules, private

import prunekit

ROOT = Path(prunekit.__file__).parent
FOLDER = Path(__file__).parents[2] / "plugins"
PLUGINS = [FOLDER / "sam" / "prunekit_sam", FOLDER / "hf" / "prunekit_hf"]


def planted(folder, **files):
    root = folder / "house"
    for name, text in files.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    (root / "__init__.py").touch()
    return root


@pytest.mark.parametrize("root", [ROOT, *PLUGINS], ids=lambda root: root.name)
def test_there_is_no_circle_and_no_private_name_crosses_a_wall(root):
    assert circles(root) == []
    assert private(root) == []


def test_a_circle_is_found_among_modules_and_among_rooms_types_counted(tmp_path):
    root = planted(
        tmp_path,
        a__one="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.b.two import X\n",
        b__two="from house.a.one import Y\n",
        c__three="def f():\n    from house.d.four import Z\n",
        d__four="",
        d__five="from house.c.three import f\n",
    )
    found = circles(root)
    assert ["house.a.one", "house.b.two"] in found
    assert ["house.c", "house.d"] in found  # no module of theirs is in a circle, the rooms are


def test_a_private_name_of_another_room_is_found(tmp_path):
    root = planted(
        tmp_path, a__one="from house.b.two import _x, y\nfrom house.a.six import _own\n", b__two="", a__six=""
    )
    assert [(each.by, each.name) for each in private(root)] == [("house.a.one", "_x")]


def test_relative_imports_are_written_out(tmp_path):
    root = planted(tmp_path, a__one="from . import two\nfrom ..b import three\n", a__two="", b__three="")
    assert {(each.module, each.name) for each in imports(root)} == {("house.a", "two"), ("house.b", "three")}


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda root: root.name)
def test_a_plugin_takes_public_names_of_rooms_only(plugin):
    taken = [each for each in imports(plugin) if each.module.split(".")[0] == "prunekit"]
    assert taken
    for each in taken:
        assert each.module.count(".") <= 1, f"{each.by} reaches into {each.module}"
        room = importlib.import_module(each.module)
        public = getattr(room, "__all__", None)
        if public is None:  # a module at the root, such as prunekit.errors
            public = [name for name in vars(room) if not name.startswith("_")]
        assert each.name in public, f"{each.by}: {each.name} is no public name of {each.module}"


def test_what_the_rooms_declare_public_is_there():
    for name, file in modules(ROOT).items():
        if file.name == "__init__.py":
            room = importlib.import_module(name)
            for public in getattr(room, "__all__", ()):
                assert hasattr(room, public), f"{name}.{public}"
