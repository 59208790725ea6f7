"""`syncd`: `sync`, which changes something, beside the commands that only look."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from syncd.cli import look
from syncd.cli.app import Call, Syncs, app, command

__all__ = ["app", "look", "main", "sync"]


@command(app, "sync")
def sync(
    call: Call,
    syncs: Syncs = None,
    *,
    full: Annotated[bool, typer.Option("--full", help="Read every body and check every file.")] = False,
    confirm_deletes: Annotated[str, typer.Option(metavar="PLAN_ID", help="Let the deletions of exactly this Plan pass the Guard.")] = "",
    take_over: Annotated[bool, typer.Option("--take-over", help="Inherit a place in the Target from another Checkpoint.")] = False,
) -> int:
    """Run Syncs now, one after the other.

    Ctrl-C ends the Run cleanly, a second one at once.
    """
    if (confirm_deletes or take_over) and not syncs:
        raise typer.BadParameter("--confirm-deletes and --take-over need the name of the Sync")
    from syncd.cli.sync import run_syncs

    return run_syncs(call, syncs, full=full, confirm_deletes=confirm_deletes, take_over=take_over)


def main() -> None:
    """Run the command that argv names, and exit."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # or it looks through every installed package
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a terminal that knows no → is no reason to fail
    app(prog_name="syncd")
