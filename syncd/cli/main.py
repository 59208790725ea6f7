"""`syncd`: the program itself, the options that each command takes, and how a command ends.

Exit codes: 0 done, 1 failed, 2 usage, 3 some tasks failed, 11 another syncd owns it, 12 credentials refused, 20 Guard tripped, 78 bad config,
130 interrupted. Whatever a user can cause ends in one line and one of them; a traceback is a bug of syncd.
"""

from __future__ import annotations

import gc
import inspect
import json
import os
import resource
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from syncd import __version__
from syncd.cli.output import log_to_stderr, say, show_error, table
from syncd.errors import SyncdError, discreet

DEFAULT_PATH = Path("syncd.yaml")
INTERRUPTED = 130
_FILES = 10_240  # open at a time: no system has a lower bound for what it allows
LogLevel = StrEnum("LogLevel", ["DEBUG", "INFO", "WARNING", "ERROR"])
LogFormat = StrEnum("LogFormat", ["TEXT", "JSON"])


def complete_sync(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of Syncs that begin so, for a shell: read as plainly as can be, since somebody waits at the keyboard."""
    import yaml

    try:
        text = Path(ctx.params.get("config") or DEFAULT_PATH).read_text(encoding="utf-8")
        names = list(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["syncs"])  # noqa: S506 - both are safe ones
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError):
        return []
    return [name for name in map(str, names) if name.startswith(incomplete) and name not in (ctx.params.get("syncs") or ())]


Syncs = Annotated[list[str] | None, typer.Argument(metavar="SYNC", help="Syncs by name; all when none is named.", autocompletion=complete_sync)]
OneSync = Annotated[str, typer.Argument(metavar="SYNC", help="The Sync.", autocompletion=complete_sync)]


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Run a command; an error that a user can cause becomes its line and its exit code."""
        try:
            return super().invoke(ctx)
        except SyncdError as error:
            show_error(error)
            raise typer.Exit(error.exit_code) from error
        except (KeyboardInterrupt, typer.Abort) as error:  # Abort: at a question
            say("", sys.stderr)
            raise typer.Exit(INTERRUPTED) from error


class _Command(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`--read-data` alone means all of it, and takes no word after it for its value."""
        return super().parse_args(ctx, ["--read-data=100%" if arg == "--read-data" else arg for arg in args])


app = typer.Typer(
    cls=_Commands,
    help="A continuous, verifiable, restorable backup of labeling data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    rich_markup_mode=None,
)
trash = typer.Typer(cls=_Commands, help="Look into the trash of each Sync.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(trash, name="trash")
hooks = typer.Typer(cls=_Commands, help="Let a labeling tool call syncd when something changes.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(hooks, name="hooks")


@dataclass(frozen=True, slots=True)
class Call:
    """What every command is told: the config file, and whether a program reads the answer."""

    config: Path
    json: bool
    log_level: LogLevel | None = None
    log_format: LogFormat | None = None

    def object(self, fields: object) -> None:
        """One object on a line; ASCII, so that any id gets through any pipe."""
        say(json.dumps(fields))

    def tell(self, fields: Mapping[str, Any], *lines: str) -> None:
        """What was found: one object for a program, these lines for a person."""
        if self.json:
            self.object(fields)
        else:
            self.say(*lines)

    def say(self, *lines: str) -> None:
        """What only a person is told."""
        for line in () if self.json else lines:
            say(line)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int) -> None:
        """What only a person is shown, in columns: see `output.table`."""
        if not self.json:
            table(header, rows, left=left)


def _called(
    *,
    config: Annotated[Path, typer.Option("-c", "--config", envvar="SYNCD_CONFIG", help="The config file.", metavar="FILE")] = DEFAULT_PATH,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    log_level: Annotated[LogLevel | None, typer.Option(help="The least that is logged; default: warning (run: info).", case_sensitive=False)] = None,
    log_format: Annotated[LogFormat | None, typer.Option(help="How logs and errors are written to stderr.")] = None,
) -> Call:
    log_to_stderr(log_level or LogLevel.WARNING, as_json=log_format is LogFormat.JSON)
    return Call(config, json, log_level, log_format)


def command(group: typer.Typer, name: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Enrol a function `(call, own options) -> exit code`: the command takes its own options and those of `_called`."""

    def enrol(function: Callable[..., int]) -> Callable[..., int]:
        shared = inspect.signature(_called, eval_str=True).parameters
        options = [*list(inspect.signature(function, eval_str=True).parameters.values())[1:], *shared.values()]

        def run(**given: Any) -> NoReturn:
            call = _called(**{option: given.pop(option) for option in shared})
            raise typer.Exit(function(call, **given))

        run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]  # what typer reads
        run.__annotations__ = {option.name: option.annotation for option in options}
        group.command(name, cls=_Command, help=function.__doc__)(run)
        return function

    return enrol


def _version(wanted: bool) -> None:
    if wanted:
        say(f"syncd {__version__}")
        raise typer.Exit


@app.callback()
def _root(*, version: Annotated[bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)] = False) -> None:
    del version


def main() -> None:
    """Run the command that argv names, and exit."""
    # bodies are trees, freed when they are dropped: looking for cycles among them took a tenth of a first Run's time
    gc.set_threshold(100_000, 20, 100)
    import syncd.cli.commands  # noqa: F401 - enrols them

    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # or it looks through every installed package
    os.environ.setdefault("TOKIO_WORKER_THREADS", "1")  # obstore's, one for each core by default: to a quarter more CPU a put, and no faster
    _allow_files()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a terminal that knows no → is no reason to fail
    try:
        app(prog_name="syncd")
    except Exception:  # noqa: BLE001 - a bug: shown as Python would, less what a server gave back
        import traceback

        sys.stderr.write(discreet(traceback.format_exc()))
        sys.exit(1)
    finally:
        gc.freeze()  # or Python looks for cycles among all that was imported, just to forget it


def _allow_files() -> None:
    """Each Run may keep hundreds of connections; the usual 1,024 open files, 256 on a Mac, are soon used up."""
    with suppress(OSError, ValueError):  # a sandbox may forbid even to ask
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
        if resource.RLIM_INFINITY != soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
