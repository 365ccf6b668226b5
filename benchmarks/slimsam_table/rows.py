"""The rows of SlimSAM's tables as options of one command, the paper's figures, and its claims as pairs of rows."""

from __future__ import annotations

from dataclasses import dataclass

RATIOS = (0.5, 0.77, 0.9)
# what all rows of a table share
FULL = {"images": 200, "train_images": 800, "epochs": 4, "align_epochs": 2, "val_images": 100}
QUICK = {"images": 64, "train_images": 256, "epochs": 2, "align_epochs": 1, "val_images": 40}
SEEDS = (0, 1, 2)
RETENTION = {0.5: 0.986, 0.77: 0.919}  # 72.33 and 67.40 of SAM-B's 73.37


@dataclass(frozen=True)
class Row:
    """One way to slim: ``options`` of ``prunekit prune``, and the paper's mIoU by ratio where it has the row."""

    name: str
    options: str
    paper: tuple[tuple[float, float], ...] = ()

    def written(self, quick: bool) -> str:
        """The options; a recipe that distils once trains as many epochs as the others do in two stages."""
        if "slimsam-onestep" not in self.options:
            return self.options
        return f"{self.options} --set epochs={2 * (QUICK if quick else FULL)['epochs']} --set align_epochs=0"


ALTERNATE = "disturbed Taylor, alternate"
CRITERIA = (
    Row("scratch", "--recipe slimsam-onestep --scorer random --set scratch=true", ((0.5, 1.63), (0.77, 1.34))),
    Row("random", "--recipe slimsam --scorer random", ((0.5, 71.03), (0.77, 62.58))),
    Row("magnitude", "--recipe slimsam --scorer magnitude", ((0.5, 69.96), (0.77, 61.60))),
    Row("Taylor", "--recipe slimsam --scorer output_taylor", ((0.5, 71.15), (0.77, 64.26))),
    Row("Hessian", "--recipe slimsam --scorer saliency", ((0.5, 71.01), (0.77, 63.56))),
    Row("disturbed Taylor, one step", "--recipe slimsam-onestep", ((0.5, 70.33), (0.77, 62.31))),
    Row(ALTERNATE, "--recipe slimsam", ((0.5, 72.33), (0.77, 67.40))),
)
ABLATIONS = (
    Row("random, one step", "--recipe slimsam-onestep --scorer random"),
    Row("Taylor, one step", "--recipe slimsam-onestep --scorer output_taylor", ((0.5, 70.02), (0.77, 62.04))),
    Row("without the bottleneck", "--recipe slimsam --set without=bottleneck", ((0.5, 70.86), (0.77, 65.10))),
    Row("without the embedding", "--recipe slimsam --set without=embedding", ((0.5, 70.52), (0.77, 63.91))),
    Row("alpha linear, linear", "--recipe slimsam --set alpha=linear,linear", ((0.5, 71.60), (0.77, 65.79))),
    Row("alpha constant, constant", "--recipe slimsam --set alpha=constant,constant", ((0.5, 70.42), (0.77, 63.63))),
    Row("local", "--recipe slimsam-uniform", ((0.5, 70.81), (0.77, 64.38))),
    Row("global, mean", "--recipe slimsam-global --set normaliser=mean", ((0.5, 70.76), (0.77, 63.64))),
    Row("global, max", "--recipe slimsam-global --set normaliser=max", ((0.5, 70.77), (0.77, 64.35))),
    Row("global, sum", "--recipe slimsam-global --set normaliser=sum", ((0.5, 70.80), (0.77, 63.55))),
    Row("global, gaussian", "--recipe slimsam-global --set normaliser=gaussian", ((0.5, 70.83), (0.77, 64.48))),
    Row(
        "global, standardisation",
        "--recipe slimsam-global --set normaliser=standardisation",
        ((0.5, 70.78), (0.77, 64.14)),
    ),
)
BEYOND = (
    Row("slimsam, sums of matrices", "--recipe slimsam --set within=sum --set reads=matrix"),
    Row("slimsam, gradients unclipped", "--recipe slimsam --set clip=0"),
    Row("slimsam-paper", "--recipe slimsam-paper"),
    Row("slimsam-plus", "--recipe slimsam-plus"),
    Row("slimsam-plus, random", "--recipe slimsam-plus --scorer random"),
    Row("slimsam-plus, local", "--recipe slimsam-plus --set ranking=local"),
    Row("slimsam-plus, local, random", "--recipe slimsam-plus --set ranking=local --scorer random"),
    Row("slimsam-plus, gradients added up", "--recipe slimsam-plus --set accumulation=signed"),
)
# why units drawn at random end where they do: what was there before training, how long it went on, what it compared
UNTRAINED = "--set train_images=8 --set lr=1e-9"  # two steps that move nothing
LONG = "--set epochs=8 --set align_epochs=4"
CHANCE = (
    Row("disturbed Taylor, untrained", f"--recipe slimsam {UNTRAINED}"),
    Row("random, untrained", f"--recipe slimsam --scorer random {UNTRAINED}"),
    Row("disturbed Taylor, trained longer", f"--recipe slimsam {LONG}"),
    Row("random, trained longer", f"--recipe slimsam --scorer random {LONG}"),
    Row("slimsam, gradients added up", "--recipe slimsam --set accumulation=signed"),
    Row("slimsam-paper, random", "--recipe slimsam-paper --scorer random"),
)
# the weight that falls, (N - n - 1) / N in epoch n of N, is 0 in the only epoch that the quick table aligns for: there,
# step 2 aligns something in these rows alone
ALIGNED_ROWS = (
    "random", "magnitude", "Taylor", "Hessian", ALTERNATE, "without the bottleneck", "without the embedding",
    "alpha linear, linear", "alpha constant, constant", "slimsam-paper", "slimsam-plus", "slimsam-plus, random",
)  # fmt: skip


def aligned(name: str) -> str:
    """The row that is as ``name`` but for two epochs of aligning."""
    return f"{name}, aligned"


ALIGNED = tuple(
    Row(aligned(row.name), f"{row.options} --set align_epochs=2")
    for row in (*CRITERIA, *ABLATIONS, *BEYOND)
    if row.name in ALIGNED_ROWS
)
GROUPS = {"criteria": CRITERIA, "ablations": ABLATIONS, "beyond": BEYOND, "chance": CHANCE, "aligned": ALIGNED}


@dataclass(frozen=True)
class Claim:
    """``better`` scores more than ``worse``; the rows are names of ``Row``."""

    said: str
    better: str
    worse: str


CLAIMS = (
    Claim("alternate slimming by disturbed Taylor is better than random units", ALTERNATE, "random"),
    Claim("... than magnitude", ALTERNATE, "magnitude"),
    Claim("... than Taylor", ALTERNATE, "Taylor"),
    Claim("... than the Hessian", ALTERNATE, "Hessian"),
    Claim("random units are better than magnitude", "random", "magnitude"),
    Claim("inherited weights are better than training from scratch", "random", "scratch"),
    Claim("alternate slimming is better than one step", ALTERNATE, "disturbed Taylor, one step"),
    Claim(
        "the disturbance is better than the plain output, in one step", "disturbed Taylor, one step", "Taylor, one step"
    ),
    Claim("aligning the bottleneck helps", ALTERNATE, "without the bottleneck"),
    Claim("aligning the embedding helps", ALTERNATE, "without the embedding"),
    Claim("a constant weight is better in step 1", ALTERNATE, "alpha linear, linear"),
    Claim("a falling weight is better in step 2", ALTERNATE, "alpha constant, constant"),
    Claim("global ranking with gaussian normalisation is better than local", "global, gaussian", "local"),
    Claim("... than with the mean", "global, gaussian", "global, mean"),
    Claim("... than with the maximum", "global, gaussian", "global, max"),
    Claim("... than with the sum", "global, gaussian", "global, sum"),
    Claim("... than with standardisation", "global, gaussian", "global, standardisation"),
)
OWN_CLAIMS = (
    Claim("sums within matrices are better than means of all tensors", "slimsam, sums of matrices", ALTERNATE),
    Claim("unclipped gradients are better than a norm of at most 1", "slimsam, gradients unclipped", ALTERNATE),
    Claim("slimsam with one share everywhere is better than with a ranking over all blocks", "local", ALTERNATE),
    Claim("... slimsam-plus too", "slimsam-plus, local", "slimsam-plus"),
    Claim("slimsam-plus is better than slimsam-paper", "slimsam-plus", "slimsam-paper"),
    Claim("slimsam-plus is better than slimsam", "slimsam-plus", ALTERNATE),
    Claim(
        "before training, disturbed Taylor is better than random units",
        "disturbed Taylor, untrained",
        "random, untrained",
    ),
    Claim("... and after long training", "disturbed Taylor, trained longer", "random, trained longer"),
    Claim("gradients added up over images are better than their sizes", "slimsam, gradients added up", ALTERNATE),
    Claim("... in slimsam-plus too", "slimsam-plus, gradients added up", "slimsam-plus"),
    Claim("random units gain by slimsam-paper's features and losses too", "slimsam-paper, random", "random"),
    Claim("... which leave disturbed Taylor ahead of random units", "slimsam-paper", "slimsam-paper, random"),
    Claim(
        "the criterion still matters in slimsam-plus: better than random units", "slimsam-plus", "slimsam-plus, random"
    ),
)
ALIGNED_CLAIMS = (
    *(
        Claim(f"{claim.said}, both aligned for two epochs", aligned(claim.better), aligned(claim.worse))
        for claim in (*CLAIMS, *OWN_CLAIMS)
        if {claim.better, claim.worse} <= {*ALIGNED_ROWS}
    ),
    *(Claim(f"{name}: two epochs of aligning are better than one", aligned(name), name) for name in ALIGNED_ROWS),
)
