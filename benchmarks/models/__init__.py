"""Models of many libraries, as their users call them: pruned with nothing configured, compared with masked models.

``python -m benchmarks.models`` (or ``make models``) runs three lists: the one beside this file, that of
``benchmarks/zoo/outside``, and, where the folder is at hand, that of ``shared/zoo``.
"""
