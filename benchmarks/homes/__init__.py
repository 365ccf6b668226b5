"""Pruned models of transformers that go home: saved by ``save_pretrained``, loaded by ``from_pretrained``, equal.

``python -m benchmarks.homes`` (or ``make homes``) prunes every transformers model of the two lists of this repository,
saves it as its library does, and loads it in a process that cannot import prunekit.
"""
