"""Plans: what pruning will change, composed and kept."""
