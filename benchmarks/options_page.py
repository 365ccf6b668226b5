"""Writes docs/options.md: ``python -m benchmarks.options_page``."""

from pathlib import Path

from prunekit.options.page import options_reference

PATH = Path(__file__).resolve().parents[1] / "docs" / "options.md"

if __name__ == "__main__":
    PATH.write_text(options_reference())
