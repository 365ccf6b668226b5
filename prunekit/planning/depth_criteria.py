"""Which criterion scores depth, and which widths, where one is asked for both."""

from __future__ import annotations

from prunekit.errors import ScorerError
from prunekit.options import Options
from prunekit.registry import criterion
from prunekit.removal.ranking import scores_depth
from prunekit.scorers import BlockInfluence, Damage, DisturbedTaylor, Scorer


def criterion_of_depth(options: Options) -> Scorer:
    """The criterion for depth: the one that is asked for, or ``Damage()`` in the place of the default for widths.

    Raises ScorerError for one that says nothing of what is asked for.
    """
    given = options.choice.scorer
    asked = criterion(given)
    if scores_depth(asked, options.scope.roles or ()):
        return asked
    if given is None or isinstance(asked, DisturbedTaylor):
        return Damage()
    raise ScorerError(
        f"{type(asked).__name__} scores units of a width, and says nothing of whole blocks",
        where="scorer",
        hint="damage, damage_greedy, block_influence or random, of experts alone reap or routed_frequency; prune "
        "widths in a call of their own",
    )


def for_blocks(options: Options, samples: int | None = None) -> Options:
    """Options for blocks that go beside widths: a criterion of widths leaves them to ``Damage``, on so many samples."""
    is_theirs = scores_depth(criterion(options.choice.scorer), options.scope.roles or ())
    return options if is_theirs else options.replaced(scorer=Damage(samples=samples))


def for_widths(options: Options) -> Options:
    """Options for widths that come after blocks: a criterion of blocks leaves them to the default."""
    asked = options.choice.scorer
    of_widths = asked is None or not isinstance(criterion(asked), (Damage, BlockInfluence))
    options = options.replaced(replace=None)
    return options if of_widths else options.replaced(scorer=None)
