"""docs/models.md: how many models of each library are pruned, and what became of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.zoo.report import versions

Rows = Mapping[str, Mapping[str, Any]]  # row name -> record
LIBRARIES = {
    "timm": "timm",
    "tv": "torchvision",
    "hf": "transformers",
    "ultralytics": "ultralytics",
    "detection": "torchvision.detection",
    "smp": "segmentation_models_pytorch",
    "open_clip": "open_clip",
    "pyg": "torch_geometric",
    "diffusers": "diffusers",
    "torchaudio": "torchaudio",
    "sam": "segment_anything",
}
PACKAGES = (
    "ultralytics",
    "segmentation-models-pytorch",
    "open-clip-torch",
    "torch-geometric",
    "diffusers",
    "torchaudio",
)
KINDS = ("pruned", "partly", "under 20 %", "refused", "broken", "wrong")
STATUS = {"ok": "pruned", "no-op": "under 20 %", "failed": "broken"}

RULE = """\
Every model has random weights and is given what its users give it: images, lists of images, token ids, waveforms,
graphs, latents with time steps. `prunekit.prune(model, example_inputs, ratio=0.5)` is called, and nothing else said.

- **pruned**: at least 20 % of the parameters are gone; forward runs, at another batch size too, outputs are finite and
  of the same shapes (of the same ranks, where values decide how many boxes or frames there are), backward runs where
  it does on the original; symmetry holds on all groups.
- **partly**: the same, but for groups that are not symmetric: found before the cut, named, left alone.
- **under 20 %**: the same, with less removed. **refused**: a typed error with a reason, the model bit-identical.
- **broken**: anything else. **wrong**: other shapes, a refused model that changed, or outputs that are not those of the
  masked model.

**Exact**: groups that no normalisation crosses are cut alone, and the outputs compared with those of the dense model
with the removed units at zero, relative to the largest value; above 1e-4 in float32 again in float64. Left out where
all groups are crossed, where the report itself names a constant that changes, or where zeros make the masked model
divide by zero."""


def kind_of(record: Mapping[str, Any]) -> str:
    status = str(record["status"])
    return STATUS.get(status, status)


def library_of(name: str) -> str:
    prefix = name.partition("/")[0]
    return LIBRARIES.get(prefix, prefix)


def summary(rows: Rows) -> dict[str, Any]:
    """Counts of all rows, and by library."""
    by_library: dict[str, Counter[str]] = {}
    for name, record in rows.items():
        by_library.setdefault(library_of(name), Counter())[kind_of(record)] += 1
    total: Counter[str] = Counter()
    for counts in by_library.values():
        total.update(counts)
    errors = [record["exact_error"] for record in rows.values() if "exact_error" in record]
    return {
        "models": len(rows),
        "counts": dict(total),
        "share_pruned": round((total["pruned"] + total["partly"]) / max(1, len(rows)), 4),
        "compared": len(errors),
        "largest_error": max(errors, default=0.0),
        "libraries": {name: dict(counts) for name, counts in sorted(by_library.items())},
    }


def markdown(rows: Rows, head: Mapping[str, Any], missing: Sequence[str]) -> str:
    told = summary(rows)
    built = ", ".join(f"{k} {v}" for k, v in {**versions(), **head["packages"]}.items())
    lines = ["# Models that people bring", "", f"{head['date']}, {built}.", "", "    make models", "", RULE, ""]
    lines += ["## Result", ""]
    counts = ", ".join(f"{told['counts'].get(kind, 0)} {kind}" for kind in KINDS)
    lines += [f"- {told['models']} models: {counts}: {told['share_pruned']:.1%} pruned"]
    lines += [f"- {told['compared']} compared with masked models, largest difference {told['largest_error']:.1e}"]
    lines += [f"- not run, since the library is not installed: {', '.join(missing)}"] if missing else []
    lines += ["", f"| library | models | {' | '.join(KINDS)} | compared |", "|" + "---|" * (len(KINDS) + 3)]
    for library, found in told["libraries"].items():
        mine = [record for name, record in rows.items() if library_of(name) == library]
        cells = [str(found.get(kind, "")) for kind in KINDS]
        compared = sum("exact_error" in record for record in mine)
        lines.append(f"| {library} | {len(mine)} | {' | '.join(cells)} | {compared} |")
    lines += ["", "## Not pruned, or in part, and why", ""]
    for name in sorted(rows):
        if kind_of(rows[name]) != "pruned":
            lines.append(f"- {name}: {kind_of(rows[name])}: {_reason(rows[name])}")
    lines += ["", "## All", ""]
    for library in told["libraries"]:
        names = sorted(name for name in rows if library_of(name) == library)
        cells = [f"{name.partition('/')[2]} {rows[name].get('removed', 0):.0%}" for name in names]
        lines += [f"**{library}** (share of the parameters removed): {', '.join(cells)}", ""]
    return "\n".join(lines)


def _reason(record: Mapping[str, Any]) -> str:
    lines = str(record.get("error", "")).splitlines()
    return " ".join(line.strip() for line in lines[:3])[:300]
