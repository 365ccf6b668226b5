"""``python -m benchmarks.newcomer``: walks README's first steps in a fresh clone, as a newcomer in a terminal would.

Every step is read from README.md. A step fails that ends with an error, or that shows nothing for longer than --silence
seconds; on a machine that others load, --by-cpu judges by the CPU seconds that the step took meanwhile.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.newcomer.path import Step, steps_in
from benchmarks.newcomer.watching import watched

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 3600.0  # seconds for one step


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.newcomer", description=__doc__.splitlines()[0])
    parser.add_argument("--reuse-env", action="store_true", help="lend what is installed here, install only the clone")
    parser.add_argument("--silence", type=float, default=5.0, help="seconds without output that a step may have")
    parser.add_argument("--by-cpu", action="store_true", help="count CPU seconds of a silence: others load the machine")
    parser.add_argument("--keep", type=Path, help="a new folder to walk in, which is then kept")
    parser.add_argument("--out", type=Path, help="file for the figures, as JSON")
    parser.add_argument("--verbose", action="store_true", help="show what the steps print")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="newcomer-") as scratch:
        home = asked.keep or Path(scratch)
        home.mkdir(parents=True, exist_ok=True)
        rows = walk(steps_in((ROOT / "README.md").read_text()), home, asked)
    if asked.out:
        asked.out.write_text(json.dumps(rows, indent=1) + "\n")
    _tell_imports(home)
    bad = [row for row in rows if row["trouble"]]
    print(f"{len(rows)} steps, {sum(row['seconds'] for row in rows):.0f} s, {len(bad)} in trouble")
    return 1 if bad else 0


def walk(steps: list[Step], home: Path, asked: argparse.Namespace) -> list[dict]:
    """The steps one after another, each in the folder and with the variables that the last one left."""
    state, rows = home / "state.sh", []
    state.write_text(f"cd {shlex.quote(str(home))}\n")
    for step in steps:
        if step.name:
            where = subprocess.run(["bash", "-c", f"source {state}; pwd"], capture_output=True, text=True, check=True)
            (Path(where.stdout.strip()) / step.name).write_text(step.text)
            print(f"{'':>8}  {'':>8}  {'':>8}  wrote {step.name}", flush=True)
            continue
        rows.append(taken(step.shell, home, state, asked))
        if rows[-1]["code"]:
            break
        if "git clone" in step.shell and asked.reuse_env:
            lend_environment(home / "prunekit")
    return rows


def taken(line: str, home: Path, state: Path, asked: argparse.Namespace) -> dict:
    """One line of README, typed."""
    typed = line.replace("URL", shlex.quote(str(ROOT)), 1) if line.startswith("git clone URL") else line
    left = f"(export -p; declare -f deactivate; echo cd \\'$PWD\\') > {state}"
    script = f"source {state}\nset -e\n{typed}\nset +e\n{left}\n"
    environment = {**os.environ, "TERM": "xterm-256color", "BROWSER": "echo"}
    for name in ("VIRTUAL_ENV", "PYTHONPATH"):
        environment.pop(name, None)
    seen = watched(["bash", "--norc", "-c", script], str(home), environment, LIMIT)
    silent = (seen.silent_cpu if asked.by_cpu else seen.silence) > asked.silence
    trouble = f"ended with {seen.code}" if seen.code else f"silent after {seen.after!r}" if silent else ""
    row = {
        "step": line,
        "code": seen.code,
        "seconds": round(seen.seconds, 1),
        "silence": round(seen.silence, 1),
        "silent_cpu": round(seen.silent_cpu, 1),
        "trouble": trouble,
    }
    figures = f"{seen.seconds:6.0f} s  silent {seen.silence:4.1f} s (cpu {seen.silent_cpu:4.1f})"
    print(f"{figures}  {line}  {trouble}", flush=True)
    if asked.verbose or seen.code:
        print(seen.output[-20000:], flush=True)
    return row


def _tell_imports(home: Path) -> None:
    """What of a silence is the import of libraries that README's lines need: nothing of ours can speak meanwhile."""
    python = home / "prunekit" / ".venv" / "bin" / "python"
    if not python.exists():
        return
    started = time.monotonic()
    subprocess.run([python, "-c", "import timm"], check=True)
    print(f"{time.monotonic() - started:6.1f} s of each silence of a Python step is `import timm` itself, here and now")


def lend_environment(clone: Path) -> None:
    """An environment of the clone's own in which all that this one has is found; only the clone is installed."""
    python = str(clone / ".venv" / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", str(clone / ".venv")], check=True)
    site = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True
    ).stdout.strip()
    # lines of a .pth are places only: the hooks by which this environment finds these sources are not followed
    Path(site, "zz_lent.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")) + "\n")
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "-e", ".", "-e", "plugins/sam", "-e", "plugins/hf"], cwd=clone, check=True)
    (clone / ".venv" / ".prunekit-env").touch()


if __name__ == "__main__":
    sys.exit(main())
