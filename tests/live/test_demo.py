"""`make demo`, used as its reader would: log in, annotate, see the file change, press Ctrl-C; nothing is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.live


class Demo:
    """The running demo and what it has printed so far."""

    def __init__(self, temporary: Path) -> None:
        command = [sys.executable, "-m", "tests.live.demo"]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True, env=os.environ | {"TMPDIR": str(temporary)}
        )
        self.said = ""
        self.listener = threading.Thread(target=self._listen)
        self.listener.start()

    def _listen(self) -> None:
        assert self.process.stdout
        with self.process.stdout as out:
            for line in out:
                self.said += line

    def wait_for(self, pattern: str, seconds: float = 200) -> str:
        """The first group of it, once the demo has said it."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.said)):
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, f"{pattern} was never said:\n{self.said}"
            time.sleep(0.05)
        return found[1]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path)
    yield running
    running.process.terminate()
    running.process.wait(60)
    running.listener.join()


def browser(studio: str, email: str, password: str) -> httpx.Client:
    """Logged in through the form."""
    client = httpx.Client(base_url=studio, timeout=60)
    client.get("/user/login/")
    form = {"email": email, "password": password, "csrfmiddlewaretoken": client.cookies["csrftoken"]}
    assert 302 == client.post("/user/login/", data=form, headers={"Referer": studio}).status_code
    client.headers.update({"X-CSRFToken": client.cookies["csrftoken"], "Referer": studio})
    return client


def belong_to(folder: Path) -> list[str]:
    """Processes that were started with this folder in their command or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in told and int(process.name) != os.getpid():
            found.append(f"{process.name} {(process / 'cmdline').read_bytes()!r}")
    return found


def test_an_annotation_in_the_browser_changes_a_file_and_ctrl_c_leaves_nothing(demo: Demo, tmp_path: Path) -> None:
    files = Path(demo.wait_for(r"the files +(\S+)"))
    page = demo.wait_for(r"syncd's page +(\S+)")
    studio, email, password = (demo.wait_for(part) for part in (r"Label Studio +(http://[^/]+)", r"log in as (\S+)", r"password (\S+)"))
    demo.wait_for(r"(\+ \S+/_project.json)")
    task = demo.wait_for(r"\+ \d+/(\d+)\.json  The kitten")
    assert belong_to(tmp_path)

    with closing(browser(studio, email, password)) as client:
        result = [{"from_name": "mood", "to_name": "text", "type": "choices", "value": {"choices": ["good"]}}]
        client.post(f"/api/tasks/{task}/annotations/", json={"result": result, "lead_time": 2.0}).raise_for_status()
    demo.wait_for(rf"(~ \d+/{task}\.json  The kitten .* →  good)", 60)
    assert '"good"' in (files / f"{task}.json").read_text()
    assert 200 == httpx.get(page).status_code

    demo.process.send_signal(signal.SIGINT)
    assert 0 == demo.process.wait(60), demo.said
    assert "Everything is stopped and removed." in demo.said
    assert [] == belong_to(tmp_path)
    assert [] == list(tmp_path.iterdir())


def test_ctrl_c_while_it_starts_leaves_nothing_either(demo: Demo, tmp_path: Path) -> None:
    demo.wait_for(r"(Starting Label Studio)")
    end = time.monotonic() + 60
    while not any("label-studio" in process for process in belong_to(tmp_path)):
        assert time.monotonic() < end, demo.said
        time.sleep(0.02)
    demo.process.send_signal(signal.SIGINT)
    assert 0 == demo.process.wait(60), demo.said
    assert [] == belong_to(tmp_path)
    assert [] == list(tmp_path.iterdir())
