"""The newcomer's path is read out of README, and a step's code and output are seen as a terminal shows them."""

import os
import re
from pathlib import Path

import pytest

from benchmarks.newcomer.path import TITLE, steps_in
from benchmarks.newcomer.watching import watched

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_path_goes_from_the_clone_to_a_fine_tuned_model():
    steps = steps_in(README)
    typed = [step.shell for step in steps if step.shell]
    wanted = ["git clone URL", "cd ", "make demo", ". .venv", "report.html", "first.py", "load(", "export", "finetune"]
    assert all(word in line for word, line in zip(wanted, typed, strict=True)), typed
    (written,) = [step for step in steps if step.name]
    assert written.name == "first.py"
    assert "prunekit.save" in written.text
    assert "#" not in "".join(typed)
    for script in re.findall(r"docs/\S+\.py", " ".join(typed)):
        assert (ROOT / script).is_file()


def test_a_readme_without_the_section_or_a_file_without_a_name_is_told():
    with pytest.raises(SystemExit, match=TITLE):
        steps_in("# nothing")
    with pytest.raises(SystemExit, match="which file"):
        steps_in(f"## {TITLE}\n\nwrite\n\n```python\nx = 1\n```\n")


def test_a_step_is_watched_in_a_terminal(tmp_path):
    line = ["bash", "-c", "test -t 1 && echo seen; pwd; exit 3"]
    seen = watched(line, str(tmp_path), dict(os.environ), limit=60)
    assert seen.code == 3
    assert seen.output.split() == ["seen", str(tmp_path)]
    assert 0 <= seen.silence <= seen.seconds


def test_a_step_that_never_ends_is_ended(tmp_path):
    assert watched(["sleep", "600"], str(tmp_path), dict(os.environ), limit=0.1).code < 0
