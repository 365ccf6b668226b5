"""Pictures of report.html in a real browser, under docs/img: ``make screenshots``, after ``make demo``."""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHOTS = {"desktop": ((1100, 1500), "light"), "phone": ((500, 1500), "light"), "dark": ((1100, 1500), "dark")}


def shoot(page: Path, out: Path) -> list[Path]:
    """One picture a size and theme. Raises RuntimeError without a browser."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        raise RuntimeError("no browser: apt-get install chromium")
    out.mkdir(parents=True, exist_ok=True)
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for name, ((width, height), theme) in SHOTS.items():
            themed = Path(folder) / f"{name}.html"
            themed.write_text(page.read_text().replace('<html lang="en">', f'<html lang="en" data-theme="{theme}">'))
            target = out / f"report-{name}.png"
            command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
            command += [f"--window-size={width},{height}", f"--screenshot={target}", themed.as_uri()]
            subprocess.run(command, check=True, capture_output=True, timeout=300)
            made.append(target)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, default=ROOT / "out" / "demo" / "report.html")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "img")
    given = parser.parse_args()
    for path in shoot(given.page, given.out):
        print(path)
