"""Every kind of page in a real browser, where there is one: nothing fetched, no error, nothing too wide, legible."""

from __future__ import annotations

import pytest

from benchmarks.browser import THEMES, chromium, lacking, looked_at
from benchmarks.sample_pages import sample_pages

pytestmark = [pytest.mark.skipif(bool(lacking()), reason=lacking()), pytest.mark.slow]
KINDS = ("call", "depth", "experts", "run", "photos", "old", "several", "unlike")
WIDTHS = (1100, 390)  # a desktop, a phone


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    return sample_pages(tmp_path_factory.mktemp("browser"))


def test_every_kind_is_looked_at(pages):
    assert sorted(pages) == sorted(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_fits_fetches_nothing_and_says_nothing_to_the_console(browser, pages, kind):
    with looked_at(browser, pages[kind]) as seen:
        for width in WIDTHS:
            seen.page.set_viewport_size({"width": width, "height": 900})
            assert seen.overflow == 0
            for summary in seen.page.locator("details.group summary").all():
                summary.hover()
                assert seen.overflow == 0
        assert (seen.said, seen.asked) == ([], [])


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("kind", ["photos", "several"])
def test_axe_finds_nothing(browser, pages, kind, theme):
    """Contrast of every text among others, with everything open; ``make accessible`` asks about every kind."""
    with looked_at(browser, pages[kind], theme=theme) as seen:
        seen.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
        assert [(found["id"], found["nodes"][0]["target"]) for found in seen.violations()] == []


def test_axe_finds_what_is_wrong(browser, tmp_path):
    """Else the test above would say nothing."""
    wrong = tmp_path / "wrong.html"
    wrong.write_text("<p style='color:#ccc;background:#fff'>pale</p><img src='data:,'>")
    with looked_at(browser, wrong) as seen:
        assert {"color-contrast", "image-alt", "html-has-lang"} <= {found["id"] for found in seen.violations()}


CONTRAST = """() => {
  const luminance = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).map(c => { c /= 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4 }); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
  const paper = luminance(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll("svg text")].map(each => { const ink = luminance(getComputedStyle(each).fill);
    return [each.textContent, (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)] }) }"""


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("kind", ["run", "several"])
def test_letters_of_charts_are_legible(browser, pages, kind, theme):
    """axe does not look into SVG. WCAG 2.2, success criterion 1.4.3: 4.5 to 1."""
    with looked_at(browser, pages[kind], theme=theme) as seen:
        letters = seen.page.evaluate(CONTRAST)
        assert letters
        assert [(text, ratio) for text, ratio in letters if ratio < 4.5] == []


def test_what_the_pointer_shows_the_keyboard_shows(browser, pages):
    with looked_at(browser, pages["run"]) as seen:
        tiles = seen.page.locator("details.group")
        length = "document.documentElement.scrollHeight"
        for at in range(tiles.count()):
            tile, more = tiles.nth(at), tiles.nth(at).locator(".more")
            assert "→" in tile.locator("summary").inner_text()
            before = seen.page.evaluate(length)
            tile.hover()
            assert more.is_visible()
            pointed = more.inner_text()
            assert seen.page.evaluate(length) == before  # nothing moves under the pointer
            seen.page.mouse.move(0, 0)
            assert not more.is_visible()
            while not tile.locator("summary").evaluate("each => each === document.activeElement"):
                seen.page.keyboard.press("Tab")
                assert seen.page.evaluate("document.activeElement !== document.body"), "Tab went past it"
            assert more.is_visible()
            assert more.inner_text() == pointed
            assert "greatest removed" in pointed
            seen.page.keyboard.press("Escape")
            assert not more.is_visible()
            seen.page.keyboard.press("Enter")
            assert more.is_visible()  # held
            seen.page.keyboard.press("Enter")
            assert not more.is_visible()


def test_the_button_changes_the_theme_and_says_so(browser, pages):
    with looked_at(browser, pages["call"]) as seen:
        paper = "getComputedStyle(document.body).backgroundColor"
        before = seen.page.evaluate(paper)
        button = seen.page.get_by_role("button", name="Light or dark")
        button.click()
        assert seen.page.evaluate(paper) != before
        assert button.get_attribute("aria-pressed") == "true"


def test_it_prints(browser, pages):
    """A printer gets every picture, and dark ink."""
    with looked_at(browser, pages["photos"], theme="dark") as seen:
        assert seen.page.pdf().startswith(b"%PDF")
        assert seen.page.evaluate("[...document.images].every(each => each.complete && each.naturalWidth > 0)")
