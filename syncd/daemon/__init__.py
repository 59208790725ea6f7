"""The daemon: everything that makes Runs happen by themselves, and tells how they went."""
