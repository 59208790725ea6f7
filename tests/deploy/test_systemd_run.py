"""The unit under a real systemd, its hardening in force: it backs up into an S3 store, follows edits, is restarted when it hangs, ends cleanly."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.deploy.daemon import EXPORTS, config, wait_for_a_run
from tests.deploy.image import Image
from tests.deploy.machine import Machine
from tests.deploy.test_systemd_unit import UNIT
from tests.deploy.tools import DEPLOY, live
from tests.fakes.s3_sink import sink
from tests.live.server import free_port

pytestmark = live
SECRET = "only root may read this"
# what it needs of the machine beside its own folders; the watchdog in fast motion
DROP_IN = """\
[Service]
LoadCredential=s3:/etc/syncd/credentials/s3
WatchdogSec=3
RestartSec=1
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Config, secret, exports and drop-in, as an administrator would lay them."""
    folder = tmp_path_factory.mktemp("machine")
    folder.chmod(0o755)
    shutil.copytree(EXPORTS, folder / "exports")
    for path in (folder / "exports").rglob("*.json"):
        os.utime(path, (0, 0))  # long finished: no second Run for files that may still have grown
    (folder / "etc/credentials").mkdir(parents=True)
    (folder / "etc/credentials/s3").write_text(SECRET)
    (folder / "etc/credentials/s3").chmod(0o600)
    (folder / "drop-in").mkdir()
    (folder / "drop-in/test.conf").write_text(DROP_IN)
    return folder


@pytest.fixture(scope="module")
def url(files: Path) -> Iterator[str]:
    """Where the daemon answers, once its config is written."""
    listen = f"127.0.0.1:{free_port()}"
    with sink() as store:
        keys = {"access_key_id": "key", "secret_access_key_file": "${CREDENTIALS_DIRECTORY}/s3"}
        target = {"type": "s3", "bucket": "labels", "region": "us-east-1", "endpoint": store, **keys}
        (files / "etc/syncd.yaml").write_text(config(listen, exports=Path("/srv/exports"), target=target))
        yield f"http://{listen}"


@pytest.fixture(scope="module")
def machine(files: Path, url: str, image: Image) -> Iterator[Machine]:
    unit = "/etc/systemd/system/syncd.service"
    mounts = {"/opt/syncd": image.root / "opt/syncd", unit: UNIT, f"{unit}.d": files / "drop-in", "/etc/syncd": files / "etc"}
    with Machine(files / "boot.log", mounts | {"/srv/exports": files / "exports"}, writable="/etc/syncd") as booted:
        booted.run("systemctl", "start", "syncd")
        wait_for_a_run(url, lambda: journal(booted))
        yield booted


def journal(machine: Machine) -> str:
    return machine.run("journalctl", "--unit", "syncd", "--no-pager", "--output", "cat")


def shown(machine: Machine, name: str) -> str:
    return machine.run("systemctl", "show", "syncd", "--property", name, "--value")


@contextmanager
def said_again(machine: Machine, words: str) -> Iterator[None]:
    """What happens inside makes the journal say these words once more."""
    before = journal(machine).count(words)
    yield
    end = time.monotonic() + 60
    while journal(machine).count(words) == before:
        assert time.monotonic() < end, f"{words!r} was not said:\n{journal(machine)}"
        time.sleep(0.2)


def test_it_is_ready_when_it_says_so_and_backs_up_with_a_secret_that_only_root_can_read(machine: Machine, url: str) -> None:
    assert "active" == machine.run("systemctl", "is-active", "syncd")
    assert httpx.get(f"{url}/readyz").json()["ready"]
    assert SECRET not in journal(machine)


def test_its_hardening_is_in_force(machine: Machine) -> None:
    status = machine.run("cat", f"/proc/{shown(machine, 'MainPID')}/status")
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert "CapBnd:\t0000000000000000" in status
    assert not re.search(r"^Uid:\t0", status, flags=re.MULTILINE)


@pytest.mark.usefixtures("machine")
def test_metrics_of_the_process_are_told_all_the_same(url: str) -> None:
    assert "process_resident_memory_bytes" in httpx.get(f"{url}/metrics").text


def test_commands_beside_it_are_run_as_its_user(machine: Machine) -> None:
    """As deploy/README.md says."""
    readme = (DEPLOY / "README.md").read_text()
    (command,) = re.findall(r"^\$ sudo (systemd-run .*)$", readme, flags=re.MULTILINE)
    said = machine.run(*shlex.split(command.replace("label-studio", "s3")))
    assert "sample" in said
    assert "13" in said


def test_it_follows_an_edit_and_a_reload(machine: Machine, files: Path) -> None:
    path = files / "etc/syncd.yaml"
    with said_again(machine, "the config was read again"):
        path.write_text(path.read_text().replace("every: 1h", "every: 50m"))
    machine.run("systemctl", "reload", "syncd")
    assert "active" == machine.run("systemctl", "is-active", "syncd")


def test_a_broken_edit_changes_nothing(machine: Machine, files: Path, url: str) -> None:
    path = files / "etc/syncd.yaml"
    good = path.read_text()
    path.write_text(good.replace("source:", "sauce:"))
    end = time.monotonic() + 30
    while "\nsyncd_config_last_reload_successful 0.0\n" not in httpx.get(f"{url}/metrics").text:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert "active" == machine.run("systemctl", "is-active", "syncd")
    path.write_text(good)


def test_one_that_hangs_is_started_again(machine: Machine, url: str) -> None:
    before = shown(machine, "MainPID")
    machine.run("sh", "-c", f"kill -STOP {before}")
    end = time.monotonic() + 60
    while shown(machine, "MainPID") in {before, "0"} or "active" != shown(machine, "ActiveState"):
        assert time.monotonic() < end, journal(machine)
        time.sleep(0.2)
    assert "1" == shown(machine, "NRestarts")
    assert 200 == httpx.get(f"{url}/healthz").status_code


def test_it_ends_cleanly_and_keeps_its_state(machine: Machine) -> None:
    machine.run("systemctl", "stop", "syncd")
    assert ("success", "0") == (shown(machine, "Result"), shown(machine, "ExecMainStatus"))
    assert "checkpoint.sqlite" in machine.run("ls", "/var/lib/private/syncd")
