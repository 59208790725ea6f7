"""Really connect to every Source and Target, and say what is found and what to do.

Refuses to write where another syncd may own the place (I6) or something is wrong already, and to leave its own probe files behind. Rules:
- An error ends what is said of that one part; the others are looked at all the same.
- Nobody waits long: a request is tried again for a few seconds only, whatever `retry_for` says.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from syncd import keys
from syncd.clock import SECOND, Clock
from syncd.config import Config, SyncConfig, open_checkpoint
from syncd.config.edges import source_of, target_of
from syncd.errors import AccessError, SyncdError
from syncd.fields import Fields
from syncd.model import Collection
from syncd.run.job import Job
from syncd.run.place import Place
from syncd.sources.base import Introduced, selected
from syncd.targets.base import Finding, Inspected, Sign, Target

_PATIENCE = 5.0  # seconds
_CLOCKS_APART = 30 * SECOND  # more is worth a word; a Date has whole seconds, and the answer took its time
_SHOWN = 5  # Collections named
_LITTLE = 2 << 30  # bytes free
_FEW = 100_000  # files that still fit

_UNUSED = Finding(Sign.ADVICE, "no Sync uses it", "add one under `syncs`, or remove it from the config")


@dataclass(frozen=True, slots=True)
class Doctor:
    """What to look at: the Syncs that are meant, all of the config's or some."""

    config: Config
    syncs: Sequence[str]
    clock: Clock

    def examine(self) -> Iterator[tuple[str, Finding]]:
        """Each part's name (`checkpoint`, `source studio`, `target bucket`) with what is found of it, as it is found. Raises nothing of ours."""
        rules = {name: self.config.syncs[name] for name in self.syncs}
        every = len(rules) == len(self.config.syncs)  # then also what no Sync uses
        for name in self.config.sources if every else dict.fromkeys(sync.source for sync in rules.values()):
            syncs = {sync: of for sync, of in rules.items() if of.source == name}
            yield from _named(f"source {name}", self._source(_quick(self.config.sources[name]), syncs))
        yield from _named("checkpoint", self._checkpoint())
        for name in self.config.targets if every else dict.fromkeys(sync.target for sync in rules.values()):
            owner = next((sync for sync, of in rules.items() if of.target == name), None)
            yield from _named(f"target {name}", self._target(_quick(self.config.targets[name]), owner))

    def _source(self, chosen: Fields, syncs: dict[str, SyncConfig]) -> Iterator[Finding]:
        with closing(source_of(chosen, {}, self.clock)) as source:
            if isinstance(source, Introduced):
                who = source.whoami()
                yield Finding(Sign.OK, f"answers, and takes us for {who.name}")
                yield _clocks(self.clock.now(), who.time)
            seen = source.collections()
        listed = _listed(seen)
        yield Finding(Sign.OK, f"shows {listed}") if seen else Finding(Sign.ADVICE, "shows nothing yet", "check that its user may see the projects")
        for name, rules in syncs.items():
            if selection := rules.selection():
                with closing(source_of(chosen, selection, self.clock)) as source:
                    chosen_by = source.collections()
                yield from _selection(name, selection, chosen_by)
        if not syncs:
            yield _UNUSED

    def _checkpoint(self) -> Iterator[Finding]:
        state = self.config.state
        with closing(open_checkpoint(self.config, read_only=True)) as checkpoint:
            size = sum(file.stat().st_size for file in state.glob("checkpoint.sqlite*"))
            yield Finding(Sign.OK, f"{state}: opens, {_size(size)}" if checkpoint.id else f"{state}: none yet, the first Run makes it")
        yield from _folder(state)

    def _target(self, chosen: Fields, sync: str | None) -> Iterator[Finding]:
        with closing(target_of(chosen, self.clock)) as target:
            taken = target.get(keys.OWNER) is not None
            if taken and (refusal := self._refusal(target, sync)):
                yield Finding(Sign.WRONG, refusal) if sync else replace(_UNUSED, message=refusal)
                return
            yield Finding(Sign.OK, f"{target.place}: " + (f"the place of sync {sync}" if taken else "nobody's place yet"))
            if sync is None:
                yield _UNUSED
            inspected = list(target.inspect()) if isinstance(target, Inspected) else []
            yield from inspected
            if any(finding.sign is Sign.WRONG for finding in inspected):
                yield Finding(Sign.ADVICE, "nothing was written to try it", "put that right first")
                return
            yield from _probed(target)
            if (folder := Path(target.place)).is_absolute():
                yield from _folder(folder)
                if _device(folder) == _device(self.config.state):
                    yield Finding(Sign.OK, "the Checkpoint is on the same file system: a full disk stops both, a broken one takes both")

    def _refusal(self, target: Target, sync: str | None) -> str:
        """Why it is not this Sync's place; empty when it is."""
        if sync is None:
            return f"{target.place}: no Sync uses it here, but one does elsewhere"
        rules = self.config.syncs[sync]
        with (
            closing(source_of(self.config.sources[rules.source], {}, self.clock)) as source,
            closing(open_checkpoint(self.config, read_only=True)) as checkpoint,
        ):
            return Place(Job(sync, rules, source, target, checkpoint, self.clock), take_over=False).refusal()


def _named(part: str, findings: Iterator[Finding]) -> Iterator[tuple[str, Finding]]:
    try:
        for finding in findings:
            yield part, finding
    except SyncdError as error:
        yield part, Finding(Sign.WRONG, str(error), refused=isinstance(error, AccessError))


def _quick(chosen: Fields) -> Fields:
    patience = min(getattr(chosen, "retry_for", 0.0), _PATIENCE)
    return chosen.model_copy(update={"retry_for": patience}) if "retry_for" in type(chosen).model_fields else chosen


def _clocks(ours: int, theirs: int | None) -> Finding:
    if theirs is None:
        message = "its answers have no Date, so the Cursor stays: each Run reads again what changed since the last one with a Date"
        return Finding(Sign.ADVICE, message, "let the proxy before it pass the Date header on")
    apart = (theirs - ours) / SECOND
    if abs(apart) * SECOND <= _CLOCKS_APART:
        return Finding(Sign.OK, "its clock and ours agree")
    message = f"its clock is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} ours"
    return Finding(Sign.ADVICE, message, "set both by NTP; nothing is missed because of it, only dates in logs and trash are off")


def _listed(collections: Sequence[Collection]) -> str:
    shown = [c.id if c.title in {"", c.id} else f"{c.title} ({c.id})" for c in collections[:_SHOWN]]
    rest = len(collections) - len(shown)
    return f"{len(collections)} Collection{'' if len(collections) == 1 else 's'}: {', '.join(shown)}" + (f" and {rest} more" if rest else "")


def _selection(sync: str, selection: dict[str, tuple[str, ...]], found: Sequence[Collection]) -> Iterator[Finding]:
    if found:
        yield Finding(Sign.OK, f"sync {sync} selects {_listed(found)}")
    for kind, patterns in selection.items():
        for pattern in patterns:
            if not any(selected([pattern], c.id.removeprefix(f"{kind}/"), c.title) for c in found):
                message = f"sync {sync}: nothing is named {pattern!r} in `{kind}`"
                yield Finding(Sign.ADVICE if found else Sign.WRONG, message, "check id or title pattern, and that the user of the Source may see it")


def _probed(target: Target) -> Iterator[Finding]:
    """Write, read back, list, create, copy and delete files that no Run would write."""
    name = f"_syncd/probe-{secrets.token_hex(8)}"
    probes = [f"{name}.json", f"{name}-copy.json"]
    try:
        yield from _used(target, *probes)
    except BaseException:
        with suppress(SyncdError):  # what went wrong is on its way already
            target.delete(probes)
        raise
    target.delete(probes)
    target.flush()
    left = [probe for probe in probes if target.get(probe) is not None]
    yield Finding(Sign.WRONG, f"what is deleted is still there: {left[0]}") if left else Finding(Sign.OK, "deletes")


def _used(target: Target, probe: str, copy: str) -> Iterator[Finding]:
    data = f'{{"probe": "{probe}"}}\n'.encode()
    target.put(probe, data)
    target.flush()
    copied = target.copy(probe, copy)
    target.flush()
    wrong = {
        "what was written is not read back": target.get(probe) != data,
        "what was written is not listed as it is": [(s.key, s.size) for page in target.list(probe) for s in page] != [(probe, len(data))],
        "a copy is not what was copied": not copied or target.get(copy) != data,
    }
    yield from (Finding(Sign.WRONG, message, "a backup there could not be trusted: use another store") for message, so in wrong.items() if so)
    if not any(wrong.values()):
        yield Finding(Sign.OK, "writes, reads back, lists and copies")
    if target.conditional() and not target.create(probe, b"{}"):
        yield Finding(Sign.OK, "creates a file only where there is none")
    else:
        message = "creates files over existing ones: two syncd that claim it at the same moment would not notice each other"
        yield Finding(Sign.ADVICE, message, "make sure that only one syncd is given this place")


def _folder(folder: Path) -> Iterator[Finding]:
    """Of a folder on this machine: whose it is, who may write, how much fits in. One that is missing yet: of the folder it will be made in."""
    try:
        found = next(path for path in (folder, *folder.parents) if path.exists())
        facts, disk = found.stat(), os.statvfs(found)
    except OSError as error:
        yield Finding(Sign.WRONG, f"{folder}: {error.strerror}", "let this user into the folders around it")
        return
    if not os.access(found, os.W_OK | os.X_OK):
        yield Finding(Sign.WRONG, f"{found}: this user may not write there", "change its owner or mode, or run as the user it belongs to")
    elif found == folder and facts.st_uid != os.geteuid():
        message = f"{found}: belongs to another user (uid {facts.st_uid}): what this one may do says nothing about that one"
        yield Finding(Sign.ADVICE, message, "run doctor as the user that syncd runs as")
    if found == folder and facts.st_mode & 0o002:
        yield Finding(Sign.ADVICE, f"{found}: everybody on this machine may write there", f"chmod o-w {found}")
    free = disk.f_bavail * disk.f_frsize
    little = free < _LITTLE or (disk.f_files and disk.f_favail < _FEW)
    message = f"{_size(free)} free" + (f", room for {disk.f_favail:,} files" if disk.f_files else "")
    yield Finding(Sign.ADVICE, message, "make room: a backup only grows") if little else Finding(Sign.OK, message)


def _device(folder: Path) -> int | None:
    with suppress(OSError, StopIteration):
        return next(path for path in (folder, *folder.parents) if path.exists()).stat().st_dev
    return None


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004 - as its units say
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
