"""What must hold when nothing is wrong any more: everything is there, whole, told, and nothing else was touched."""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.live.backup import exactly
from tests.live.compare import differences
from tests.soak.places import tasks
from tests.soak.studio import Studio
from tests.soak.syncds import SYNCS, Home, Mortal, Steady, Violation

World = dict[str, dict[int, Any]]
_TRIES = 6
_UNTOLD = 10**9  # files


@dataclass
class Moments:
    """What stood when, as one syncd told it. untold: what no feed tells of, since the Checkpoint that would have was lost; tampered: keys whose bytes
    syncd takes for its own when it copies them.
    """

    untold: dict[str, set[tuple[str, str]]] = field(default_factory=lambda: {sync: set() for sync in SYNCS})
    tampered: set[tuple[str, str]] = field(default_factory=set)
    then: list[tuple[str, World]] = field(default_factory=list)


def check_mortal(mortal: Mortal, studio: Studio, moments: Moments, chance: Random, *, harmed: bool) -> None:
    """One Run, or what else a person would do about the harm, makes everything right; then nothing is left to do. harmed: tampered with, or edited
    in a way that no Run but a full one sees.
    """
    home = mortal.home
    before = {sync: tasks(place.files()) for sync, place in home.places.items()}
    told = _sync(mortal)
    for sync, place in home.places.items():
        changed = {key for key, data in tasks(place.files()).items() if before[sync].get(key) != data}
        if told[sync] < len(changed):
            raise Violation(f"{home.name} {sync}: {len(changed)} files changed, the Reports tell of {told[sync]}")
    if harmed or mortal.spoilt:
        _mend(mortal, chance)
    _verified(home)
    code, _, stderr = home.run("doctor")  # it takes away the probe files of one that was killed
    if code:
        raise Violation(f"{home.name}: the doctor finds something wrong: {stderr}")
    _, idle, _ = home.run("sync")
    for report in idle:
        if (report["status"], report["written"], report["trashed"], report["failed"], report["target_requests"]) != ("ok", 0, 0, [], 0):
            raise Violation(f"{home.name}: a Run with nothing to do did something: {report}")
    if mortal.spoilt:
        for sync, place in home.places.items():
            moments.untold[sync] |= {(key, _digest(data)) for key, data in tasks(place.files()).items()}
    mortal.spoilt = False
    check_places(home, studio, moments)


def check_steady(steady: Steady, studio: Studio, moments: Moments, chance: Random, *, silent: bool) -> None:
    """The same beside the running daemon; and what stood at an earlier calm point can still be had."""
    steady.wait_well(full=silent)
    _verified(steady.home)
    check_places(steady.home, studio, moments)
    sync = chance.choice(SYNCS)
    if moments.then:
        at, world = chance.choice(moments.then)
        _equal(f"{sync} as of {at}", _restored(steady.home, sync, "--at", at), world)
    moments.then.append((time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1)), studio.truth()))
    time.sleep(1.1)


def _sync(mortal: Mortal, *words: str) -> dict[str, int]:
    """Runs that end well, if need be with a new Checkpoint and a person's word; how many files each Sync says it put."""
    home, told, waiting = mortal.home, dict.fromkeys(SYNCS, 0), [("sync", *words)]
    for _ in range(_TRIES):
        code, lines, stderr = home.run("rebuild") if mortal.lost else home.run(*waiting.pop())
        for line in lines:
            told[line["sync"]] += line["written"] + line["healed"]
        if "syncd rebuild" in stderr:  # a flipped bit that is met in the middle of a Run leaves no Report of what that one put
            told |= dict.fromkeys(set(SYNCS) - {line["sync"] for line in lines}, _UNTOLD)
        if mortal.spoilt and "of another Checkpoint" in stderr:  # its own name is another one now: a person says that it is the same
            mortal.lost, waiting = False, [("sync", sync, "--take-over") for sync in SYNCS]
            continue
        mortal.lost = "syncd rebuild" in stderr
        waiting += [("sync", line["sync"], "--confirm-deletes", line["plan_id"]) for line in lines if line["status"] == "guarded"]
        if not code and not mortal.lost and not waiting:
            return told
        waiting = waiting or [("sync", *words)]
    raise Violation(f"{home.name}: Runs do not end well, although nothing is wrong any more: {code} {lines} {stderr}")


def _mend(mortal: Mortal, chance: Random) -> None:
    """By a full Run and by verifying and repairing, or by the latter alone."""
    if mortal.spoilt or chance.random() < 0.5:
        _sync(mortal, "--full")
    waiting: list[list[str]] = [[]]  # what is said with the next tries
    for _ in range(_TRIES):
        code, lines, stderr = mortal.home.run("verify", "--read-data", "--source", "--repair", *waiting.pop())
        repairs = [(line["sync"], line["repair"]) for line in lines if "repair" in line]
        waiting += [[sync, "--confirm-deletes", repair["plan_id"]] for sync, repair in repairs if repair["plan_id"]]
        if not code and not waiting:
            return
        waiting = waiting or [[]]
        if any(repair["run"].get("plan_id") for _, repair in repairs):
            _sync(mortal)
    raise Violation(f"{mortal.home.name}: it can't be mended: {code} {lines} {stderr}")


def _verified(home: Home) -> None:
    code, lines, stderr = home.run("verify", "--read-data", "--source")
    if code:
        raise Violation(f"{home.name}: not right: {lines} {stderr}")


def check_places(home: Home, studio: Studio, moments: Moments) -> None:
    """Each place holds, restored, what the Source has; its trash what was deleted; its feed tells of all."""
    world = studio.truth()
    for sync in SYNCS:
        files = home.places[sync].files()
        _equal(f"{home.name} {sync}", _restored(home, sync), world)
        _told(home, sync, files, studio, moments)
        litter = [key for key in files if key.startswith("_syncd/") and key != "_syncd/owner.json" and not key.startswith("_syncd/changes/")]
        if litter:
            raise Violation(f"{home.name} {sync}: left behind: {litter}")
    strange = [path.name for path in (home.folder / "tmp").iterdir()]
    if strange:
        raise Violation(f"{home.name}: temporary files left behind: {strange}")


def _told(home: Home, sync: str, files: dict[str, bytes], studio: Studio, moments: Moments) -> None:
    _, lines, _ = home.run("changes", sync)
    put = {(line["key"], line["digest"]) for line in lines if line["op"] == "put"} | moments.untold[sync]
    for key, data in tasks(files).items():
        if (key, _digest(data)) not in put:
            raise Violation(f"{home.name} {sync}: no feed tells the put of {key}")
    trash = {key.rpartition("/")[2]: data for key, data in files.items() if "/_trash/" in key}
    # by a flipped bit in its Entry a task may look like another one: its old file goes to the trash before its new one is put
    replaced = {(line["run_id"], line["key"]) for line in lines if line["op"] == "put"} if moments.untold[sync] else set()
    for line in lines:
        if line["op"] not in {"trash", "delete"} or line["task"] is None:
            continue
        asked = {(line["project"], line["task"]), (line["project"], None)} & studio.deleted
        if not asked and line["why"] != "healed" and (line["run_id"], line["key"]) not in replaced:
            raise Violation(f"{home.name} {sync}: deleted, and nobody asked the Source to: {line}")
        if (sync, line["key"]) not in moments.tampered and _digest(trash.get(f"{line['task']}.{line['digest'][:12]}.json", b"")) != line["digest"]:
            raise Violation(f"{home.name} {sync}: deleted, and not in the trash: {line}")


def _restored(home: Home, sync: str, *words: str) -> World:
    folder = home.folder / "again"
    shutil.rmtree(folder, ignore_errors=True)
    code, lines, stderr = home.run("restore", sync, "--to-folder", str(folder), *words)
    # Earlier settings are kept by no rule. Of a put whose answer was lost the feed tells when it was seen, not what stood there before: who had the
    # task at that time misses it below.
    failed = [each for line in lines for each in line["failed"] if not words or (each["task"] and "feed doesn't tell" not in each["error"])]
    if failed or code not in ({0, 3} if words else {0}):
        raise Violation(f"{home.name} {sync}: not restored {words}: {lines} {stderr}")
    found: World = {}
    for key, path in {str(path.relative_to(folder)): path for path in folder.rglob("[0-9]*.json")}.items():
        project, _, name = key.partition("/")
        found.setdefault(project, {})[int(Path(name).stem)] = exactly(path.read_text())
    return found


def _equal(what: str, found: World, world: World) -> None:
    """Projects without tasks aside."""
    here, there = ({project: bodies for project, bodies in each.items() if bodies} for each in (found, world))
    different = list(differences(there, here))
    if different:
        raise Violation(f"{what} is not what the Source has (first: Source, second: backup): " + "\n".join(different[:10]))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
