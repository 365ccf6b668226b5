"""transformers for prunekit: a pruned model says its new widths in its own config, so that the library loads it."""
