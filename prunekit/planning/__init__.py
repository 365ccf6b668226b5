"""From scores to a plan: which units stay (by ratio or target, in steps), and what the model must become for it."""
