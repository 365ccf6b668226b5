"""report.html in a real browser, where there is one: nothing fetched, no error, no sideways scrolling, both themes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import prunekit

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = os.environ.get("PRUNEKIT_AXE", "")  # axe.min.js; make screenshots fetches it
pytestmark = [
    pytest.mark.skipif(
        BROWSER is None or not os.environ.get("PRUNEKIT_BROWSER"),
        reason="no browser was asked for: make screenshots, or PRUNEKIT_BROWSER=1 with chromium on the PATH",
    ),
    pytest.mark.timeout(300),
]
PROBE = """<script>
window.onerror = function (message) { document.body.dataset.error = message };
addEventListener("load", function () {
  var root = document.documentElement, body = document.body;
  body.dataset.wide = root.scrollWidth - root.clientWidth;
  body.dataset.fetched = performance.getEntriesByType("resource").filter(function (r) {
    return !r.name.startsWith("data:") }).length;
  document.querySelector("details.group summary").click();
  body.dataset.opened = document.querySelector("details.group").open;
  var before = getComputedStyle(body).backgroundColor;
  document.getElementById("theme").click();
  body.dataset.themed = String(before !== getComputedStyle(body).backgroundColor);
  RUN_AXE
});
</script></body>"""
RUN_AXE = """axe.run().then(function (found) { body.dataset.axe = found.violations.map(function (v) {
  return v.id + " at " + v.nodes[0].target }).join("; ") || "none" });"""


def opened(page: Path, *flags: str) -> str:
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", *flags]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=290, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    torch.manual_seed(0)
    model = nn.Sequential(*[layer for _ in range(6) for layer in (nn.Linear(32, 32), nn.ReLU())], nn.Linear(32, 2))
    result = prunekit.prune(model, torch.randn(1, 32), ratio=0.5, scorer="magnitude")
    return prunekit.save(result, tmp_path_factory.mktemp("browser") / "slim") / "report.html"


@pytest.mark.parametrize("width", [390, 1100], ids=["phone", "desktop"])
def test_the_page_works_and_fetches_nothing(page, width):
    probe = PROBE.replace("RUN_AXE", RUN_AXE if AXE else "")
    axe = f"<script>{Path(AXE).read_text()}</script>" if AXE else ""
    probed = page.with_name(f"probed-{width}.html")
    probed.write_text(page.read_text().replace("</body>", axe + probe))
    text = opened(probed, "--dump-dom", f"--window-size={max(width, 500)},900")
    assert "data-error" not in text
    for name, value in {"wide": "0", "fetched": "0", "opened": "true", "themed": "true"}.items():
        assert f'data-{name}="{value}"' in text, name
    if AXE:
        assert 'data-axe="none"' in text, text[text.find("data-axe") :][:400]


def test_a_picture_of_it_is_not_blank(page):
    shot = page.with_name("shot.png")
    opened(page, f"--screenshot={shot}", "--window-size=1100,1600")
    with Image.open(shot) as picture:
        assert picture.size == (1100, 1600)
        assert len(picture.convert("RGB").getcolors(2**24)) > 20
