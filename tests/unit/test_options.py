"""Options are said once: keywords, flags, recipe settings and the reference reference follow from the fields."""

import inspect
import subprocess
import sys
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields, replace
from pathlib import Path

import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

import prunekit
from prunekit.api import STEPWISE
from prunekit.cli.flags.option_flags import with_flags
from prunekit.comparison.contest import NO_USE
from prunekit.errors import InputError
from prunekit.options import Choice, Cutting, Options, Scope, said, together
from prunekit.options.keywords import takes_options
from prunekit.options.page import options_reference
from prunekit.options.together import RECORDS, from_settings, options_said, settings_said
from prunekit.recipes import COMMON

NAMES = [each.name for each in (*fields(Scope), *fields(Choice), *fields(Cutting))]
PAGE = Path(__file__).parents[2] / "docs" / "options.md"


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2)), torch.randn(3, 4)


def test_every_field_says_something_of_itself_and_no_name_is_twice():
    assert list(options_said()) == NAMES
    assert len(set(NAMES)) == len(NAMES)
    assert all(about.doc for _, about in options_said().values())


@pytest.mark.parametrize(
    ("call", "without"), [(prunekit.prune, ()), (prunekit.plan, STEPWISE), (prunekit.compare, NO_USE)]
)
def test_every_field_is_a_keyword_with_its_default_and_its_sentence(call, without):
    shown = inspect.signature(call).parameters
    for name, (default, about) in options_said().items():
        assert (name in shown) == (name not in without)
        if name in shown:
            assert shown[name].default is default or shown[name].default == default
            if call is not prunekit.plan:
                assert about.doc.split()[0] in call.__doc__
    assert "keywords" not in shown


def test_an_unknown_keyword_is_refused_with_the_nearest_and_the_model_stays():
    model, x = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match="rankng") as caught:
        prunekit.prune(model, x, rankng="global")
    assert "ranking" in caught.value.hint
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("call", "keywords"),
    [
        (prunekit.plan, {"steps": 3}),
        (prunekit.plan, {"compensate": "ridge"}),
        (lambda *given, **more: prunekit.compare(given[0], ["magnitude"], lambda m: {}, given[1], **more), {"seed": 3}),
    ],
)
def test_an_option_that_a_call_has_no_use_for_is_refused_by_name(call, keywords):
    with pytest.raises(InputError, match=next(iter(keywords))):
        call(*small(), **keywords)


def test_keywords_and_one_value_ask_for_the_same():
    model, x = small()
    asked = {"ratio": 0.25, "align": 4, "scorer": prunekit.Random(seed=1)}
    one = prunekit.plan(model, x, **asked)
    assert prunekit.plan(model, x, options=Options.of(**asked)).to_json() == one.to_json()
    other = prunekit.plan(model, x, options=Options.of(**asked), ratio=0.5)
    assert other.to_json() == prunekit.plan(model, x, **{**asked, "ratio": 0.5}).to_json() != one.to_json()


def test_records_are_frozen_and_checked_when_they_are_made():
    with pytest.raises(FrozenInstanceError):
        Options().scope = Scope()
    with pytest.raises(InputError, match="both say"):
        Scope(ratio=0.5, target="macs<=50%")
    with pytest.raises(InputError, match="verify"):
        Options.of(verify="yes")
    with pytest.raises(InputError, match="schedule"):
        Cutting(schedule="cubik")


def test_settings_that_are_options_stand_among_the_common_ones_and_become_them():
    for name, about in settings_said().items():
        assert COMMON[name] == about.setting
    assert from_settings({"align": 0, "compensate": "", "ranking": "role", "images": 3}) == {
        "align": None,
        "compensate": None,
        "ranking": "role",
    }
    assert Options.of(**from_settings({**COMMON, "align": 4})).choice.align == 4


@dataclass(frozen=True)
class Wider(Scope):
    mood: int | None = field(
        default=None, metadata=said("how it feels.", flag="A mood.", read=lambda text: 2 * int(text), setting=7)
    )


def test_one_more_field_is_a_keyword_a_flag_a_setting_and_a_row_of_the_page(monkeypatch):
    monkeypatch.setattr(together, "RECORDS", {**RECORDS, "scope": Wider})
    monkeypatch.setattr("prunekit.options.page.RECORDS", {**RECORDS, "scope": Wider})

    @takes_options()
    def call(*, options=None, **keywords):
        """{options}"""

    heard = []

    def command(asked: dict = {}) -> None:  # noqa: B006
        heard.append(asked)

    app = typer.Typer()
    app.command()(with_flags(command))
    assert inspect.signature(call).parameters["mood"].default is None
    assert "mood: how it feels." in call.__doc__
    assert CliRunner().invoke(app, ["--mood", "4"]).exit_code == 0
    assert heard == [{"mood": 8}]
    assert "A mood." in CliRunner().invoke(app, ["--help"]).output
    assert settings_said()["mood"].setting == 7
    assert "| `mood` | `None` | `--mood`, setting `mood=7` | how it feels. |" in options_reference()
    assert replace(Options(), scope=Wider()).replaced(mood=3).scope.mood == 3


def test_the_reference_page_is_what_the_fields_give():
    assert PAGE.read_text() == options_reference(), "python -m benchmarks.options_page writes it anew"


def test_neither_the_options_nor_the_help_wait_for_torch():
    code = (
        "import sys, prunekit.options, prunekit.options.page\n"
        "prunekit.options.page.options_reference()\n"
        "from prunekit.cli.app import app\n"
        "from typer.testing import CliRunner\n"
        "assert '--ranking' in CliRunner().invoke(app, ['prune', '--help'], env={'COLUMNS': '200'}).output\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_default_is_made_anew():
    assert all(each.default is not MISSING for record in RECORDS.values() for each in fields(record))
