"""Whole blocks, or residual branches, out of the models of the zoo: found, removed, and exact?

    python -m benchmarks.depth_zoo --zoo FOLDER --out docs/depth-zoo.json [--page docs/depth.md] [--only REGEX]
    python -m benchmarks.depth_zoo --branches --zoo FOLDER --out docs/branch-zoo.json [--page docs/depth.md]

For each row: a random 40 % of the blocks that may go are removed (``Random(seed=0)``), and the model is compared, on
inputs that the library has not seen, with the original in which hooks of this script hand on what these blocks are
given. With ``--branches`` the same of attentions, MLPs and other residual branches: a hook of this script multiplies
what the last module of each gives by zero, and all of it runs. ``apart`` says how far the two are, in parts of the
largest output. Undone, the model must be what it was, to the bit.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import logging
import multiprocessing
import re
import time
import warnings
from pathlib import Path

import torch

STATUS = ("exact", "none may go", "none found", "refused", "wrong", "failed", "too long")


def handed_on(module, args, kwargs, output):
    """The streams that went in, in the place of what came out: of each output the first argument left of its shape."""
    given = [t for t in (*args, *kwargs.values()) if isinstance(t, torch.Tensor)]

    def instead(tensor):
        at = next(
            (n for n, t in enumerate(given) if isinstance(tensor, torch.Tensor) and t.shape == tensor.shape), None
        )
        return tensor if at is None else given.pop(at)

    return instead(output) if isinstance(output, torch.Tensor) else type(output)(instead(t) for t in output)


def silenced(module, args, kwargs, output):
    """What the last module of a branch gives, times zero."""
    if isinstance(output, torch.Tensor):
        return output * 0
    return type(output)(each * 0 if isinstance(each, torch.Tensor) else each for each in output)


def tensors(result):
    from prunekit.tracing.recorder import output_tensors

    return [t for t in output_tensors(result) if t.is_floating_point()]


def run(model, x):
    with torch.no_grad():
        if isinstance(x, dict):
            return tensors(model(**x))
        return tensors(model(*x) if isinstance(x, tuple) else model(x))


BLOCKS, BRANCHES = ["depth.block"], ["depth.attention", "depth.mlp", "depth.branch"]


def judged(zoo, entry, roles, seed=0):
    """One row."""
    import prunekit
    from prunekit.errors import NothingToPruneError

    model, x = zoo.build(entry)
    structure = prunekit.trace(model, x)
    groups = [group for group in structure.depth.groups if group.role in roles]
    row = {"blocks": sum(g.size for g in groups), "containers": len(groups)}
    row["roles"] = {role: sum(g.size for g in groups if g.role == role) for role in roles}
    row["frozen"] = [f"{f.name}: {f.reason}" for f in structure.depth.frozen]
    if not row["blocks"]:
        return {**row, "status": "none found"}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dense = copy.deepcopy(model)
    asked = {"roles": roles, "ratio": 0.4, "scorer": prunekit.Random(seed=seed)}
    try:
        result = prunekit.prune(model, x, structure=structure, **asked)
    except NothingToPruneError as error:
        return {**row, "status": "none may go", "why": str(error).splitlines()[-2:]}
    gone = [path for removal in result.plan.removals for path in removal.gone]
    absent = {absence.module for absence in result.plan.absences}
    branches = [branch for group in groups for branch in group.branches if branch.modules[0].module in absent]
    row["removed"] = len(gone) + len(branches)
    row["params"] = result.report.params
    blocks = {frozen.name: frozen.reason for frozen in result.plan.frozen if frozen.name in named(structure)}
    row["left alone"] = [f"{name}: {reason}" for name, reason in blocks.items()]
    for path in gone:
        dense.get_submodule(path).register_forward_hook(handed_on, with_kwargs=True)
    for branch in branches:
        dense.get_submodule(branch.modules[-1].module).register_forward_hook(silenced, with_kwargs=True)
    torch.manual_seed(seed + 1)
    x = changed(x)
    wanted, found = run(dense, x), run(model, x)
    apart = [float((a - b).abs().max() / a.abs().max().clamp_min(1e-12)) for a, b in zip(wanted, found, strict=False)]
    row["apart"] = max(apart)
    result.undo()
    now = model.state_dict()
    undone = list(now) == list(before) and all(torch.equal(now[name], before[name]) for name in before)
    good = undone and len(wanted) == len(found) and row["apart"] <= 1e-5
    return {**row, "undone": undone, "status": "exact" if good else "wrong"}


def named(structure):
    return {path for group in structure.depth.groups for path in group.places}


def changed(x):
    """Other values of the same shapes: noise, or token ids in another order."""
    if isinstance(x, dict):
        return {name: changed(value) for name, value in x.items()}
    if isinstance(x, tuple):
        return tuple(changed(value) for value in x)
    return torch.randn_like(x) if x.is_floating_point() else x.flip(-1)


def child(folder, entry, roles, pipe):
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        pipe.send(judged(zoo_of(folder), entry, roles))
    except BaseException as error:
        pipe.send({"status": "failed", "why": f"{type(error).__name__}: {str(error)[:300]}"})


def zoo_of(folder):
    spec = importlib.util.spec_from_file_location("shared_zoo", folder / "zoo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def one(folder, entry, roles, seconds):
    """In a process of its own, for so long at most."""
    begun = time.monotonic()
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(folder, entry, roles, theirs))
    process.start()
    theirs.close()
    try:
        row = mine.recv() if mine.poll(seconds) else {"status": "too long"}
    except EOFError:
        row = {"status": "failed", "why": "the process ended"}
    if process.is_alive():
        process.join(2)
    if process.is_alive():
        process.kill()
    process.join()
    return {"name": entry["name"], **row, "seconds": round(time.monotonic() - begun, 1)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--heavy", action="store_true")
    parser.add_argument("--branches", action="store_true", help="residual branches in the place of blocks")
    parser.add_argument("--page", type=Path, help="a page whose section on the zoo is written anew")
    asked = parser.parse_args()
    import segment_anything  # noqa: F401  imported once, before the processes fork
    import timm  # noqa: F401
    import torchvision  # noqa: F401
    import transformers  # noqa: F401

    import prunekit  # noqa: F401

    rows = json.loads(asked.out.read_text()) if asked.out.is_file() else []
    done = {row["name"] for row in rows}
    for entry in sorted(zoo_of(asked.zoo).load(), key=lambda entry: entry.get("params", 0)):  # small ones first
        if (
            entry["name"] in done
            or not re.search(asked.only, entry["name"])
            or (entry.get("heavy") and not asked.heavy)
        ):
            continue
        rows.append(one(asked.zoo, entry, BRANCHES if asked.branches else BLOCKS, asked.seconds))
        print(json.dumps(rows[-1])[:300], flush=True)
        asked.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(counts(rows))
    if asked.page is not None:
        asked.page.write_text(written(asked.page.read_text(), section(rows, asked.branches)))


TITLES = ("## In the zoo", "## Branches in the zoo")
TOLD = (
    """

`python -m benchmarks.depth_zoo --zoo FOLDER --out docs/depth-zoo.json --page docs/depth.md`: a random 40 % of the
blocks (`Random(seed=0)`), compared with the original in which hooks of the script hand on what these blocks are given,
on inputs that the library has not seen, and undone.
""",
    """

`python -m benchmarks.depth_zoo --branches --zoo FOLDER --out docs/branch-zoo.json --page docs/depth.md`: a random 40 %
of all residual branches (`Random(seed=0)`), compared with the original in which a hook of the script multiplies what
the last module of each gives by zero, on inputs that the library has not seen, and undone.
""",
)
HEADS = (
    ["| model | blocks | removed | parameters left | difference |", "|---|---|---|---|---|"],
    ["| model | attentions, MLPs, others | removed | parameters left | difference |", "|---|---|---|---|---|"],
)


def counts(rows):
    return {status: sum(row["status"] == status for row in rows) for status in STATUS}


def written(page, text):
    """The page with the section of the same title written anew; at its end where there is none."""
    title = text.partition("\n")[0] + "\n"
    before, found, after = page.partition(title)
    rest = after[after.index("\n## ") + 1 :] if "\n## " in after else ""
    return before.rstrip() + "\n\n" + text + ("\n" + rest if found and rest else "")


def section(rows, branches):
    told = ", ".join(f"{count} {status}" for status, count in counts(rows).items() if count)
    lines = [TITLES[branches] + TOLD[branches] + f"Of {len(rows)} models: {told}.", "", *HEADS[branches]]
    for row in sorted(rows, key=lambda row: row["name"]):
        if row["status"] == "none found":
            continue
        units = ", ".join(str(count) for count in row["roles"].values()) if "roles" in row else row.get("blocks", "")
        if "removed" not in row:
            why = (row.get("frozen") or [""])[0] if row["status"] != "none may go" else row["why"][0].strip()
            lines.append(f"| {row['name']} | {units} | {row['status']}: {why[:120]} | | |")
            continue
        left = f"{row['params']['after'] / row['params']['before']:.0%}"
        lines.append(f"| {row['name']} | {units} | {row['removed']} | {left} | {row['apart']:.1g} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
