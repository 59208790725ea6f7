"""The soak: `python -m tests.soak --seconds 300 [--seed N]`, or `make soak SECONDS=300 [SEED=N]`.

A real Label Studio is edited at random; two syncd back it up through proxies that misbehave, into moto's S3 and onto a small disk that fills up. One
of them dies, sleeps, gets a wrong clock, loses its Checkpoint; files of it are tampered with. Every half minute all is well again for a moment, and
then everything must hold: see `calm`. Ends with 1 and the seed when something did not; the same seed makes the same choices, at other moments.
"""

from __future__ import annotations

import argparse
import logging
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random

from tests.fakes.places import S3Server
from tests.fakes.proxy import FaultProxy
from tests.live.server import TOKEN, LabelStudio
from tests.soak.calm import Moments, check_mortal, check_steady
from tests.soak.places import Bucket, Folder, Place, tamper
from tests.soak.studio import Studio
from tests.soak.syncds import SYNCS, Mortal, Steady, Violation, home
from tests.soak.trouble import Disk, Network, Token

STORM = 30.0  # seconds between two calm points
MORE_MEMORY, MOST_MEMORY = 40_000, 300_000  # KiB: that the daemon may grow by; that any syncd may ever have
MORE_HANDLES, MORE_THREADS = 12, 14  # a Run that goes on holds some
OUTSIDE = {"canary.txt": b"not syncd's", "mortal.json": b"{}", "mortal-2/1/1.json": b"{}", "steadyx/1/1.json": b"{}"}


class Soak:
    """Everything that goes on at once."""

    def __init__(self, folder: Path, chance: Random, cleanup: ExitStack) -> None:
        self.chance = chance
        server, store = cleanup.enter_context(LabelStudio()), cleanup.enter_context(S3Server())
        source, target = cleanup.enter_context(FaultProxy(server.url)), cleanup.enter_context(FaultProxy(store.url))
        (folder / "token").write_text(TOKEN)
        self.disk = cleanup.enter_context(Disk(folder / "disk"))
        client = store.client()
        self.outside: list[Place] = [Bucket(client, ""), Folder(folder / "disk")]
        for place in self.outside:
            for key, data in OUTSIDE.items():
                place.put(key, data)
        self.studio, self.network, self.token = Studio(server, chance), Network(source, target, chance), Token(server)
        make = partial(home, disk=folder / "disk", client=client, source=source.url, target=target.url)
        mortal = make("mortal", folder / "m", every="1s", full_every="24h", state=folder / "disk/mortal-state")
        steady = make("steady", folder / "s", every="3s", full_every="20s", state=folder / "s/state")
        self.mortal, self.steady = Mortal(mortal, chance), Steady(steady)
        cleanup.callback(self.steady.kill)
        cleanup.callback(self.mortal.kill)
        self.moments = Moments(), Moments()
        self.harmed = False
        self.counts = Counter[str]()
        self.first: tuple[int, int, int] | None = None
        self._log = (folder / "story").open("w")
        cleanup.callback(self._log.close)

    def step(self) -> None:
        """Something happens."""
        happenings: list[tuple[int, Callable[[], object]]] = [
            (40, self.studio.edit), (14, self.network.spoil), (6, self.network.heal), (8, self.mortal.kill), (4, self.mortal.pause),
            (12, self.mortal.resume), (3, self._sleep), (3, self._fill), (3, self.disk.free), (1, self.token.take), (4, self.token.give_back),
            (3, self._tamper), (1, self._flip), (1, self._lose), (2, self._wrong_clock), (8, lambda: time.sleep(self.chance.uniform(0, 2))),
        ]  # fmt: skip
        weights, acts = zip(*happenings, strict=True)
        (act,) = self.chance.choices(acts, weights)
        name = getattr(act, "__name__", "").strip("_")
        self.counts[name] += 1
        if not self.mortal.paused:
            self.mortal.live()
        self.tell(f"{name} {act() or ''}")

    def tell(self, what: str) -> None:
        self._log.write(f"{time.strftime('%H:%M:%S')} {what}\n")
        self._log.flush()

    def calm(self) -> None:
        """Nothing is wrong any more; then everything must hold."""
        self.network.heal()
        self.disk.free()
        self.steady.resume()
        while not self.token.valid:
            self.token.give_back()
        self.mortal.end()
        self.mortal.wrong = 0.0
        self.tell("calm")
        check_mortal(self.mortal, self.studio, self.moments[0], self.chance, harmed=self.harmed or self.studio.silent)
        check_steady(self.steady, self.studio, self.moments[1], self.chance, silent=self.studio.silent)
        self.harmed = self.studio.silent = False
        for place in self.outside:
            files = place.files()
            strange = {key for key in files if not key.startswith(("mortal/", "steady/", "mortal-state/")) and OUTSIDE.get(key) != files[key]}
            if strange or OUTSIDE.keys() - files.keys():
                raise Violation(f"touched outside the places: {strange or OUTSIDE.keys() - files.keys()}")
        self._measure()

    def line(self) -> str:
        """What happened so far, and what was measured."""
        memory, handles, threads = self.steady.measure()
        tasks = sum(len(project.ids()) for project in self.studio.projects)
        return (
            f"{self.studio.done} edits ({self.studio.refused} refused), {self.network.planned} faults ({self.network.fired} fired), "
            f"{self.mortal.commands} commands, {self.mortal.kills} kills, {self.counts['pause'] + self.counts['sleep']} pauses, "
            f"{self.counts['tamper']} tampered, {self.counts['lose'] + self.counts['flip']} Checkpoints spoilt; {tasks} tasks; daemon: "
            f"{' '.join(f'{count} {status}' for status, count in sorted(self.steady.counts.items()))}, "
            f"{memory // 1024} MiB, {handles} descriptors, {threads} threads; the other at most {self.mortal.peak // 1024} MiB"
        )

    def _measure(self) -> None:
        now = self.steady.measure()
        self.first = first = self.first or now
        bounds = MORE_MEMORY, MORE_HANDLES, MORE_THREADS
        if any(value - before > bound for value, before, bound in zip(now, first, bounds, strict=True)) or self.mortal.peak > MOST_MEMORY:
            raise Violation(f"not flat: KiB, descriptors, threads of the daemon were {first}, are {now}; peak of the other: {self.mortal.peak} KiB")

    def _sleep(self) -> None:
        self.steady.pause()
        self.studio.edit()
        time.sleep(self.chance.choice([0.1, 2, 8]))
        self.steady.resume()

    def _fill(self) -> None:
        if self.disk.small:
            self.disk.fill(self.chance.choice([0, 0, 5_000, 60_000]))
        else:
            self.mortal.short_of_space()

    def _tamper(self) -> tuple[str, ...]:
        self.harmed = True
        self.disk.free()
        sync = self.chance.choice(SYNCS)
        done = tamper(self.mortal.home.places[sync], self.chance)
        self.moments[0].tampered |= {(sync, key) for key in done[1:]}
        return done

    def _flip(self) -> None:
        self.mortal.resume()
        self.mortal.kill()
        self.mortal.flip()

    def _lose(self) -> None:
        self.mortal.resume()
        self.mortal.kill()
        self.mortal.lose()

    def _wrong_clock(self) -> None:
        self.mortal.wrong = self.chance.choice([0, -7200, 7200])


def soak(seconds: float, seed: int) -> int:
    """0 when everything held."""
    print(f"soak: {seconds:.0f} s, SEED={seed}", flush=True)
    logging.getLogger().setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and leave nothing running
    folder, begun, number = Path(tempfile.mkdtemp(prefix="syncd-soak-")), time.monotonic(), 0
    try:
        with ExitStack() as cleanup:
            run = Soak(folder, Random(seed), cleanup)
            if not run.disk.small:
                print("no right to mount a small disk: files are limited in size instead", flush=True)
            while (now := time.monotonic()) < begun + seconds:
                while time.monotonic() < min(now + STORM, begun + seconds):
                    run.step()
                run.calm()
                number += 1
                print(f"calm {number:3} after {time.monotonic() - begun:5.0f} s: {run.line()}", flush=True)
            run.mortal.end()
            run.steady.end()
    except Violation as violation:
        print(f"\nVIOLATION after {time.monotonic() - begun:.0f} s (SEED={seed}), left behind in {folder}:\n{violation}", flush=True)
        return 1
    except Exception:
        print(f"\nthe soak itself failed (SEED={seed}), left behind in {folder}:", flush=True)
        raise
    shutil.rmtree(folder)
    print(f"soak: everything held at {number} calm points (SEED={seed})")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make soak", description="Random trouble with everything real; see the module's docstring.")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    sys.exit(soak(given.seconds, secrets.randbelow(10**9) if given.seed is None else given.seed))
