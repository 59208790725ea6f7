"""syncd: a continuous, verifiable, restorable backup of labeling data."""

__version__ = "0.1.0"
