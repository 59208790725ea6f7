"""The image: linted, built, small, and started once as Kubernetes would start it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.deploy.daemon import EXPORTS, config, wait_for_a_run
from tests.deploy.image import Container, Image
from tests.deploy.tools import DEPLOY, live, run, tool

USER = 65532
PORT = 8642  # what the Dockerfile's health check asks
STOPPED_WITHIN = 25  # seconds


def test_hadolint_has_nothing_to_say() -> None:
    assert "" == run([tool("hadolint"), DEPLOY / "Dockerfile"])


@live
def test_it_says_how_it_is_run(image: Image) -> None:
    said = image.config()
    assert f"{USER}:{USER}" == said["User"]
    assert (["syncd"], ["run"]) == (said["Entrypoint"], said["Cmd"])
    assert "python3" == said["Healthcheck"]["Test"][1]
    assert ["/var/lib/syncd"] == list(said["Volumes"])


@live
def test_it_holds_syncd_and_nothing_that_built_it(image: Image) -> None:
    packages = next((image.root / "opt/syncd/lib").glob("python3.*/site-packages"))
    assert (packages / "syncd").is_dir()
    assert not [name for name in ("pip", "setuptools", "hatchling") if (packages / name).exists()]
    assert not (image.root / "src").exists()
    assert sum(path.stat().st_size for path in (image.root / "opt/syncd").rglob("*") if path.is_file()) < 150_000_000


@pytest.fixture
def container(image: Image, tmp_path: Path) -> Iterator[Container]:
    (tmp_path / "config").mkdir()
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", USER, USER)
    tmp_path.chmod(0o755)
    text = config(f"127.0.0.1:{PORT}", exports=Path("/exports"), target={"type": "local", "path": "/var/lib/syncd/backup"})
    (tmp_path / "config/syncd.yaml").write_text(text)
    mounts = {"/etc/syncd": tmp_path / "config", "/exports": EXPORTS, "/var/lib/syncd": tmp_path / "state"}
    with closing(Container(image, tmp_path / "log", mounts)) as running:
        yield running


@live
def test_a_container_works_read_only_without_rights_and_ends_as_process_1(container: Container, image: Image, tmp_path: Path) -> None:
    wait_for_a_run(f"http://127.0.0.1:{PORT}", container.log.read_text)
    health = container.exec(*image.config()["Healthcheck"]["Test"][1:])
    assert 0 == health.returncode, health.stderr
    assert "sample" in container.exec("syncd", "status").stdout

    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{container.pid()}/status").read_text().splitlines() if ":\t" in line)
    assert {str(USER)} == set(status["Uid"].split())
    assert 0 == int(status["CapEff"], 16)
    assert "1" == status["NSpid"].split()[-1]
    assert "Read-only file system" in container.exec("touch", "/opt/syncd/x").stderr
    assert (tmp_path / "state/checkpoint.sqlite").exists()
    assert 200 == httpx.get(f"http://127.0.0.1:{PORT}/readyz").status_code

    os.kill(container.pid(), signal.SIGTERM)
    assert 0 == container.process.wait(STOPPED_WITHIN), container.log.read_text()
