"""Accuracy against size on real weights: every criterion, Random as the control, and Torch-Pruning at equal cost."""
