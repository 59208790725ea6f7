"""Really connect to every Source and Target, and say what is found and what to do.

Refuses to write where another syncd may own the place (I6), where no Sync will or where something is wrong already, and to leave its own probe files
behind; those of one that was killed go with the next. Rules:
- An error ends what is said of that one part; the others are looked at all the same.
- Nobody waits long: a request is tried again for a few seconds only, whatever `retry_for` says.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

from syncd.clock import SECOND, Clock
from syncd.config import Config, SyncConfig, open_checkpoint, open_source
from syncd.config.edges import NAMES, source_of, target_of
from syncd.errors import AccessError, SyncdError
from syncd.fields import Fields
from syncd.model import Collection
from syncd.run.history import forgotten
from syncd.run.opening import opened
from syncd.run.place import Place
from syncd.sources.base import Introduced, selected
from syncd.targets.base import Finding, Inspected, Sign, Target

_PROBE, _COPY = "_syncd/probe.json", "_syncd/probe-copy.json"
_PATIENCE = 5.0  # seconds
_CLOCKS_APART = 30 * SECOND  # more is worth a word; a Date has whole seconds, and the answer took its time
_SHOWN = 5  # Collections named
_LITTLE = 2 << 30  # bytes free
_UNUSED = Finding(Sign.ADVICE, "no Sync uses it", "add one under `syncs`, or remove it from the config")


def examine(config: Config, names: Sequence[str], clock: Clock) -> Iterator[tuple[str, Finding]]:
    """Each part's name (`checkpoint`, `source studio`, `target bucket`) with what is found of it, as it is found: what the Syncs of these names use;
    when they are all there are, also what none uses. Raises nothing of ours.
    """
    config = quick(config)
    syncs = {name: config.syncs[name] for name in names}
    every = len(syncs) == len(config.syncs)
    for name in config.sources if every else dict.fromkeys(rules.source for rules in syncs.values()):
        yield from _named(f"source {name}", _source(config, name, {sync: rules for sync, rules in syncs.items() if rules.source == name}, clock))
    yield from _named("checkpoint", _checkpoint(config))
    for sync, rules in syncs.items():
        yield from _named(f"target {rules.target}", _target(config, sync, clock))
    used = {rules.target for rules in config.syncs.values()}
    for name in config.targets if every else ():
        if name not in used:
            yield from _named(f"target {name}", _unused(config.targets[name], clock))


def quick(config: Config) -> Config:
    """The same with nobody waiting long."""

    def hasty(edge: Fields) -> Fields:
        return edge.model_copy(update={"retry_for": min(edge.retry_for, _PATIENCE)}) if hasattr(edge, "retry_for") else edge

    return config.model_copy(update={section: {name: hasty(edge) for name, edge in getattr(config, section).items()} for section in NAMES})


def _named(part: str, findings: Iterator[Finding]) -> Iterator[tuple[str, Finding]]:
    try:
        for finding in findings:
            yield part, finding
    except SyncdError as error:
        yield part, Finding(Sign.WRONG, str(error), refused=isinstance(error, AccessError))


def _source(config: Config, name: str, syncs: Mapping[str, SyncConfig], clock: Clock) -> Iterator[Finding]:
    with closing(source_of(config.sources[name], {}, clock)) as source:
        if isinstance(source, Introduced):
            who = source.whoami()
            yield Finding(Sign.OK, f"answers, and takes us for {who.name}")
            if who.time is not None:
                yield _clocks(clock.now(), who.time)
        seen = source.collections()
    yield _listed("shows", seen) if seen else Finding(Sign.ADVICE, "shows nothing yet", "check that its user may see the projects")
    for sync, rules in syncs.items():
        with closing(open_source(config, sync, clock)) as source:
            found = source.collections() if rules.selection() else ()
        if found:
            yield _listed(f"sync {sync} selects", found)
        for kind, patterns in rules.selection().items():
            for pattern in patterns:
                if not any(selected([pattern], c.id.removeprefix(f"{kind}/"), c.title) for c in found):
                    message = f"sync {sync}: nothing is named {pattern!r} in `{kind}`"
                    yield Finding(Sign.ADVICE if found else Sign.WRONG, message, "check id or title, and that the user of the Source may see it")
    if not syncs:
        yield _UNUSED


def _clocks(ours: int, theirs: int) -> Finding:
    if abs(theirs - ours) <= _CLOCKS_APART:
        return Finding(Sign.OK, "its clock and ours agree")
    message = f"its clock is {abs(theirs - ours) / SECOND:.0f} s {'ahead of' if theirs > ours else 'behind'} ours"
    return Finding(Sign.ADVICE, message, "set both by NTP; nothing is missed because of it, only dates in logs and trash are off")


def _listed(does: str, collections: Sequence[Collection]) -> Finding:
    names = [c.id if c.title in {"", c.id} else f"{c.title} ({c.id})" for c in collections[:_SHOWN]]
    more = f" and {len(collections) - _SHOWN} more" if len(collections) > _SHOWN else ""
    return Finding(Sign.OK, f"{does} {len(collections)} Collection{'' if len(collections) == 1 else 's'}: {', '.join(names)}{more}")


def _checkpoint(config: Config) -> Iterator[Finding]:
    with closing(open_checkpoint(config, read_only=True)) as checkpoint:
        yield Finding(Sign.OK, f"{config.state}: " + ("opens" if checkpoint.id else "none yet, the first Run makes it"))
    if not os.access(folder := _existing(config.state), os.W_OK | os.X_OK):
        yield Finding(Sign.WRONG, f"{folder}: this user may not write there", "change its owner or mode, or run as the user it belongs to")
    yield _room(folder)


def _target(config: Config, sync: str, clock: Clock) -> Iterator[Finding]:
    with closing(open_checkpoint(config, read_only=True)) as checkpoint, opened(config, sync, checkpoint, clock) as job:
        if refusal := Place(job, take_over=False).refusal():
            yield Finding(Sign.WRONG, str(refusal))
            return
        yield Finding(Sign.OK, f"{job.target.place}: answers, and no other syncd owns it")
        inspected = list(job.target.inspect()) if isinstance(job.target, Inspected) else []
        if (forgets := forgotten(job, inspected)) is not None:
            inspected.append(forgets)
        yield from inspected
        if not any(finding.sign is Sign.WRONG for finding in inspected):
            yield from _probed(job.target)
        if (folder := Path(job.target.place)).is_absolute():
            yield _room(_existing(folder))


def _unused(chosen: Fields, clock: Clock) -> Iterator[Finding]:
    with closing(target_of(chosen, clock)) as target:
        next(target.list("_syncd/"), None)
        yield Finding(Sign.OK, f"{target.place}: answers")
        yield _UNUSED


def _probed(target: Target) -> Iterator[Finding]:
    """Write, read back, list, copy, create and delete files that no Run would write."""
    data = f'{{"probe": "{secrets.token_hex(8)}"}}\n'.encode()
    try:
        target.put(_PROBE, data)
        target.flush()
        copied = target.copy(_PROBE, _COPY)
        target.flush()
        wrong = {
            "what was written is not read back": target.get(_PROBE) != data,
            "what was written is not listed as it is": [(s.key, s.size) for page in target.list(_COPY) for s in page] != [(_COPY, len(data))],
            "a copy is not what was copied": not copied or target.get(_COPY) != data,
        }
        keeps = target.conditional() and not target.create(_PROBE, b"{}")
    except BaseException:
        with suppress(SyncdError):  # what went wrong is on its way already
            target.delete([_PROBE, _COPY])
        raise
    target.delete([_PROBE, _COPY])
    target.flush()
    wrong["what is deleted is still there"] = any(target.get(each) is not None for each in (_PROBE, _COPY))
    if not any(wrong.values()):
        yield Finding(Sign.OK, "writes, reads back, lists, copies and deletes")
    yield from (Finding(Sign.WRONG, message, "a backup there could not be trusted: use another store") for message, so in wrong.items() if so)
    if keeps:
        yield Finding(Sign.OK, "creates a file only where there is none")
    else:
        message = "creates files over existing ones: two syncd that claim it at the same moment would not notice each other"
        yield Finding(Sign.ADVICE, message, "make sure that only one syncd is given this place")


def _existing(folder: Path) -> Path:
    """The folder, or the one it will be made in."""
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110 - False, not an error, where nobody may look


def _room(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    message = f"{free / 1e9:,.1f} GB free"
    return Finding(Sign.ADVICE, message, "make room: a backup only grows") if free < _LITTLE else Finding(Sign.OK, message)
