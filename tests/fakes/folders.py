"""Folders of exports behind the `files` Source, for the contract suite: a file per task, or one export of many tasks per Collection."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from syncd.sources import files
from syncd.sources.base import Selection, Source
from tests.fakes.rig import TestClock


class FilesWorld:
    """A file per task."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "exports"
        self._root.mkdir()
        self._next = 1

    def open(self, select: Selection) -> Source:
        return files.open(files.Config(type="files", path=self._root), select, TestClock())

    def add(self, title: str, *data: dict[str, Any]) -> list[str]:
        ids = [str(self._next + n) for n in range(len(data))]
        self._next += len(data)
        (self._root / title).mkdir(exist_ok=True)
        for task, one in zip(ids, data, strict=True):
            self._write(title, task, json.dumps({"id": int(task), "data": one}))
        return ids

    def _write(self, title: str, task: str, text: str) -> None:
        (self._root / title / f"task-{task}.json").write_text(text)

    def edit(self, title: str, task: str, data: dict[str, Any]) -> None:
        self._write(title, task, json.dumps({"id": int(task), "data": data}))

    def delete(self, title: str, *tasks: str) -> None:
        for task in tasks:
            (self._root / title / f"task-{task}.json").unlink()

    def spoil(self, title: str, task: str) -> None:
        self._write(title, task, '{"id": ')

    def remove(self, title: str) -> None:
        shutil.rmtree(self._root / title)

    def configure(self, title: str) -> bool:
        return False

    def wait(self, seconds: float) -> None:
        """Files are dated by the system; stamps decide."""

    def go_down(self) -> None:
        self._root.rename(self._root.with_name("away"))

    def come_back(self) -> None:
        self._root.with_name("away").rename(self._root)

    def data(self, body: Any) -> dict[str, Any]:
        found: dict[str, Any] = body["data"]
        return found

    def close(self) -> None:
        pass
