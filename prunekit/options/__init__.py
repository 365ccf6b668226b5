"""What a user may ask of pruning, said once: keywords, flags, recipe settings and the reference page follow from it."""

from prunekit.options.choice import Choice
from prunekit.options.cutting import Cutting
from prunekit.options.fields import said
from prunekit.options.scope import Scope
from prunekit.options.together import Options

__all__ = ["Choice", "Cutting", "Options", "Scope", "said"]
