"""Notes on figures stay where a command writes the page again."""

import json
from pathlib import Path

from benchmarks import latency_targets
from benchmarks.growth import __main__ as growth
from benchmarks.notes import note_on

DOCS = Path(__file__).parents[2] / "docs"


def test_a_page_that_is_written_again_keeps_its_note():
    points = json.loads((DOCS / "scale.json").read_text())["points"]
    assert growth.page(points) == (DOCS / "scale.md").read_text()
    records = json.loads((DOCS / "latency_targets.json").read_text())
    written = latency_targets.markdown(records, latency_targets.COMMAND)
    for page, name in ((growth.page(points), "scale.md"), (written, "latency_targets.md")):
        assert note_on(DOCS / name).strip()
        assert note_on(DOCS / name) in page
    assert note_on(DOCS / "kernels.md") == ""
