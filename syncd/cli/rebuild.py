"""`syncd rebuild`: a new Checkpoint from what stands in the Targets and what the Sources say.

Refuses to touch a Checkpoint that is sound, unless told to, and a place that the marker says is another Sync's. Rule: it may be interrupted; called
again, it goes on with the Syncs that have not had their full Run.
"""

from __future__ import annotations

from contextlib import closing

from syncd.cli.jobs import read
from syncd.cli.main import Call
from syncd.cli.output import log
from syncd.cli.sync import WORST, run_syncs
from syncd.clock import SystemClock
from syncd.config import open_checkpoint, open_target, set_aside_checkpoint
from syncd.errors import OwnedError, SyncdError
from syncd.run.place import owner


def run_rebuild(call: Call, *, force: bool) -> int:
    """Keep the old one aside if need be, and run each Sync in full; the worst exit code."""
    config, names = read(call, None)
    clock = SystemClock()
    if aside := set_aside_checkpoint(config, clock.now(), force=force):
        log.warning("the old Checkpoint is kept as %s: %s", aside[1], aside[0])
    with closing(open_checkpoint(config, read_only=True)) as checkpoint:
        names = [name for name in names if checkpoint.last_full(name) is None]
    if not names:
        raise SyncdError(f"the Checkpoint in {config.state} is sound: there is nothing to rebuild (--force makes a new one all the same)")
    ours = []
    for name in names:
        with closing(open_target(config, name, clock)) as target:
            if (other := owner(target)) in {"", name}:
                ours.append(name)
            else:
                advice = f"`syncd sync {name} --full --take-over` inherits the place if that one is gone for good"
                log.error("%s: %s belongs to sync %s, by its marker: %s", name, target.place, other, advice)
    code = run_syncs(call, ours, full=True, confirm_deletes="", take_over=True) if ours else 0
    return max(code, 0 if ours == names else OwnedError.exit_code, key=WORST.index)
