"""The config file, from YAML to open Sources, Targets and a Checkpoint: the wiring of syncd.

Refuses to start anything: opening is as far as it goes.
"""

from syncd.config.edges import open_checkpoint, open_folder, open_importer, open_source, open_target, set_aside_checkpoint
from syncd.config.loader import load
from syncd.config.shape import Config, MaxDelete, SyncConfig

__all__ = [
    "Config",
    "MaxDelete",
    "SyncConfig",
    "load",
    "open_checkpoint",
    "open_folder",
    "open_importer",
    "open_source",
    "open_target",
    "set_aside_checkpoint",
]
