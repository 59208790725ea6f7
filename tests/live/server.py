"""The real Label Studio, started for tests, and what seeds it.

`LabelStudio` runs one server process on SQLite, or on a given `Postgres`; several may share one `Postgres`. First starts are slow (migrations),
so the migrated data folder is kept as a template beside the installation and copied for each start.
Refuses to start on a busy port: the server would silently take the next one. Never touches processes it did not start.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx

from tests.live.client import CONFIGS, Client, Project, box, sample

__all__ = ["CONFIGS", "Client", "LabelStudio", "Postgres", "Process", "Project", "background", "box", "free_port", "missing", "sample"]

VERSION = "1.23.2"
HOME = Path(__file__).resolve().parents[2] / ".venv-label-studio"
TEMPLATES = HOME / f"templates-{VERSION}"
EMAIL = "ann@example.com"
PASSWORD = "only-for-tests"
TOKEN = "0123456789abcdef0123456789abcdef01234567"
START_TIMEOUT = 180.0  # seconds; a first start runs all migrations
STOP_TIMEOUT = 20.0

_QUIET = {
    "LABEL_STUDIO_LATEST_VERSION_CHECK": "false",
    "COLLECT_ANALYTICS": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "false",
    "SECRET_KEY": "only-for-tests-and-the-same-for-every-server-of-one-database",
}


def missing() -> str:
    """Why the real Label Studio can't be run here; empty when it can."""
    return "" if (HOME / "bin" / "label-studio").exists() else "Label Studio is not installed: run .ci/label-studio"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _refuse_busy(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise RuntimeError(f"port {port} is busy")


class Process:
    """A child in a process group of its own, its output in a file; stopping it stops the group."""

    def __init__(self, command: Sequence[str | Path], log: Path, *, env: Mapping[str, str] | None = None, user: str | None = None) -> None:
        self.log = log
        self._out: IO[bytes] = log.open("ab")
        self._child = subprocess.Popen(
            command, stdout=self._out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env, user=user, start_new_session=True, cwd=log.parent
        )
        self.pid = self._child.pid

    def alive(self) -> bool:
        return self._child.poll() is None

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        for sign in (how, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, sign)
            try:
                self._child.wait(STOP_TIMEOUT)
                break
            except subprocess.TimeoutExpired:
                continue
        self._out.close()

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


def _copy_template(name: str, into: Path) -> bool:
    if not (TEMPLATES / name).exists():
        return False
    shutil.copytree(TEMPLATES / name, into, dirs_exist_ok=True)
    return True


def _keep_template(name: str, source: Path) -> None:
    """Atomic: a template is there whole or not at all, whoever else makes one."""
    TEMPLATES.mkdir(exist_ok=True)
    half = Path(tempfile.mkdtemp(dir=TEMPLATES, prefix=".half-"))
    shutil.copytree(source, half / "copy")
    with contextlib.suppress(OSError):  # somebody else was faster
        (half / "copy").rename(TEMPLATES / name)
    shutil.rmtree(half)


class Postgres:
    """A private PostgreSQL cluster with a migrated Label Studio database, on loopback, without fsync."""

    def __init__(self) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="syncd-pg-"))
        self._folder.chmod(0o755)
        self._data = self._folder / "data"
        self._user = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
        self._process: Process | None = None
        self.env = {
            "DJANGO_DB": "default",
            "POSTGRE_NAME": "postgres",
            "POSTGRE_USER": "postgres",
            "POSTGRE_PASSWORD": "",
            "POSTGRE_HOST": "127.0.0.1",
            "POSTGRE_PORT": str(self.port),
        }

    @staticmethod
    def missing() -> str:
        """Why PostgreSQL can't be run here; empty when it can."""
        return "" if Postgres._programs() else "PostgreSQL is not installed: run .ci/tools"

    @staticmethod
    def _programs() -> Path | None:
        return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)

    def __enter__(self) -> Self:
        if not (TEMPLATES / "postgres").exists():
            self._make_template()
        _copy_template("postgres", self._data)
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _program(self, name: str) -> Path:
        folder = self._programs()
        if folder is None:
            raise RuntimeError(self.missing())
        return folder / name

    def _make_template(self) -> None:
        self._folder.chmod(0o777)
        initdb: list[str | Path] = [self._program("initdb"), "-D", self._data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--no-locale", "-N"]
        subprocess.run(initdb, check=True, capture_output=True, user=self._user, cwd="/")
        self._folder.chmod(0o755)
        self._start()
        with LabelStudio(database=self):
            pass
        self._stop()
        _keep_template("postgres", self._data)
        shutil.rmtree(self._data)

    def _start(self) -> None:
        self._data.chmod(0o700)
        if self._user:
            for path in (self._data, *self._data.rglob("*")):
                shutil.chown(path, self._user, self._user)
        log = self._folder / "postgres.log"
        options = ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        self._process = Process([self._program("postgres"), "-D", self._data, "-p", str(self.port), *options], log, user=self._user)
        end = time.monotonic() + 60
        while "ready to accept connections" not in self._process.tail():
            if not self._process.alive() or time.monotonic() > end:
                raise RuntimeError(f"PostgreSQL did not start:\n{self._process.tail()}")
            time.sleep(0.1)

    def _stop(self) -> None:
        if self._process:
            self._process.stop(signal.SIGINT)  # PostgreSQL's fast shutdown
            self._process.log.unlink()
            self._process = None


class LabelStudio:
    """One server process. `url`, `log` and `api` (a client with the admin's legacy token) are for tests."""

    def __init__(self, *, port: int | None = None, database: Postgres | None = None, env: Mapping[str, str] | None = None) -> None:
        self._env = dict(env or {})
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.api = Client(self.url, f"Token {TOKEN}")
        self._database = database
        self._folder = Path(tempfile.mkdtemp(prefix="syncd-ls-"))
        self.log = self._folder / "server.log"
        self._process: Process | None = None
        self._pat = ""

    def __enter__(self) -> Self:
        if missing():
            raise RuntimeError(missing())
        data = self._folder / "data"
        if self._database is None and not _copy_template("sqlite", data):
            self._start(data)
            self.stop()
            _keep_template("sqlite", data)
        data.mkdir(exist_ok=True)
        self._start(data)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.api.close()
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, data: Path) -> None:
        _refuse_busy(self.port)
        account = ["--username", EMAIL, "--password", PASSWORD, "--user-token", TOKEN, "--enable-legacy-api-token"]
        where: list[str | Path] = ["-p", str(self.port), "--internal-host", "127.0.0.1", "--data-dir", data]
        database = self._database.env if self._database else {"DJANGO_DB": "sqlite"}
        env = {name: value for name, value in os.environ.items() if not name.startswith(("LABEL_STUDIO", "POSTGRE", "DJANGO"))}
        command: list[str | Path] = [HOME / "bin" / "label-studio", "start", "-b", *where, *account]
        self._process = Process(command, self.log, env=env | _QUIET | database | self._env)
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        assert self._process
        end = time.monotonic() + START_TIMEOUT
        while time.monotonic() < end and self._process.alive():
            with contextlib.suppress(httpx.HTTPError, AssertionError):
                self.api.get("/api/projects/", page_size=1)
                return
            time.sleep(0.2)
        tail = self._process.tail()
        self.stop()
        raise RuntimeError(f"Label Studio did not start:\n{tail}")

    def stop(self) -> None:
        """Stop the whole process group; safe to repeat."""
        if self._process:
            self._process.stop()
            self._process = None

    def allow_legacy_tokens(self, *, allowed: bool) -> None:
        """Switch legacy tokens on or off. Speaks with a personal access token, which works either way."""
        with self.with_pat() as client:
            client.post("/api/jwt/settings", {"legacy_api_tokens_enabled": allowed, "api_tokens_enabled": True, "api_token_ttl_days": 73000})

    def pat(self) -> str:
        """The admin's personal access token (there can be one valid one at a time, and its text is shown once)."""
        if not self._pat:
            self._pat = str(self.api.post("/api/token/")["token"])
        return self._pat

    def give_draft(self, draft: int, user: int) -> None:
        """Make it another user's: only a browser's session could have made it. SQLite alone."""
        with contextlib.closing(sqlite3.connect(self._folder / "data" / "label_studio.sqlite3", timeout=30)) as db, db:
            assert db.execute("UPDATE tasks_annotationdraft SET user_id = ? WHERE id = ?", (user, draft)).rowcount == 1

    def revoke_pat(self) -> None:
        """The next `pat` makes a new one."""
        self.api.post("/api/token/blacklist/", {"refresh": self.pat()})
        self._pat = ""

    def with_pat(self) -> Client:
        """A client with a fresh access token made from the PAT; valid 300 s."""
        answer = httpx.post(f"{self.url}/api/token/refresh/", json={"refresh": self.pat()}, timeout=60)
        return Client(self.url, f"Bearer {answer.json()['access']}")


@contextlib.contextmanager
def background(work: Any, *args: Any) -> Iterator[threading.Thread]:
    """Run `work` in a thread while the body runs; an error in it is raised at the end."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work(*args)
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread below
            errors.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    yield thread
    thread.join(300)
    assert not thread.is_alive(), "the background work did not end"
    if errors:
        raise errors[0]
