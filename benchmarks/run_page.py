"""Writes docs/run.md: ``python -m benchmarks.run_page``."""

from pathlib import Path

from prunekit.runfiles import run_reference

PATH = Path(__file__).resolve().parents[1] / "docs" / "run.md"

if __name__ == "__main__":
    PATH.write_text(run_reference())
