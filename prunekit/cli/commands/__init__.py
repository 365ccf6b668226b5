"""One file a command; ``command_table`` has their names."""
