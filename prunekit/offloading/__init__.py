"""Models larger than memory: weights that lie in files are read when they are needed and given back afterwards."""

from prunekit.offloading.context import offloaded
from prunekit.offloading.paging import memory_limit, relieve
from prunekit.offloading.spilling import copied, in_file

__all__ = ["copied", "in_file", "memory_limit", "offloaded", "relieve"]
