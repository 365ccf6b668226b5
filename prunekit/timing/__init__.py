"""How long a model takes, and how long it would take at other widths."""
