"""What a plug-in brings, and how plug-ins are found."""

from prunekit.plugins.contract import Foreign, ModelEntry, Plugin
from prunekit.plugins.data import Dataset, Evaluator, Exporter
from prunekit.plugins.discovery import GROUP, discover, load_all
from prunekit.plugins.examination import Examination, Examined, Examiner
from prunekit.plugins.exhibits import Exhibit, Exhibitor, Picture
from prunekit.plugins.formats import Compared, Format
from prunekit.plugins.homes import Home, Place, Recorded, Settlement, Spoken, Words

__all__ = [
    "GROUP",
    "Compared",
    "Dataset",
    "Evaluator",
    "Examination",
    "Examined",
    "Examiner",
    "Exhibit",
    "Exhibitor",
    "Exporter",
    "Foreign",
    "Format",
    "Home",
    "Recorded",
    "ModelEntry",
    "Picture",
    "Place",
    "Plugin",
    "Spoken",
    "Settlement",
    "Words",
    "discover",
    "load_all",
]
