"""Targets: where files are written. One file each; they never import each other."""
