"""The daemon as users meet it: a real process, real signals, a config that is edited, Sources and Targets that come and go."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fakes.daemon import Daemon, until
from tests.fakes.label_studio import Request, StandIn

FILES = """\
sources: {{drop: {{type: files, path: ./exports}}}}
targets: {{disk: {{type: local, path: ./disk/cats}}, other: {{type: local, path: ./disk/dogs}}}}
syncs:
  cats: {{source: drop, target: disk{cats}}}
{more}
"""
STUDIO = """\
sources: {{studio: {{type: label_studio, url: "{url}", token_file: secrets/token, retry_for: 1s}}}}
targets: {{disk: {{type: local, path: ./disk/cats}}}}
syncs: {{cats: {{source: studio, target: disk, every: {every}}}}}
"""
DOGS = "{source: drop, target: other, every: 200ms}"


def files(cats: str = "", more: str = "") -> str:
    return FILES.format(cats=cats, more=more)


def drop(folder: Path, task: int, **more: object) -> None:
    """An export appears, written in two steps as `cp` would."""
    (folder / "exports/p").mkdir(parents=True, exist_ok=True)
    with (folder / f"exports/p/{task}.json").open("w") as file:
        file.write('{"id": ')
        file.flush()
        file.write(f"{task}, " + json.dumps(more | {"data": {}})[1:])


def daemon_on(folder: Path, text: str) -> Daemon:
    (folder / "syncd.yaml").write_text(text)
    return Daemon(folder / "syncd.yaml")


def syncd(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "syncd", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def studio() -> Iterator[StandIn]:
    with StandIn() as studio:
        studio.project("Cats").add([{"data": {"text": f"task {n}"}, "annotations": []} for n in range(20)])
        yield studio


def test_a_life(tmp_path: Path) -> None:
    """Start, a dropped export, edits of the config, a broken one, SIGHUP, SIGTERM."""
    drop(tmp_path, 1)
    with daemon_on(tmp_path, files(more="http: 127.0.0.1:0")) as daemon:
        first = daemon.wait_run("ok")
        url = daemon.lines[0]["message"].rpartition(" ")[2]
        assert httpx.get(f"{url}readyz").json() == {"ready": True, "reasons": []}
        assert "cats" in httpx.get(url).text
        assert (first["level"], first["written"], first["kind"], first["run"][:2]) == ("info", 1, "full", "20")
        until(lambda: {"READY=1", "WATCHDOG=1"} <= set(daemon.heard))

        drop(tmp_path, 2)  # and nothing but its folder says so
        until((tmp_path / "disk/cats/p/2.json").exists)

        since = len(daemon.lines)
        daemon.config.with_suffix(".new").write_text(files(more=f"  dogs: {DOGS}\nhttp: 127.0.0.1:0"))
        daemon.config.with_suffix(".new").replace(daemon.config)  # as editors do
        daemon.wait(lambda line: line["message"] == "the config was read again: added dogs", since=since)
        daemon.wait_run("ok", "dogs")
        assert {"RELOADING=1"} <= set(daemon.heard)

        since = len(daemon.lines)
        daemon.config.write_text(files(more=f"  dogs: {DOGS.replace('every', 'evry')}\nhttp: 127.0.0.1:0"))
        broken = daemon.wait(lambda line: line["level"] == "error", since=since)
        assert "syncd.yaml:5:39: syncs.dogs.evry: unknown key" in broken["message"]
        assert "stays" in broken["message"]
        daemon.wait_run("ok", "dogs", since=len(daemon.lines))  # as before

        since = len(daemon.lines)
        daemon.config.write_text(files(more="http: 127.0.0.1:0"))
        daemon.wait(lambda line: "removed dogs" in line["message"], since=since)

        since = len(daemon.lines)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait(lambda line: "no Sync changed" in line["message"], since=since)
        assert daemon.end() == 0
        assert "STOPPING=1" in daemon.heard
    assert [line for line in daemon.lines if line["level"] != "info"] == [broken]
    assert sum(line.get("sync") == "dogs" for line in daemon.lines[since:]) <= 1  # one may have been under way


def test_kubernetes_swaps_a_link(tmp_path: Path) -> None:
    """A ConfigMap's volume: the file is a link through `..data`, which is replaced as a whole."""
    drop(tmp_path, 1)
    mount = tmp_path / "etc"

    def publish(version: str, text: str) -> None:
        (mount / version).mkdir(parents=True)
        (mount / version / "syncd.yaml").write_text(text.replace("./", f"{tmp_path}/"))
        (mount / "..new").symlink_to(version)
        (mount / "..new").rename(mount / "..data")

    publish("..1", files(", every: 1h"))
    (mount / "syncd.yaml").symlink_to("..data/syncd.yaml")
    with Daemon(mount / "syncd.yaml") as daemon:
        daemon.wait_run("ok")
        publish("..2", files(", every: 1h", f"  dogs: {DOGS}"))
        shutil.rmtree(mount / "..1")
        daemon.wait_run("ok", "dogs")
        assert daemon.end() == 0


def test_sigterm_in_the_middle_of_a_big_first_run(tmp_path: Path) -> None:
    """Exit 0 although the Source is silent; the next start goes on at the page where it stopped."""
    (tmp_path / "secrets").mkdir()
    with StandIn.million(6000) as studio:
        (tmp_path / "secrets/token").write_text(studio.token)
        silent = threading.Event()

        def pages() -> int:
            return studio.paths().count("GET /api/tasks")

        def be_silent(_: Request) -> None:
            if pages() > 6:
                silent.wait(60)

        studio.instead = be_silent
        with daemon_on(tmp_path, STUDIO.format(url=studio.url, every="1h")) as daemon:
            place = tmp_path / "disk/cats/1"
            until(lambda: pages() > 6 and any(place.glob("[0-9]*.json")))
            assert daemon.end() == 0
            assert any("interrupted" in line["message"] for line in daemon.lines)
            before = len(list(place.glob("[0-9]*.json")))
            assert 0 < before < 6000
            silent.set()
            daemon.start()
            assert daemon.wait_run("ok")["written"] <= 6000 - before
            assert len(list(place.glob("[0-9]*.json"))) == 6000
            assert daemon.end(signal.SIGINT) == 0


def test_a_second_sigterm_ends_it_at_once(tmp_path: Path, studio: StandIn) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/token").write_text(studio.token)
    silent = threading.Event()

    def be_silent(_: Request) -> None:
        silent.wait(60)

    studio.instead = be_silent
    with daemon_on(tmp_path, STUDIO.format(url=studio.url, every="200ms")) as daemon:
        until(lambda: studio.requests)
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait(lambda line: "stopping" in line["message"])
        assert daemon.end() == 130
    silent.set()


def test_a_secret_is_read_again_when_it_changes(tmp_path: Path, studio: StandIn) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/token").write_text("f" * 40)
    with daemon_on(tmp_path, STUDIO.format(url=studio.url, every="200ms")) as daemon:
        daemon.wait_run("failed")
        error = daemon.wait(lambda line: line["level"] == "error")
        assert (error["sync"], "f" * 40 in str(daemon.lines)) == ("cats", False)
        (tmp_path / "secrets/new").write_text(studio.token)
        (tmp_path / "secrets/new").replace(tmp_path / "secrets/token")
        daemon.wait(lambda line: "changed cats" in line["message"])
        daemon.wait_run("ok")
        since = len(daemon.lines)
        (tmp_path / "later").mkdir()
        (tmp_path / "new").write_text(daemon.config.read_text().replace("secrets/token", "later/token"))
        (tmp_path / "new").replace(daemon.config)
        daemon.wait(lambda line: "the one before it stays" in line["message"], since=since)
        daemon.wait_run("ok", since=len(daemon.lines))
        (tmp_path / "later/token").write_text(studio.token)  # in a folder that no config in force names
        daemon.wait(lambda line: "read again" in line["message"], since=since)
        assert daemon.end() == 0
    assert studio.token not in str(daemon.lines)


def test_the_target_is_away_for_a_while(tmp_path: Path) -> None:
    drop(tmp_path, 1)
    (tmp_path / "disk").mkdir()
    with daemon_on(tmp_path, files(", every: 200ms")) as daemon:
        daemon.wait_run("ok")
        (tmp_path / "disk").rename(tmp_path / "unplugged")
        (tmp_path / "disk").touch()
        drop(tmp_path, 2)
        daemon.wait_run("failed")
        told = json.loads(syncd("status", "--json", "-c", str(daemon.config)).stdout)
        assert told["error"]  # whether or not the next Run goes on just now
        since = len(daemon.lines)
        (tmp_path / "disk").unlink()
        (tmp_path / "unplugged").rename(tmp_path / "disk")
        daemon.wait_run("ok", since=since)
        until((tmp_path / "disk/cats/p/2.json").exists)
        assert daemon.end() == 0


def test_a_person_confirms_deletions_while_the_daemon_runs(tmp_path: Path) -> None:
    """The command that the Guard's message and the page give: `syncd sync` can't have the Checkpoint, so it leaves word."""

    def export(tasks: int) -> None:
        """All at once, or a Run would see a few deletions, which the Guard lets pass."""
        (tmp_path / "new").write_text(json.dumps([{"id": task + 1} for task in range(tasks)]))
        (tmp_path / "new").replace(tmp_path / "exports/p/all.json")

    (tmp_path / "exports/p").mkdir(parents=True)
    export(40)
    with daemon_on(tmp_path, files(", every: 200ms")) as daemon:
        daemon.wait_run("ok")
        export(10)
        daemon.wait_run("guarded")
        told = daemon.wait(lambda line: "the Guard stopped the deletions" in line["message"])["message"]
        status = json.loads(syncd("status", "--json", "-c", str(daemon.config)).stdout)
        assert (status["plan_id"] in told.split(), len(list((tmp_path / "disk/cats/p").glob("[0-9]*.json")))) == (True, 40)
        since = len(daemon.lines)
        said = syncd(*shlex.split(told.partition("If they are meant: syncd ")[2]))
        assert (said.returncode, "the running syncd was told" in said.stderr) == (0, True)
        assert daemon.wait_run("ok", since=since)["trashed"] == 30
        assert syncd("sync", "cats", "-c", str(daemon.config)).returncode == 11
        assert daemon.end() == 0


def test_a_second_daemon_on_the_same_state_is_refused(tmp_path: Path) -> None:
    drop(tmp_path, 1)
    with daemon_on(tmp_path, files(", every: 1h")) as daemon:
        daemon.wait_run("ok")
        second = syncd("run", "-c", str(daemon.config))
        assert (second.returncode, json.loads(second.stderr.splitlines()[-1])["level"]) == (11, "error")
        assert daemon.end() == 0


def test_an_address_that_is_taken_ends_it_before_anything_runs(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with daemon_on(tmp_path, files(more=f"http: 127.0.0.1:{port}")) as daemon:
            assert daemon.process.wait(60) == 1
        assert f"127.0.0.1:{port}" in daemon.lines[-1]["message"]
        assert not (tmp_path / "disk").exists()


def test_a_config_that_is_wrong_at_the_start_ends_it(tmp_path: Path) -> None:
    with daemon_on(tmp_path, "syncs: {}") as daemon:
        assert daemon.process.wait(60) == 78
    assert "syncd.yaml:1" in daemon.lines[0]["place"]
