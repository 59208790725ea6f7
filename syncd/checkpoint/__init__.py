"""Checkpoints: the durable memory. One file each; they never import each other."""
