"""Flags of several commands: those that follow from the options, and those of offloading."""
