"""`make demo`: a real Label Studio with a sample project, syncd beside it. Annotate in the browser and see the file change.

Everything lives in a temporary folder, at free ports of this machine, and is gone after Ctrl-C: no process stays, no file.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Never

import httpx
import yaml

from tests.live.server import EMAIL, PASSWORD, TOKEN, LabelStudio, Process, free_port

TEXTS = [
    "The kitten slept through the whole delivery.",
    "Arrived broken, and nobody answers the phone.",
    "Exactly what the picture shows. Would buy again.",
    "It works, but the manual is a riddle.",
    "Three weeks late, and then the wrong colour.",
    "My grandmother understood it at once.",
]
EVERY = "2s"
LOOK = 0.2  # seconds between two looks at the folder
READY = 30.0  # seconds that the daemon may take to answer
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    for sign in SIGNALS:
        signal.signal(sign, _interrupt)
    try:
        with ExitStack() as stack:
            stack.callback(_say, "Everything is stopped and removed.")
            _demo(stack)
    except KeyboardInterrupt:
        sys.exit(0)  # it is how a demo ends


def _demo(stack: ExitStack) -> Never:
    folder = Path(tempfile.mkdtemp(prefix="syncd-demo-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    pool = stack.enter_context(ThreadPoolExecutor(1))  # what starts processes is not where Ctrl-C strikes, so that none is forgotten
    _say("Starting Label Studio; the very first time this takes a minute …")
    studio = LabelStudio()
    starting = pool.submit(studio.__enter__)
    stack.callback(_end, studio, starting)
    starting.result()
    project = studio.api.project("Reviews", "choices")
    project.add([{"data": {"text": text}} for text in TEXTS])
    page = _daemon(stack, pool, folder, studio.url)
    _say(
        f"\n  Label Studio   {studio.url}/projects/{project.id}/data",
        f"                 log in as {EMAIL} with the password {PASSWORD}",
        f"  syncd's page   {page}",
        f"  the files      {folder / 'backup' / str(project.id)}",
        "\nOpen a task in Label Studio, choose good or bad, press Submit, and watch this place. Ctrl-C ends it.\n",
    )
    _watch(folder / "backup")


def _end(studio: LabelStudio, starting: Future[LabelStudio]) -> None:
    while not starting.done():
        studio.stop()
        time.sleep(LOOK)
    studio.__exit__(None, None, None)


def _daemon(stack: ExitStack, pool: Executor, folder: Path, studio: str) -> str:
    """Start `syncd run`; the address of its page, as soon as it answers."""
    listen = f"127.0.0.1:{free_port()}"
    config = {
        "sources": {"studio": {"type": "label_studio", "url": studio, "token": TOKEN}},
        "targets": {"disk": {"type": "local", "path": "./backup"}},
        "syncs": {"demo": {"source": "studio", "target": "disk", "every": EVERY, "drafts_every": EVERY}},
        "state": "./state",
        "http": listen,
    }
    (folder / "syncd.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    command: list[str | Path] = [sys.executable, "-m", "syncd", "run", "-c", folder / "syncd.yaml"]
    starting = pool.submit(Process, command, folder / "syncd.log", env=os.environ)
    stack.callback(lambda: starting.result().stop())
    daemon = starting.result()
    end = time.monotonic() + READY
    while daemon.alive() and time.monotonic() < end:
        try:
            httpx.get(f"http://{listen}/healthz").raise_for_status()
        except httpx.HTTPError:
            time.sleep(LOOK)
        else:
            return f"http://{listen}"
    raise SystemExit(f"syncd did not start:\n{daemon.tail()}")


def _watch(backup: Path) -> Never:
    """Tell of each file that changes, until interrupted."""
    seen: dict[Path, bytes] = {}
    while True:
        now = dict(_files(backup))
        for path in sorted(now.keys() | seen.keys()):
            if now.get(path) != seen.get(path):
                sign = "+" if path not in seen else "-" if path not in now else "~"
                _say(f"{time.strftime('%H:%M:%S')}  {sign} {path.relative_to(backup)}  {_about(now.get(path))}".rstrip())
        seen = now
        time.sleep(LOOK)


def _files(backup: Path) -> Iterator[tuple[Path, bytes]]:
    for path in backup.rglob("*.json"):
        if "_syncd" not in path.parts:
            with suppress(FileNotFoundError):  # moved to the trash a moment ago
                yield path, path.read_bytes()


def _about(data: bytes | None) -> str:
    """What a person would want to know of a task."""
    task: dict[str, Any] = json.loads(data or b"{}")
    if "annotations" not in task:
        return ""
    answers = [_answer(annotation["result"]) for annotation in task["annotations"]]
    drafts = [_answer(draft["result"]) for draft in task.get("drafts", ()) if not draft.get("annotation")]
    return f"{task['data']['text']}  →  {', '.join(answers) or 'not annotated yet'}{''.join(f', draft: {draft}' for draft in drafts)}"


def _answer(result: list[dict[str, Any]]) -> str:
    return " ".join(choice for region in result for choice in region["value"].get("choices", ())) or "empty"


def _interrupt(_number: int, _frame: FrameType | None) -> Never:
    for sign in SIGNALS:  # while things end, a second Ctrl-C must not leave half of them behind
        signal.signal(sign, signal.SIG_IGN)
    raise KeyboardInterrupt


def _say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()
