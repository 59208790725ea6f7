"""Rules between the parts of a config. Pure but for resolving links in local folders: it looks at what was read and notes problems."""

from __future__ import annotations

import difflib
import os.path
from collections.abc import Iterable, Mapping
from pathlib import Path

from syncd.config.document import Document
from syncd.config.shape import KINDS
from syncd.fields import Fields

Place = tuple[str, ...]
"""Where a Target writes: type, endpoint and bucket, then folder by folder, so that a nested place starts with the outer one."""

_FEW = 6


def check(document: Document, edges: Mapping[str, Mapping[str, Fields]], syncs: Mapping[str, Mapping[str, object]]) -> None:
    """Note every problem between the Syncs, as written, and the edges they name; edges with problems of their own are blank."""
    taken = _Places()
    for name, sync in syncs.items():
        if sync.get("every") and sync.get("cron"):
            document.problem(("syncs", name, "cron"), "every and cron are both given", "keep one of them")
        for edge, known in (("source", edges["sources"]), ("target", edges["targets"])):
            if isinstance(chosen := sync.get(edge), str) and chosen not in known:
                document.problem(("syncs", name, edge), f"there is no {edge} {chosen!r}", suggest(chosen, known))
        _kinds(document, name, sync, _edge(edges["sources"], sync.get("source")))
        target = _edge(edges["targets"], sync.get("target"))
        if sync.get("history") in ("bucket", {"bucket": True}) and _type(target) and not getattr(target, "versions", False):
            hint = "write how many: history: {keep_last: 10, keep_within: 90d}"
            document.problem(("syncs", name, "history"), f"a {_type(target)} Target keeps no versions of its own", hint)
        if _type(target) and (other := taken.add(_place(target), name)):
            message = f"its place is also that of sync {other!r}, or they lie inside each other"
            document.problem(("syncs", name, "target"), message, "give each Sync a Target with a prefix or path of its own")
    for name, sync in syncs.items():
        folder = getattr(_edge(edges["sources"], sync.get("source")), "path", None)
        if isinstance(folder, Path) and (other := taken.find(_folder(folder))):
            message = f"its folder and that of target {syncs[other]['target']!r} lie inside each other"
            document.problem(("syncs", name, "source"), message, "move one of them: syncd would back up its own files")


def _kinds(document: Document, name: str, sync: Mapping[str, object], source: Fields) -> None:
    has = getattr(source, "kinds", KINDS[:1])
    for kind in KINDS:
        if _type(source) and kind in sync and kind not in has:
            document.problem(("syncs", name, kind), f"a {_type(source)} Source has no {kind}", f"remove it; it has: {', '.join(has)}")


def suggest(word: str, known: Iterable[str]) -> str:
    """The hint for a word that is not known: the nearest one, and all of them unless that makes it long."""
    known = list(known)
    near = difflib.get_close_matches(word.lower(), known, n=1)
    listed = f"known: {', '.join(known) or 'none'}"
    if not near:
        return listed
    return f'did you mean "{near[0]}"?' + (f" {listed}" if len(known) <= _FEW else "")


def _edge(known: Mapping[str, Fields], name: object) -> Fields:
    return known.get(name, Fields()) if isinstance(name, str) else Fields()


def _type(edge: Fields) -> str:
    """Edges share the names of their fields: type, endpoint, bucket, path, prefix. A blank one has none."""
    return str(getattr(edge, "type", ""))


def _place(target: Fields) -> Place:
    prefix = tuple(part for part in getattr(target, "prefix", "").split("/") if part)
    if isinstance(path := getattr(target, "path", None), Path):
        return _folder(path) + prefix
    return (_type(target), (getattr(target, "endpoint", None) or "").rstrip("/").lower(), getattr(target, "bucket", ""), *prefix)


def _folder(path: Path) -> Place:
    return ("local", *Path(os.path.realpath(path)).parts)


class _Places:
    """One place, one Sync (I6): finds who has a place that is the same, around or inside; as quick with thousands of them."""

    def __init__(self) -> None:
        self._taken: dict[Place, str] = {}
        self._around: dict[Place, str] = {}

    def find(self, place: Place) -> str | None:
        outer = (self._taken[place[:n]] for n in range(1, len(place) + 1) if place[:n] in self._taken)
        return next(outer, None) or self._around.get(place)

    def add(self, place: Place, name: str) -> str | None:
        """Take the place, or tell who has it."""
        if other := self.find(place):
            return other
        self._taken[place] = name
        for n in range(1, len(place)):
            self._around.setdefault(place[:n], name)
        return None
