"""Compensation without training: least squares makes what is left of a layer's input give what the whole input gave."""
