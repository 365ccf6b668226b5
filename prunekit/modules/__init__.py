"""Modules and their state tensors: walked, unwrapped, kept as they are, observed."""
