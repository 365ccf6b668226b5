"""docs/language.md: what cuts do to a language model, with the command that repeats it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COMMANDS = ("    make language MODEL=FOLDER   # all rows: nine hours on one core; --resume goes on with a report",)
RULE = """\
SmolLM2-135M-Instruct, 134.5 M parameters, out of its GGUF file. Hidden units of the feed-forward parts go
(`roles=["mlp.hidden"]`; one share in all layers, or where `:global` stands by their scores over all of them) until so
much of all parameters is gone. Criteria see 32 windows of 256 tokens from the beginning of Debian's handbook, `obs`
the 128 that the refit sees; perplexity and next-token accuracy are on its last 16 windows, and on 16 windows of
psalms, text of another kind that nothing here has seen. **refit**: `none`; `ridge`, which is `compensate="ridge"` on
the first 128 windows; or `distil`, the recipe `minitron`: the refit, then 300 windows of the handbook (none that is
judged on) distilled on logits, one window a step, learning rate 1e-4 falling as a cosine. CPU seconds are those of
the cut and what follows; a gradient criterion's scores cost 113 to 126 more, once for all its rows, those from
activations 47, those of `obs` 445. torch-pruning is Torch-Pruning with its own criteria on the same windows, told by
hand which layers to leave alone; torch-kirigami 0.2.1 cannot capture the model (CaptureError).

What the table says. Distilled, a model with a tenth of its parameters gone is 4 % worse than the whole one (33.2
against 32.0), and one with a fifth gone stands where the refit alone leaves one with a tenth gone. Distillation does
not make up for the criterion: with a fifth gone, units drawn at random end at 43.4, 43.5 and 53.1 (three seeds) where
Wanda's end at 36.9. The refit matters as much as the criterion, and the more the more is gone. Refitted, criteria
that see data and know nothing of the refit lie within 7 % of each other. **The one that counts the refit in is ahead
of them, the more the more goes**: `obs` ends at 42.8 where Wanda ends at 45.3 with a fifth gone, and at 55.0 where it
ends at 63.2 with three tenths; on psalms it is level and ahead. Refitted in order, each layer to what the cut ones
before it give (`ridge-in-order`, one row), it is no better, 46.9 against 45.3, for twice the time and memory. Units
drawn at random (the control) do not ruin the model as long as the few units with huge activations happen to stay:
with one seed of three they do not, and no refit saves it. Magnitude takes just those. Torch-Pruning's best, Taylor on
the model's own loss, is behind ours without refit (43.0, 74.6, 212 against 41.2, 63.1, 139) and has no refit to
follow. Text of another kind loses at least twice as much, and the refit, which never saw it, helps it less: calibrate
on text of the kind that the model will read.

Whole blocks (`depth-random`: drawn by chance; `mixed`: blocks and hidden units within one target, every layer's share
and the number of blocks by damage measured on 8 windows without labels). Chance over blocks ruins this model at any
share. Asked with a tenth to go, the measurement takes no block: the damage is 0.168 with widths alone, each layer's
own, 0.258 with one share everywhere, 0.270 with one block gone and widths for the rest, 0.482 with four blocks alone.
So here width wins, and what measuring gains is 39.0 against 41.2 to 42.1 of the ranked rows, as cut, for 40 CPU
minutes. With a refit, units by OBS and every variant measured as it is refitted, no block goes either: the damage is
0.105 with widths alone, each layer's own, 0.111 with one share everywhere, 0.187 with one block gone and widths for
the rest, 0.482 with four blocks alone. The single damages add up to 0.102, so the program's first set is the best
one. **The row ends at 35.0 where Wanda, refitted, ends at 36.5 with one share everywhere**, for 64 CPU minutes; on
psalms it is behind (80.7 against 70.7): what is fitted more closely to the handbook is fitted to the handbook. Blocks
by damage alone (`depth`), OBS with one share everywhere at a tenth, and the other shares of `mixed` were not run."""


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
