"""Rules between the parts of a config. Pure but for resolving links in local folders: it looks at what was read and notes problems."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

from syncd.config.document import Document, Where
from syncd.config.edges import SOURCES
from syncd.config.shape import KINDS, SyncConfig
from syncd.fields import Fields

Place = tuple[str, ...]
"""Where a Target writes: type, endpoint and bucket, then folder by folder, so that a nested place starts with the outer one."""

_FEW = 6
Edges = Mapping[str, Fields | None]


def check(document: Document, sources: Edges, targets: Edges, found: Mapping[str, SyncConfig | None]) -> None:
    """Note every problem between the Syncs and the edges they name; those that are None have problems of their own."""
    syncs = {name: sync for name, sync in found.items() if sync}
    places: list[tuple[Place, str]] = []
    for name, sync in syncs.items():
        if sync.every is not None and sync.cron is not None:
            document.problem(("syncs", name, "cron"), "every and cron are both given", "keep one of them", at_key=True)
        if source := sources.get(sync.source):
            _kinds(document, name, sync, source)
        if target := targets.get(sync.target):
            places.append((_place(target), name))
    _shared(document, places, syncs)
    _loops(document, sources, targets, syncs)


def check_names(document: Document, sync: Mapping[str, object], where: Where, names: Mapping[str, Iterable[str]]) -> None:
    """Note a Source or Target that does not exist, also in a Sync that has other problems."""
    for kind, known in names.items():
        chosen = sync.get(kind)
        if isinstance(chosen, str) and chosen not in known and (*where, kind) not in document.spoiled:
            document.problem((*where, kind), f"there is no {kind} {chosen!r}", suggest(chosen, known))


def suggest(word: str, known: Iterable[str]) -> str:
    """The hint for a word that is not known: the nearest one, and all of them unless that makes it long."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    listed = f"known: {', '.join(known) or 'none'}"
    if not near:
        return listed
    return f'did you mean "{near[0]}"?' + (f" {listed}" if len(known) <= _FEW else "")


def _kinds(document: Document, name: str, sync: SyncConfig, source: Fields) -> None:
    edge = getattr(source, "type")  # noqa: B009 - each edge has it, only their common base can't say which
    for kind in KINDS:
        if getattr(sync, kind) is not None and kind not in SOURCES[edge]:
            document.problem(("syncs", name, kind), f"a {edge} source has no {kind}", f"it knows {', '.join(SOURCES[edge])}", at_key=True)


def _place(target: Fields) -> Place:
    """Edges share the names of their fields: type, endpoint, bucket, path, prefix."""
    said = {name: getattr(target, name, None) for name in ("type", "endpoint", "bucket", "path", "prefix")}
    path = said["path"].resolve().parts if isinstance(said["path"], Path) else ()
    prefix = tuple(part for part in str(said["prefix"] or "").split("/") if part)
    return (str(said["type"]), str(said["endpoint"] or "").rstrip("/").lower(), str(said["bucket"] or ""), *path, *prefix)


def _shared(document: Document, places: list[tuple[Place, str]], syncs: Mapping[str, SyncConfig]) -> None:
    """One place, one Sync (I6). In sorted order all places inside another one follow it directly."""
    order = list(syncs)
    outer: tuple[Place, str] | None = None
    for place, name in sorted(places, key=lambda entry: (entry[0], order.index(entry[1]))):
        if outer is None or place[: len(outer[0])] != outer[0]:
            outer = (place, name)
            continue
        first, second = sorted((outer[1], name), key=order.index)
        message = (
            f"writes to the same place as sync {first!r}" if place == outer[0] else f"its place and that of sync {first!r} lie inside each other"
        )
        document.problem(("syncs", second, "target"), message, "give each Sync a Target with a prefix or path of its own")


def _loops(document: Document, sources: Edges, targets: Edges, syncs: Mapping[str, SyncConfig]) -> None:
    """A folder that is read must not be written: a Sync would back up its own files."""
    written = {folder: sync.target for sync in syncs.values() if (folder := _folder(targets.get(sync.target)))}
    inside = {outer: target for folder, target in written.items() for outer in (folder, *folder.parents)}
    for name, sync in syncs.items():
        if folder := _folder(sources.get(sync.source)):
            target = inside.get(folder) or next((written[outer] for outer in folder.parents if outer in written), None)
            if target:
                message = f"the folders of source {sync.source!r} and target {target!r} lie inside each other"
                document.problem(("syncs", name, "source"), message, "move one of them: syncd would back up its own files")


def _folder(edge: Fields | None) -> Path | None:
    path = getattr(edge, "path", None)
    return path.resolve() if isinstance(path, Path) else None
