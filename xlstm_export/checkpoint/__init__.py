"""Checkpoints on disk: what the user points at, its files, and the tensors in them."""
