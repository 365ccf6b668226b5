"""A plan carried out: cutting, refitting, and the way back."""
