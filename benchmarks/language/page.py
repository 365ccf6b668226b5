"""docs/language.md: what cuts do to a language model, with the command that repeats it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COMMANDS = (
    "    make language MODEL=FOLDER                                             # all rows, hours on 2 cores",
    "    python -m benchmarks.language FOLDER --levels 0.1 0.2 --seeds 1 --refit none --resume \\",
    "        --scorers random magnitude wanda disturbed_taylor                  # those below without a refit",
    "    python -m benchmarks.language FOLDER --levels 0.1 --refit ridge --resume --scorers wanda disturbed_taylor",
)
RULE = """\
SmolLM2-135M-Instruct, 134.5 M parameters, out of its GGUF file. Hidden units of the feed-forward parts go
(`roles=["mlp.hidden"]`, one share in all layers) until so much of all parameters is gone; nothing is trained. Criteria
see 32 windows of 256 tokens from the beginning of Debian's handbook; perplexity and next-token accuracy are on its last
16 windows and, where they were judged too, on 16 windows of psalms.
**refit**: `compensate="ridge"` on the same 32 windows."""


def markdown(told: Mapping[str, Any]) -> str:
    """The page of one report."""
    rows = told["rows"]
    built = ", ".join(f"{k} {v}" for k, v in told["versions"].items())
    lines = ["# A language model, cut", "", f"{told['date']}, {told['threads']} thread, {built}.", ""]
    lines += [*COMMANDS, "", RULE, ""]
    dense = rows.get("dense")
    if dense:
        lines += [
            f"Dense: {_both(dense)}. Whoever answers the most frequent successor in the handbook is right in "
            f"{dense['bigram']:.1%}.",
            "",
        ]
    lines += ["| gone | criterion | refit | seed | handbook | psalms | CPU s | peak MB |", "|" + "---|" * 8]

    def worth(name: str) -> tuple[str, float]:
        return name.split()[0], rows[name].get("handbook", {}).get("perplexity", 0.0)

    for name in sorted(set(rows) - {"dense"}, key=worth):
        level, scorer, refit, seed = name.split()
        row = rows[name]
        if "error" in row:
            lines.append(f"| {float(level):.0%} | {scorer} | {refit} | {seed} | {row['error']} | | | |")
            continue
        cells = [f"{row['gone']:.1%}", scorer, refit, seed, *(_one(row.get(text)) for text in ("handbook", "other"))]
        lines.append(f"| {' | '.join([*cells, str(row['cpu_seconds']), str(row['peak_rss_mb'])])} |")
    return "\n".join(lines) + "\n"


def _one(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{found['perplexity']:,.1f} ({found['accuracy']:.1%})"


def _both(row: Mapping[str, Any]) -> str:
    psalms = f", {_one(row['other'])} on psalms" if "other" in row else ""
    return f"perplexity (accuracy) {_one(row['handbook'])} on the handbook{psalms}"
