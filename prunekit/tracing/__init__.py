"""A model's forward, run once on the meta device and recorded."""
