"""A whole run, or a recipe, as a YAML file: read with line numbers, written back by every run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunekit.runfiles.asked_run import DEFAULT_SCORER, ExportAsked, RunFile
    from prunekit.runfiles.key_page import run_reference
    from prunekit.runfiles.reading import read_run
    from prunekit.runfiles.recipe_files import is_recipe_file, read_recipe, recipe_named, recipe_text
    from prunekit.runfiles.writing import run_text
else:
    from prunekit.deferred import deferred_names

    # the command's help makes a RunFile and must not wait for what reading one checks against
    __getattr__, __dir__ = deferred_names(
        __name__,
        {
            **dict.fromkeys(
                ("is_recipe_file", "read_recipe", "recipe_named", "recipe_text"), "prunekit.runfiles.recipe_files"
            ),
            "read_run": "prunekit.runfiles.reading",
            **dict.fromkeys(("DEFAULT_SCORER", "ExportAsked", "RunFile"), "prunekit.runfiles.asked_run"),
            "run_reference": "prunekit.runfiles.key_page",
            "run_text": "prunekit.runfiles.writing",
        },
    )

__all__ = [
    "DEFAULT_SCORER",
    "ExportAsked",
    "RunFile",
    "is_recipe_file",
    "read_recipe",
    "read_run",
    "recipe_named",
    "recipe_text",
    "run_reference",
    "run_text",
]
