"""Tables and drawings of what came out."""
