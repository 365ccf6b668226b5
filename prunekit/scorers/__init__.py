"""Criteria: how much every unit of a group matters. One small file each."""

from collections.abc import Callable, Mapping
from functools import partial

from prunekit.scorers.activation import Activation
from prunekit.scorers.batch_norm_scale import BatchNormScale
from prunekit.scorers.block_influence import BlockInfluence
from prunekit.scorers.contract import Scorer
from prunekit.scorers.damage import Damage
from prunekit.scorers.disturbed_taylor import DisturbedTaylor
from prunekit.scorers.fisher import Fisher
from prunekit.scorers.fpgm import FPGM
from prunekit.scorers.group_norm import GroupNorm
from prunekit.scorers.kinds import Reads, of_kinds
from prunekit.scorers.lamp import LAMP
from prunekit.scorers.magnitude import Magnitude
from prunekit.scorers.needs import BACKWARD, CURVATURE, EXPERTS, FORWARD, LABELLED, WEIGHTS, Needs, Objective
from prunekit.scorers.obd import OBD
from prunekit.scorers.obs import OBS
from prunekit.scorers.product_scores import score_products
from prunekit.scorers.random import Random
from prunekit.scorers.reap import REAP
from prunekit.scorers.reducers import Within
from prunekit.scorers.routed_frequency import RoutedFrequency
from prunekit.scorers.saliency import Saliency, SquaredOutput
from prunekit.scorers.scored import Scored
from prunekit.scorers.statistics import Statistics
from prunekit.scorers.taylor import Taylor
from prunekit.scorers.wanda import Wanda

# What the command and recipes call each
OWN: Mapping[str, Callable[..., Scorer]] = {
    "activation": Activation,
    "apoz": partial(Activation, measure="apoz"),
    "batch_norm_scale": BatchNormScale,
    "block_influence": BlockInfluence,
    "damage": Damage,
    "damage_greedy": partial(Damage, greedy=True),
    "disturbed_taylor": DisturbedTaylor,
    "fisher": Fisher,
    "fpgm": FPGM,
    "group_norm": GroupNorm,
    "lamp": LAMP,
    "magnitude": Magnitude,
    "magnitude_l1": partial(Magnitude, p=1),
    "obd": OBD,
    "obs": OBS,
    "random": Random,
    "reap": REAP,
    "routed_frequency": RoutedFrequency,
    "saliency": Saliency,
    "taylor": Taylor,
    "wanda": Wanda,
}

__all__ = [
    "BACKWARD",
    "CURVATURE",
    "EXPERTS",
    "FORWARD",
    "LABELLED",
    "WEIGHTS",
    "Activation",
    "BatchNormScale",
    "BlockInfluence",
    "Damage",
    "DisturbedTaylor",
    "FPGM",
    "Fisher",
    "GroupNorm",
    "LAMP",
    "Magnitude",
    "Needs",
    "OBD",
    "OBS",
    "OWN",
    "Objective",
    "REAP",
    "Random",
    "Reads",
    "RoutedFrequency",
    "Saliency",
    "Scored",
    "Scorer",
    "SquaredOutput",
    "Statistics",
    "Taylor",
    "Wanda",
    "Within",
    "of_kinds",
    "score_products",
]
