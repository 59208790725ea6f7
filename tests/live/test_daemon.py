"""The daemon beside a real Label Studio, and for a long time."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fakes.daemon import Daemon, until
from tests.fakes.label_studio import Request, StandIn
from tests.live.server import TOKEN, LabelStudio, Project, box, sample

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

EVERY = 3.0
CONFIG = """\
sources: {{studio: {{type: label_studio, url: "{url}", token: "{token}", retry_for: 2s}}}}
targets: {{disk: {{type: local, path: ./backup}}}}
syncs: {{cats: {{source: studio, target: disk, {rules}, hook_secret: only-for-tests, projects: [{projects}]}}}}
http: 127.0.0.1:0
"""


@pytest.fixture(scope="module")
def server() -> Iterator[LabelStudio]:
    """One of its own, since it is restarted."""
    with LabelStudio() as running:
        yield running


def config(server: LabelStudio, project: Project, rules: str) -> str:
    return CONFIG.format(url=server.url, token=TOKEN, rules=rules, projects=project.id)


def daemon_on(folder: Path, text: str) -> Daemon:
    (folder / "syncd.yaml").write_text(text)
    return Daemon(folder / "syncd.yaml")


def annotated(folder: Path, project: Project, task: int) -> int:
    try:
        return len(json.loads((folder / f"backup/{project.id}/{task}.json").read_text())["annotations"])
    except OSError:
        return -1


def seconds_until(folder: Path, project: Project, task: int, count: int) -> float:
    begun = time.monotonic()
    until(lambda: annotated(folder, project, task) == count)
    return time.monotonic() - begun


def test_an_annotation_is_in_the_target_within_every_and_two_seconds_and_a_server_may_restart(server: LabelStudio, tmp_path: Path) -> None:
    project = server.api.project("Cats")
    tasks = project.add([sample(n, annotations=0) for n in range(200)])
    with daemon_on(tmp_path, config(server, project, f"every: {EVERY:.0f}s")) as daemon:
        daemon.wait_run("ok")
        took = []
        for task in tasks[:6]:
            project.annotate(task, result=[box()])
            took.append(seconds_until(tmp_path, project, task, 1))
        print("seconds after the annotation:", [f"{seconds:.1f}" for seconds in took])
        assert max(took) <= EVERY + 2

        server.stop()
        daemon.wait_run("failed")
        assert httpx.get(daemon.lines[0]["message"].rpartition(" ")[2] + "healthz").status_code == 200
        server._start(server._folder / "data")
        project.annotate(tasks[10], result=[box()])
        assert seconds_until(tmp_path, project, tasks[10], 1) < 60
        assert daemon.end() == 0
    assert TOKEN not in str(daemon.lines)


def test_with_a_hook_an_annotation_is_in_the_target_within_two_seconds(server: LabelStudio, tmp_path: Path) -> None:
    project = server.api.project("Dogs")
    tasks = project.add([sample(n, annotations=0) for n in range(200)])
    with daemon_on(tmp_path, config(server, project, "every: 1h")) as daemon:
        daemon.wait_run("ok")
        url = daemon.lines[0]["message"].rpartition(" ")[2] + "hooks/cats"
        hook = {"url": url, "headers": {"X-Syncd-Secret": "only-for-tests"}, "project": project.id, "send_for_all_actions": True, "is_active": True}
        project.api.post("/api/webhooks/", hook)
        took = []
        for task in tasks[:6]:
            project.annotate(task, result=[box()])
            took.append(seconds_until(tmp_path, project, task, 1))
        print("seconds after the annotation:", [f"{seconds:.1f}" for seconds in took])
        assert max(took) <= 2
        assert daemon.end() == 0


def test_a_source_that_answers_nothing_delays_the_end_by_less_than_25_seconds(tmp_path: Path) -> None:
    with StandIn() as studio:
        studio.project("Cats").add([{"data": {}}])
        silent = [True]

        def be_silent(_: Request) -> None:
            while silent[0]:
                time.sleep(0.1)

        studio.instead = be_silent
        text = CONFIG.format(url=studio.url, token=studio.token, rules="every: 1s", projects=1).replace("retry_for: 2s", "retry_for: 1h")
        with daemon_on(tmp_path, text) as daemon:
            until(lambda: studio.requests)
            begun = time.monotonic()
            assert daemon.end(signal.SIGTERM) == 0
            assert time.monotonic() - begun < 25
        silent[0] = False


def test_two_thousand_syncs_are_cheap_while_idle(tmp_path: Path) -> None:
    for n in range(10):
        (tmp_path / f"exports/{n}").mkdir(parents=True)
        (tmp_path / f"exports/{n}/1.json").write_text('{"id": 1}')
    sources = ", ".join(f"s{n}: {{type: files, path: ./exports/{n}}}" for n in range(10))
    targets = ", ".join(f"t{n}: {{type: local, path: ./backup/{n}}}" for n in range(2000))
    syncs = ", ".join(f"c{n}: {{source: s{n % 10}, target: t{n}, every: 1h}}" for n in range(2000))
    with daemon_on(tmp_path, f"sources: {{{sources}}}\ntargets: {{{targets}}}\nsyncs: {{{syncs}}}\n") as daemon:
        until(lambda: sum(line.get("status") == "ok" for line in daemon.lines) >= 2000, seconds=300)
        time.sleep(10)  # what is left of the first Runs
        process = Path(f"/proc/{daemon.process.pid}")

        def used() -> float:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        before = used()
        time.sleep(30)
        share = (used() - before) / 30
        memory = next(int(line.split()[1]) for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS"))
        print(f"{share:.1%} of a core, {memory:,} KiB")
        assert share <= 0.02
        assert memory <= 120_000
        assert daemon.end() == 0


def test_memory_and_descriptors_are_flat_over_2000_runs(tmp_path: Path) -> None:
    """Four Syncs: one changes all the time, two are idle, one always fails; and the config is read again now and then."""
    for name in ("busy", "idle", "quiet", "broken"):
        (tmp_path / f"exports/{name}").mkdir(parents=True)
        (tmp_path / f"exports/{name}/1.json").write_text('{"id": 1}')
    (tmp_path / "exports/broken/2.json").write_text("{")
    sources = ", ".join(f"{name}: {{type: files, path: ./exports/{name}}}" for name in ("busy", "idle", "quiet", "broken"))
    targets = ", ".join(f"{name}: {{type: local, path: ./backup/{name}}}" for name in ("busy", "idle", "quiet", "broken"))
    syncs = ", ".join(f"{name}: {{source: {name}, target: {name}, every: 20ms}}" for name in ("busy", "idle", "quiet", "broken"))
    with daemon_on(tmp_path, f"sources: {{{sources}}}\ntargets: {{{targets}}}\nsyncs: {{{syncs}}}\n") as daemon:
        measured: list[tuple[int, int, int, int]] = []

        def count(what: str) -> int:
            return len(list(Path(f"/proc/{daemon.process.pid}/{what}").iterdir()))

        def measure(runs: int) -> None:
            status = Path(f"/proc/{daemon.process.pid}/status")
            memory = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmRSS"))
            measured.append((runs, memory, count("fd"), count("task")))

        for number in range(600, 3001, 400):
            while (done := sum("status" in line for line in daemon.lines)) < number:
                (tmp_path / "exports/busy/1.json").write_text(json.dumps({"id": 1, "data": {"text": str(time.time())}}))
                time.sleep(0.05)
            measure(done)
            daemon.process.send_signal(signal.SIGHUP)
        print("runs, KiB, descriptors, threads:", *measured, sep="\n")
        assert daemon.end() == 0
    first, last = measured[0], measured[-1]
    assert last[1] - first[1] < 8_000  # KiB
    assert last[2] - first[2] <= 6  # a Run that goes on holds some
    assert last[3] - first[3] <= 12
