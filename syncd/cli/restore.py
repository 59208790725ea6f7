"""`syncd restore`: what is wanted, where to, and what became of it.

No other syncd may begin a Run of this state folder while the Target is being read; one that runs already, a daemon say, goes on, since reading harms
nobody: then `--at` gives one moment, and nothing but that the moving present. A Checkpoint that is lost or broken is no hindrance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
import yaml

from syncd import keys
from syncd.cli.jobs import moment, read
from syncd.cli.main import Call
from syncd.cli.output import clean, fold, log, paint
from syncd.cli.sync import failures, progress
from syncd.clock import Clock, SystemClock
from syncd.config import Config, open_checkpoint, open_folder, open_importer, open_target
from syncd.errors import CheckpointError, OwnedError, SyncdError
from syncd.keys import Layout
from syncd.model import Failure
from syncd.run import PARTIAL
from syncd.targets.base import Target
from syncd.upkeep.asof import Question, find
from syncd.upkeep.restore import Restored, begun, to_folder
from syncd.upkeep.restore_compare import LOST, Crowd
from syncd.upkeep.restore_label_studio import IDS, to_label_studio
from syncd.upkeep.restore_work import locked, stage

if TYPE_CHECKING:
    from syncd.sources.label_studio_import import Importer


def run_restore(
    call: Call, sync: str, *, projects: Sequence[str], tasks: Sequence[str], at: str, trashed: bool,
    path: str, force: bool, url: str, token_file: str, map_: str, work: str,
) -> int:  # fmt: skip
    """Restore, show what became of each project; 3 when something could not be restored, or is otherwise than it was."""
    for wrong, words in (
        (bool(path) == bool(url), "say where to: --to-folder FOLDER or --to-label-studio URL"),
        (at and trashed, "--at or --trashed, not both"),
        (url and not token_file, "--to-label-studio needs --token-file FILE"),
        (path and (token_file or map_ or work), "--token-file, --map and --work belong to --to-label-studio"),
        (url and force, "--force belongs to --to-folder: a Label Studio gets new projects"),
    ):
        if wrong:
            raise typer.BadParameter(words)
    config, _ = read(call, [sync])
    history = config.syncs[sync].history
    clock = SystemClock()
    question = Question(tuple(projects), tuple(tasks), moment("--at", at, clock) if at else None, trashed, history is not None and history.bucket)
    with closing(open_target(config, sync, clock)) as target, progress(sync, call) as on_progress:
        layout = Layout(config.syncs[sync].key)
        same = {"from": target.place, "key": layout.template, "projects": [*projects], "tasks": [*tasks], "trashed": trashed}
        if path:
            with _lease(config, sync), _folder(path, target, clock) as folder:
                same |= {"asked": at, "at": question.at}
                question = replace(question, at=begun(folder, same))
                same["at"] = question.at
                done = to_folder(find(target, layout, clock, question), folder, layout, same, force=force, on_progress=on_progress)
        else:
            kept, people = Path(work or f"restore-{sync}"), _people(map_)
            with closing(_server(url, token_file, clock)) as server:
                crowd = _crowd(server, people)
                with locked(kept):
                    with _lease(config, sync):
                        stage(find(target, layout, clock, question), kept, same | {"at": at, "to": server.url, "map": people})
                    done = list(to_label_studio(server, clock, kept, crowd, on_progress))
    return _show(call, sync, path or str(kept / IDS), done, told=not path)


@contextmanager
def _folder(path: str, target: Target, clock: Clock) -> Iterator[Target]:
    """The folder to restore to, which is neither in the Target, nor around it, nor another one."""
    folder = open_folder(Path(path), clock)
    if f"{folder.place}/".startswith(f"{target.place}/") or f"{target.place}/".startswith(f"{folder.place}/"):
        raise SyncdError(f"{folder.place} lies in the Target, or the Target in it: give another folder")
    if folder.get(keys.OWNER) is not None:
        raise SyncdError(f"{folder.place} is a Target, which only its own Sync writes to: give another folder")
    try:
        yield folder
    finally:
        folder.close()
        for left in ("_syncd/tmp", "_syncd"):  # if nothing is in it any more
            with suppress(OSError):
                Path(path, left).rmdir()


@contextmanager
def _lease(config: Config, sync: str) -> Iterator[None]:
    """Hold other syncds off, as far as that is possible."""
    with ExitStack() as held:
        try:
            if held.enter_context(closing(open_checkpoint(config, read_only=True))).id:  # else there is none, and none is made
                held.enter_context(closing(open_checkpoint(config)))
        except OwnedError:
            log.warning("%s: another syncd is at work: what it changes meanwhile is restored as it was or as it is then; --at gives one moment", sync)
        except CheckpointError as error:
            log.warning("%s: restoring without its Checkpoint: %s", sync, error)
        yield


def _people(path: str) -> Mapping[str, str]:
    if not path:
        return {}
    found = _text(path, "--map", yaml.safe_load)
    if not isinstance(found, dict) or not all(isinstance(name, str) for pair in found.items() for name in pair):
        raise typer.BadParameter(f"--map {path}: a line for each annotator is expected, `old@example.com: new@example.com`")
    return found


def _text(path: str, option: str, parse: Callable[[str], object] = str.strip) -> object:
    try:
        return parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text of the right form"
        raise typer.BadParameter(f"{option} {path}: {reason}") from None  # what it holds may be a secret


def _server(url: str, token_file: str, clock: Clock) -> Importer:
    token = str(_text(token_file, "--token-file"))
    if not re.fullmatch(r"[!-~]+", token):
        raise typer.BadParameter(f"--token-file {token_file}: a single line that holds the token alone is expected")
    try:
        return open_importer(url, token, clock)
    except ValueError:
        raise typer.BadParameter("--to-label-studio: the address of a server is expected, like https://studio.example.com") from None


def _crowd(server: Importer, people: Mapping[str, str]) -> Crowd:
    """Who is there; asked before anything else, so that what is wrong with the token or the map is said at once."""
    me, members = server.whoami(), server.people()
    if unknown := sorted(set(people.values()) - members):
        raise typer.BadParameter(f"--map: no member of {server.url}: {', '.join(unknown)}")
    return Crowd(me, members, people)


def _show(call: Call, sync: str, to: str, done: Sequence[Restored], *, told: bool) -> int:
    """What became of each project, then what is not as it was."""
    failed = [Failure(restored.project, task or None, why) for restored in done for task, why in restored.failed]
    header = ("PROJECT", "TITLE", "NEW PROJECT", "TASKS", "FILES", "SIZE", "FAILED")
    call.table(header, [_row(restored) for restored in done if restored.project], left=3)
    for restored in done:
        lines = [{"task": task or None, "error": why} for task, why in restored.failed]
        remarks = [fold(f"  {clean(restored.project)}: {count:,} {clean(remark)}") for remark, count in restored.remarks.items()]
        call.tell({"sync": sync, **asdict(restored), "failed": lines, "to": to}, *remarks)
    if told:
        call.say("  made anew by the server, as no import takes them:")
        call.say(*(fold(f"    {kind}: {', '.join(names.split())}", indent="      ") for kind, names in LOST.items()))
    call.say(f"{'ids' if told else 'files'}: {clean(to)}")
    if failed:
        call.say(paint(f"{len(failed):,} not restored, or not as they were:", "failed"))
        failures(call, failed, shown=20)
    return PARTIAL if failed else 0


def _row(restored: Restored) -> tuple[str, ...]:
    counts = (f"{restored.tasks:,}", f"{restored.files:,}", f"{restored.size:,}", f"{len(restored.failed):,}" if restored.failed else "")
    return (restored.project, restored.title, restored.new_project, *counts)
