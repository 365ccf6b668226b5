"""The settings of a recipe, as typed records: what each means, stands for by default and may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from prunekit.options.fields import Said, Setting, said, said_of
from prunekit.options.together import settings_said


class Settings:
    """What the records have in common: they are read out of all of a recipe's settings, which are checked by then."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """The ones that matter here."""
        names = [each.name for each in fields(cls)]  # type: ignore[arg-type]  # a dataclass in every subclass
        return cls(**{name: settings[name] for name in names if name in settings})


@dataclass(frozen=True)
class Sampling(Settings):
    """Which samples a run reads."""

    images: int = field(default=64, metadata=said("that scores are taken from", least=1))
    val_images: int = field(default=32, metadata=said("that metrics and the learning rate are taken from", least=1))
    train_images: int = field(default=0, metadata=said("that distillation sees; 0 is all"))
    split: bool = field(
        default=False,
        metadata=said("train and validate on parts of one folder of data, by file name; its test part is never read"),
    )


@dataclass(frozen=True)
class Training(Settings):
    """How a distillation stage trains."""

    distill: bool = field(default=True, metadata=said("train at all"))
    penalty: float = field(default=1e-4, metadata=said("strength of a stage's penalty"))
    epochs: int = field(default=20, metadata=said("per distillation stage", least=1))
    align_epochs: int = field(default=10, metadata=said("of these, in which the aligning terms count"))
    steps: int = field(default=0, metadata=said("batches per distillation stage at most; 0 is all epochs"))
    batch: int = field(default=1, metadata=said("samples of one pass", least=1))
    accumulate: int = field(default=4, metadata=said("batches per optimiser step", least=1))
    lr: float = field(default=1e-4, metadata=said("learning rate"))
    lr_schedule: str = field(
        default="plateau", metadata=said("of the learning rate", choices=("plateau", "cosine", "constant"))
    )
    temperature: float = field(
        default=1.0, metadata=said("by which logits are divided before they are compared", least=0.01)
    )
    top_logits: int = field(
        default=0, metadata=said("of a place that are compared one by one, the others as one; 0 is all", least=0)
    )
    lora_rank: int = field(
        default=0,
        metadata=said("of adapters trained in the place of weights and merged at the end; 0 is none", least=0),
    )
    clip: float = field(default=1.0, metadata=said("gradient norm at most; 0 is no limit"))
    precision: str = field(
        default="fp32",
        metadata=said("of products while distilling; weights stay float32", choices=("fp32", "bf16", "fp16")),
    )
    checkpointing: bool = field(
        default=False, metadata=said("run blocks again in the backward pass instead of keeping what they computed")
    )
    sharded: bool = field(
        default=False,
        metadata=said("divide weights, gradients and moments among the ranks while training (FSDP)"),
    )
    teacher_cache: str = field(
        default="memory",
        metadata=said(
            "what frozen teachers give, once a sample; on disk in half precision", choices=("memory", "disk", "off")
        ),
    )
    cache_gb: float = field(default=2.0, metadata=said("of it at most, per teacher"))
    save_minutes: float = field(default=10.0, metadata=said("between two states that a killed run can go on from"))
    seed: int = 0


@dataclass(frozen=True)
class Reporting(Settings):
    """What is measured at the end."""

    latency: bool = field(default=True, metadata=said("measure the latency of the part, before and after"))


@dataclass(frozen=True)
class Repeating(Settings):
    """How often a recipe's repeated stages are run, where it has some."""

    prune_steps: int = field(default=5, metadata=said("how many times", least=1))
    schedule: str = field(
        default="cubic", metadata=said("how much is gone after each, of all that goes", choices=("cubic", "linear"))
    )


def _accumulations() -> tuple[str, ...]:
    from prunekit.scorers.accumulate import ACCUMULATIONS  # loading a pruned model reads no criterion

    return tuple(ACCUMULATIONS)


_WITHIN = ("", "mean", "sum")


@dataclass(frozen=True)
class Scoring(Settings):
    """What a criterion is made with."""

    accumulation: str = field(
        default="abs", metadata=said("of w*g over images, for criteria that accumulate it", choices=_accumulations)
    )
    within: str = field(
        default="",
        metadata=said("a parameter, how a unit's elements join; empty: the criterion's way", choices=_WITHIN),
    )
    reads: str = field(
        default="",
        metadata=said("kinds of parameters that count, of matrix,table,norm,bias, or all; empty: the criterion's"),
    )


RECORDS: tuple[Any, ...] = (Scoring, Sampling, Training, Reporting)
COMMON: Mapping[str, Any] = {
    **{name: about.setting for name, about in settings_said().items()},
    **{name: each.default for record in RECORDS for name, (each, _) in said_of(record).items()},
}


def said_of_settings(*own: Any) -> dict[str, Said]:
    """What every known setting says of itself, those of the records ``own`` among them."""
    records = (*RECORDS, Repeating, *own)
    return settings_said() | {name: about for record in records for name, (_, about) in said_of(record).items()}


def choices_of(about: Said) -> tuple[Setting, ...]:
    """The words that a setting may be; none where any will do."""
    return tuple(about.choices() if callable(about.choices) else about.choices)
