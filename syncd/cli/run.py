"""`syncd run`: the daemon in the foreground; whoever starts it (systemd, Kubernetes, a person) keeps it there."""

from __future__ import annotations

import os
import sys

from syncd.cli.main import Call, LogFormat, LogLevel
from syncd.cli.output import log_to_stderr
from syncd.daemon.program import run_daemon


def run(call: Call) -> int:
    """Drive every Sync; the exit code."""
    as_json = call.log_format is LogFormat.JSON if call.log_format else not sys.stderr.isatty()
    log_to_stderr(call.log_level or LogLevel.INFO, as_json=as_json, times=True)
    return run_daemon(call.config, os.environ)
