"""What a user may ask of pruning."""
