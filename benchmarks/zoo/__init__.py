"""Coverage of real architectures: every row of a list is pruned in its own process, measured and reported.

``python -m benchmarks.zoo`` (or ``make zoo``) needs the folder ``shared/zoo`` beside the checkout, or ``--list``.
"""
