"""Whole blocks that go: what has to follow when they do, and the run that certifies it."""
