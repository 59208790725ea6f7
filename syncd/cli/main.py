"""`syncd`: the commands and their options; what they do is imported when they run, so that `--help` is quick.

Exit codes: 0 done, 1 failed, 2 usage, 3 some tasks failed, 11 another syncd owns it, 12 credentials refused, 20 Guard tripped, 78 bad config,
130 interrupted. Whatever a user can cause ends in one line and one of them; a traceback is a bug of syncd.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from syncd import __version__
from syncd.cli.output import DEFAULT_PATH, LogFormat, LogLevel, show_error, start
from syncd.errors import SyncdError

_INTERRUPTED = 130


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Run a command; an error that a user can cause becomes its line and its exit code."""
        try:
            return super().invoke(ctx)
        except SyncdError as error:
            show_error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(_INTERRUPTED) from error


app = typer.Typer(
    cls=_Commands,
    help="A continuous, verifiable, restorable backup of labeling data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    rich_markup_mode=None,
)
trash = typer.Typer(cls=_Commands, help="Look into the trash of each Sync.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(trash, name="trash")

ConfigFile = Annotated[Path, typer.Option("-c", "--config", envvar="SYNCD_CONFIG", help="The config file.", metavar="FILE")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]
Level = Annotated[LogLevel, typer.Option("--log-level", help="The least that is logged.", case_sensitive=False)]
Form = Annotated[LogFormat, typer.Option("--log-format", help="How logs and errors are written to stderr.")]
Syncs = Annotated[list[str] | None, typer.Argument(metavar="SYNC", help="Syncs by name; all when none is named.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"syncd {__version__}")
        raise typer.Exit


@app.callback()
def _root(*, version: Annotated[bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)] = False) -> None:
    del version


@app.command()
def validate(
    *, config: ConfigFile = DEFAULT_PATH, json: Json = False, log_level: Level = LogLevel.WARNING, log_format: Form = LogFormat.TEXT
) -> None:
    """Check the config file, offline: every problem at once, with its place."""
    output = start(as_json=json, level=log_level, form=log_format)
    from syncd.cli import look

    raise typer.Exit(look.validate(config, output))


@app.command()
def schema(*, config: ConfigFile = DEFAULT_PATH, json: Json = False, log_level: Level = LogLevel.WARNING, log_format: Form = LogFormat.TEXT) -> None:
    """Print the JSON Schema of the config file, for editors."""
    del config
    output = start(as_json=json, level=log_level, form=log_format)
    from syncd.cli import look

    look.schema(output)


@app.command()
def plan(
    syncs: Syncs = None,
    *,
    full: Annotated[bool, typer.Option("--full", help="As a full Run would: every body.")] = False,
    config: ConfigFile = DEFAULT_PATH,
    json: Json = False,
    log_level: Level = LogLevel.WARNING,
    log_format: Form = LogFormat.TEXT,
) -> None:
    """Show what a Run would do; touches nothing. + new  ~ changed  - deleted  ! error"""
    output = start(as_json=json, level=log_level, form=log_format)
    from syncd.cli import look

    raise typer.Exit(look.plan(config, syncs or [], output, full=full))


@app.command()
def sync(
    syncs: Syncs = None,
    *,
    full: Annotated[bool, typer.Option("--full", help="Read every body and check every file.")] = False,
    confirm_deletes: Annotated[str, typer.Option(metavar="PLAN_ID", help="Let the deletions of exactly this Plan pass the Guard.")] = "",
    take_over: Annotated[bool, typer.Option("--take-over", help="Inherit a place in the Target from another Checkpoint.")] = False,
    config: ConfigFile = DEFAULT_PATH,
    json: Json = False,
    log_level: Level = LogLevel.WARNING,
    log_format: Form = LogFormat.TEXT,
) -> None:
    """Run Syncs now, once, one after the other. Ctrl-C ends the Run cleanly, a second one at once."""
    if (confirm_deletes or take_over) and not syncs:
        raise typer.BadParameter("--confirm-deletes and --take-over need the name of the Sync")
    output = start(as_json=json, level=log_level, form=log_format)
    from syncd.cli import sync as command

    orders = command.Orders(full=full, confirm_deletes=confirm_deletes, take_over=take_over)
    raise typer.Exit(command.sync(config, syncs or [], orders, output))


@app.command()
def status(
    syncs: Syncs = None,
    *,
    config: ConfigFile = DEFAULT_PATH,
    json: Json = False,
    log_level: Level = LogLevel.WARNING,
    log_format: Form = LogFormat.TEXT,
) -> None:
    """Show each Sync: last Run, lag, tasks, what fails, what the Guard stopped. Works while syncd runs."""
    output = start(as_json=json, level=log_level, form=log_format)
    from syncd.cli import look

    look.status(config, syncs or [], output)


@trash.command("list")
def trash_list(
    syncs: Syncs = None,
    *,
    config: ConfigFile = DEFAULT_PATH,
    json: Json = False,
    log_level: Level = LogLevel.WARNING,
    log_format: Form = LogFormat.TEXT,
) -> None:
    """List the deleted tasks that can still be taken back."""
    output = start(as_json=json, level=log_level, form=log_format)
    from syncd.cli import look

    look.trash_list(config, syncs or [], output)


def main() -> None:
    """Entry point of the `syncd` command."""
    app(prog_name="syncd")
