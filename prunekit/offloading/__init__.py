"""Models larger than memory: weights that lie in files are read when they are needed and given back afterwards."""

from prunekit.offloading.context import offloaded
from prunekit.offloading.paging import relieve
from prunekit.offloading.spilling import copied, in_file

__all__ = ["copied", "in_file", "offloaded", "relieve"]
