"""Two syncd on the same Source: one is killed, paused and its Checkpoint spoilt, whatever it does; the other is a daemon that must stay.

Each has a Sync into a bucket and one into a folder. Whatever ends by itself must end with an exit code that the README has, and without a traceback.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.fakes.places import BUCKET
from tests.soak.places import Bucket, Folder, Place, flip

ROOT = Path(__file__).parents[2]
SYNCS = ("bucket", "disk")
KNOWN = {0, 1, 3, 11, 12, 20, 130, -signal.SIGKILL, -signal.SIGTERM}
LONGEST = 180.0  # seconds that a command may take when nothing disturbs it
_CONFIG = """\
sources: {{studio: {{type: label_studio, url: "{source}", token_file: {token}, retry_for: 3s, timeout: 6s}}}}
targets:
  bucket: {{type: s3, bucket: {bucket}, prefix: {name}, endpoint: "{target}", region: us-east-1, access_key_id: test, secret_access_key: test,
            retry_for: 3s}}
  disk: {{type: local, path: {disk}}}
syncs:
  bucket: &rules
    {{source: studio, target: bucket, every: {every}, full_every: {full_every}, drafts_every: 0s, trash_retention: 3650d,
     history: {{keep_within: 30d, keep_last: 3}}, max_delete: {{fraction: 0.1, at_least: 5}}}}
  disk: {{<<: *rules, target: disk}}
state: {state}
http: 127.0.0.1:0
"""


class Violation(Exception):  # noqa: N818 - what the soak looks for, not a fault of its own
    """Something that must hold does not."""


@dataclass
class Home:
    """Where one syncd lives, and what it is told. disk, state: folders that it makes."""

    name: str
    folder: Path
    disk: Path
    state: Path
    places: dict[str, Place]

    @property
    def config(self) -> Path:
        return self.folder / "syncd.yaml"

    def run(self, *words: str) -> tuple[int, list[dict[str, Any]], str]:
        """A command with `--json`, undisturbed: its exit code, its lines, and what it said on stderr."""
        done = subprocess.run(
            [sys.executable, "-m", "syncd", *words, "--json", "-c", self.config],
            capture_output=True, text=True, timeout=LONGEST, check=False, cwd=ROOT, env=self.env,
        )  # fmt: skip
        judge(done.returncode, done.stderr, words)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    @property
    def env(self) -> dict[str, str]:
        """Temporary files have a folder of their own, so that those left behind are seen."""
        return os.environ | {"TMPDIR": str(self.folder / "tmp")}


def home(name: str, folder: Path, disk: Path, client: Any, source: str, target: str, *, every: str, full_every: str, state: Path) -> Home:
    """Write its config."""
    (folder / "tmp").mkdir(parents=True)
    made = Home(name, folder, disk / name, state, {"bucket": Bucket(client, f"{name}/"), "disk": Folder(disk / name)})
    told = {"source": source, "target": target, "token": folder.parent / "token", "bucket": BUCKET, "disk": made.disk, "state": state}
    made.config.write_text(_CONFIG.format(name=name, every=every, full_every=full_every, **told))
    return made


def judge(code: int, stderr: str, words: object) -> None:
    """Raises Violation for an end that no user may see."""
    for bad in ("Traceback", "a fault of syncd"):
        if bad in stderr:
            raise Violation(f"{words}: {stderr[-6000:]}")
    if code not in KNOWN:
        raise Violation(f"{words} ended with {code}: {stderr[-2000:]}")


class Mortal:
    """The one that dies: at any moment it may be doing any of this."""

    COMMANDS = (
        ["run"], ["run"], ["run"], ["sync"], ["sync"], ["sync", "--full"], ["verify", "--repair"], ["verify", "--read-data", "--repair"],
        ["verify", "--read-data", "--source"], ["restore", "bucket", "--force", "--to-folder"], ["restore", "disk", "--force", "--to-folder"],
        ["doctor"], ["plan"], ["prune"], ["history", "bucket", "1"], ["changes", "disk"], ["status"],
    )  # fmt: skip

    def __init__(self, home: Home, chance: Random) -> None:
        self.home, self._chance = home, chance
        self._child: subprocess.Popen[bytes] | None = None
        self._words: list[str] = []
        self._log = home.folder / "stderr"
        self.lost = False  # the Checkpoint needs to be made anew
        self.spoilt = False  # it was flipped or lost since the last calm point
        self.wrong = 0.0  # seconds that its clock is off
        self.kills = self.commands = self.peak = 0
        self.paused = False

    def live(self) -> None:
        """Start something if nothing goes on; notice what has ended."""
        if self._child is not None:
            self.peak = max(self.peak, kib(self._child.pid, "VmHWM"))
            if self._child.poll() is None:
                return
            self._ended()
        words = ["rebuild"] if self.lost else list(self._chance.choice(self.COMMANDS))
        self._words = [*words, str(self.home.folder / "restored")] if "restore" in words else words
        steps = [f"{self.wrong}", f"{self._chance.uniform(0, 5)}", f"{self._chance.choice([0, 0, 0, -3600, 3600, 40])}"]
        command: list[str | Path] = [sys.executable, "-m", "tests.soak.stepped", *steps, *self._words, "-c", self.home.config]
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(command, cwd=ROOT, env=self.home.env, stdout=subprocess.DEVNULL, stderr=log)
        self.commands += 1

    def kill(self) -> None:
        if self._child is not None:
            self._signal(signal.SIGKILL)
            self._child.wait()
            self._ended()
            self.kills += 1

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        self._signal(signal.SIGCONT)
        self.paused = False

    def short_of_space(self) -> None:
        """No file of it may grow beyond some size."""
        if self._child is not None and self._child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(self._child.pid, resource.RLIMIT_FSIZE, (self._chance.choice([0, 700, 30_000]), resource.RLIM_INFINITY))

    def end(self) -> None:
        """Ask it to end."""
        self.resume()
        if self._child is not None:
            self._signal(signal.SIGTERM)
            try:
                self._child.wait(LONGEST)
            except subprocess.TimeoutExpired:
                raise Violation(f"{self._words} did not end within {LONGEST:.0f} s of SIGTERM") from None
            self._ended()

    def flip(self) -> bool:
        """One bit of its closed Checkpoint is another one."""
        path = self.home.state / "checkpoint.sqlite"
        if not path.exists():
            return False
        flip(path, self._chance)
        self.spoilt = True
        return True

    def lose(self) -> None:
        """Its Checkpoint is gone."""
        shutil.rmtree(self.home.state, ignore_errors=True)
        self.spoilt = self.lost = True

    def _signal(self, number: signal.Signals) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)

    def _ended(self) -> None:
        assert self._child is not None
        stderr = self._log.read_text(errors="replace")
        judge(self._child.returncode, stderr, self._words)
        self.lost = (self.lost and self._child.returncode not in {0, 3, 20}) or "syncd rebuild" in stderr
        self._child = None


class Steady:
    """The one that stays."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._log = home.folder / "stderr"
        with self._log.open("wb") as log:
            command: list[str | Path] = [sys.executable, "-m", "syncd", "run", "-c", home.config]
            self._child = subprocess.Popen(command, cwd=ROOT, env=home.env, stdout=subprocess.DEVNULL, stderr=log)
        self.counts: dict[str, int] = {}
        self._last: dict[str, str] = {}  # how each Sync's last Run ended
        self._read = 0

    def lines(self) -> list[dict[str, Any]]:
        """What it logged since the last time."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            text = log.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        judge(self._child.poll() or 0, whole.decode(), "the daemon")
        if self._child.poll() is not None:
            raise Violation(f"the daemon ended with {self._child.returncode}: {whole.decode()[-2000:]}")
        found: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]
        for line in found:
            if "status" in line:
                line["after"], self._last[line["sync"]] = self._last.get(line["sync"], ""), line["status"]
                self.counts[line["status"]] = self.counts.get(line["status"], 0) + 1
        return found

    def wait_well(self, *, full: bool) -> None:
        """Until a Run of each Sync, a full one if need be, that begins from now on has ended well; what the Guard holds back is meant."""
        self.lines()
        missing, begun, end = set(SYNCS), time.time(), time.monotonic() + LONGEST
        while missing:
            if time.monotonic() > end:
                raise Violation(f"no Run of {missing} ended well within {LONGEST:.0f} s, although nothing is wrong any more: {self._tail()}")
            time.sleep(0.1)
            for line in self.lines():
                if meant := re.search(r"--confirm-deletes (\w+)", line["message"]):
                    self.home.run("sync", line["sync"], "--confirm-deletes", meant[1])
                elif line.get("status") == "ok" and began(line["run"]) > begun:
                    # a full Run after one that failed may go on with a first pass of that one: then the full one is still to come
                    enough = not full or (line["kind"] == "full" and line["after"] != "failed")
                    missing -= {line["sync"]} if enough else set()

    def pause(self) -> None:
        self._child.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._child.send_signal(signal.SIGCONT)

    def measure(self) -> tuple[int, int, int]:
        """KiB, open descriptors, threads."""
        proc = Path(f"/proc/{self._child.pid}")
        return kib(self._child.pid, "VmRSS"), len(list((proc / "fd").iterdir())), len(list((proc / "task").iterdir()))

    def end(self) -> None:
        self.resume()
        self._child.terminate()
        code = self._child.wait(LONGEST)
        if code:
            raise Violation(f"the daemon ended with {code} after SIGTERM: {self._tail()}")

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()

    def _tail(self) -> str:
        return self._log.read_text()[-2000:]


def began(run_id: str) -> float:
    """When a Run began, by its id."""
    moment = time.strptime(run_id[:15] + "+0000", "%Y%m%d-%H%M%S%z")
    return time.mktime(moment) - time.timezone + int(run_id[16:21], 16) / 1e6


def kib(pid: int, name: str) -> int:
    """A number of /proc/PID/status; 0 when the process is gone."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1])
    return 0
