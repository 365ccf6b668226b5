"""How seconds and memory of a plan grow with the model, all on the meta device."""
