"""Runs that several ranks share: what each is given, and what one of them is killed in."""

from __future__ import annotations

# seven samples: the last batch of an epoch is one sample, of which the second rank has none
ODD = {"train_images": "7", "images": "7"}

SAYS = """
import sys, torch
from torch import nn
from prunekit.errors import RecipeError
from prunekit.recipes.records import COMMON, Training
from prunekit.runs.distillation.joint import joined
from prunekit.runs.ranks import leave, ranks_of
from prunekit.runs.reporting import skipped_in
from prunekit.samples import Skipped
ranks = ranks_of(torch.device("cpu"))
def refuse():
    raise RecipeError("no", where="here", hint="do")
try:
    ranks.decided(refuse)
except RecipeError as error:
    sys.stdout.write(f"{ranks.index} {error.what} {error.where} {error.hint}\\n")
met = [Skipped(f"x{n}", "broken") for n in range(ranks.index + 1)]
counted = skipped_in(ranks.gathered(met))
sys.stdout.write(f"{counted['count']} skipped, {counted['items'][1]['name']} too\\n")
torch.manual_seed(0)
student = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 8)))
before = [p.clone() for p in student.parameters()]
def settings(**changes):
    return Training.of({**COMMON, "sharded": True, **changes})
said = []
with joined(student, ranks, settings()) as joint:
    own = sum(p.to_local().numel() for p in joint.model.parameters())
    said.append(own / sum(p.numel() for p in before))
    with torch.no_grad():
        for p in joint.model.parameters():
            p.add_(1)
    said.append(all(torch.equal(p, q) for p, q in zip(student.parameters(), before)))
    joint.publish()
    said.append(all(torch.equal(p, q + 1) for p, q in zip(student.parameters(), before)))
said.append(all(type(p) is nn.Parameter for p in student.parameters()))
student.register_parameter("scale", nn.Parameter(torch.tensor(1.0)))
for model, changes, penalised in (
    (student, {}, False), (student[1], {"precision": "fp16"}, False), (student[1], {}, True)
):
    try:
        with joined(model, ranks, settings(**changes), penalised=penalised):
            pass
    except RecipeError as error:
        said.append(error.hint)
sys.stdout.write(f"{said}\\n")
leave()
"""


def asked(folder, out, *settings, kept="", stage=-1, event=-1):
    """A small run that is killed at that event of that stage."""
    given = [*settings, "batch=1", *(f"{key}={value}" for key, value in ODD.items())]
    return {"arguments": [str(folder / out), str(kept and folder / kept), str(stage), str(event), *given]}


def one_is_killed(folder, count):
    """A run that ends for one rank, the last."""
    arguments = [str(folder / "one-killed"), str(folder / "run-one-killed"), "4", "2", "batch=1"]
    return {"arguments": arguments, "killed": count - 1}


def small_runs_in(folder):
    """What is asked of two ranks, by the name of the run."""
    (folder / "says.py").write_text(SAYS)
    divided = ("sharded=true",)
    return {
        "plain": asked(folder, "plain"),
        "whole": asked(folder, "whole", *divided, kept="run-whole"),
        "killed": asked(folder, "divided", *divided, kept="run", stage=4, event=3),
        "gone on": asked(folder, "divided", *divided, kept="run"),
        "says": {"script": str(folder / "says.py"), "arguments": []},
        "one is killed": one_is_killed(folder, 2),
    }
