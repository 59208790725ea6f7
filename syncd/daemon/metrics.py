"""What the daemon tells Prometheus: one text, written anew at each scrape.

Rules: every series of a Sync has the label `sync`, Runs also `status` and requests `outcome`; never a project or a task; no histograms. The series
of the Syncs are written here, not by prometheus-client: 2,000 Syncs would cost it 110 ms a scrape, this costs a tenth. It writes the process' own.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Info, ProcessCollector, generate_latest

from syncd import __version__
from syncd.clock import SECOND
from syncd.daemon.board import Board, State, SyncView, Totals
from syncd.model import Status

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

Value = float | None  # None: no sample


def _seconds(micros: int | None) -> Value:
    return None if micros is None else micros / SECOND


_OF_A_SYNC: tuple[tuple[str, str, Callable[[SyncView, Totals], Value]], ...] = (
    ("last_success_timestamp_seconds", "Start of the last Run that ended ok.", lambda v, _: _seconds(v.since)),
    ("last_run_timestamp_seconds", "End of the last Run.", lambda v, _: _seconds(v.last.finished_at if v.last else None)),
    ("oldest_unsynced_change_seconds", "Age of the oldest change not yet safe, at most.", lambda v, _: v.lag),
    ("running", "1 while a Run goes on.", lambda v, _: v.state is State.RUNNING),
    ("guard_tripped", "1 while the Guard holds deletions back.", lambda v, _: bool(v.last and v.last.status is Status.GUARDED)),
    ("runs_failed_in_a_row", "Runs since the last one that did not fail.", lambda v, _: v.failed_in_a_row),
    ("collections", "Collections backed up.", lambda v, _: v.collections),
    ("tasks", "Tasks backed up.", lambda v, _: v.tasks),
    ("tasks_failing", "Tasks that are not in the Target as they are in the Source.", lambda v, _: v.failing),
    ("tasks_written_total", "New and changed tasks put into the Target.", lambda _, t: t.written),
    ("bytes_written_total", "Bytes put into the Target.", lambda _, t: t.bytes_written),
    ("deletions_total", "Files trashed or deleted.", lambda _, t: t.deletions),
    ("failures_total", "Tasks that failed, counted in each Run.", lambda _, t: t.failures),
    ("hooks_total", "Webhook calls taken.", lambda _, t: t.hooks),
    ("hooks_refused_total", "Webhook calls refused.", lambda _, t: t.hooks_refused),
)
_BY_LABEL: tuple[tuple[str, str, str, Callable[[Totals], Mapping[str, int]]], ...] = (  # all labels from the start, or a first failure is no increase
    ("runs_total", "Runs that ended, by how they ended.", "status", lambda t: {status.value: t.runs.get(status.value, 0) for status in Status}),
    ("source_requests_total", "Requests to the Source, every try.", "outcome", lambda t: _outcomes(t.source_requests, t.source_requests_failed)),
    ("target_requests_total", "Requests to the Target, every try.", "outcome", lambda t: _outcomes(t.target_requests, t.target_requests_failed)),
)


class Metrics:
    """The daemon's metrics; `text` may be called from any thread."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        Info("syncd_build", "The syncd that runs.", registry=self._process).info({"version": __version__, "python": platform.python_version()})

    def text(self) -> bytes:
        """Everything, in Prometheus' text format 0.0.4."""
        return "".join((*self._of_daemon(), *self._of_syncs())).encode() + generate_latest(self._process)

    def _of_daemon(self) -> Iterator[str]:
        waiting, running = self._board.queue()
        config = self._board.config()
        yield _one("ready", "1 when the daemon can be relied on, as /readyz says.", not self._board.unready())
        yield _one("runs_waiting", "Runs that wait for a worker.", waiting)
        yield _one("runs_going_on", "Runs that go on.", running)
        yield _one("config_last_reload_successful", "0 when the newest edit of the config was not taken.", not config.problems)
        yield _one("config_last_reload_success_timestamp_seconds", "When the config in force was read.", config.loaded_at / SECOND)

    def _of_syncs(self) -> Iterator[str]:
        rows = [(_escape(view.name), view, self._board.totals(view.name)) for view in self._board.syncs()]
        for metric, text, value in _OF_A_SYNC:
            yield _head(metric, text)
            start = f'syncd_{metric}{{sync="'
            yield from (f'{start}{name}"}} {float(number)}\n' for name, view, totals in rows if (number := value(view, totals)) is not None)
        for metric, text, label, counts in _BY_LABEL:
            yield _head(metric, text)
            for name, _, totals in rows:
                yield from (f'syncd_{metric}{{sync="{name}",{label}="{one}"}} {float(count)}\n' for one, count in counts(totals).items())


def _outcomes(requests: int, failed: int) -> Mapping[str, int]:
    return {"ok": requests - failed, "failed": failed}


def _one(name: str, text: str, value: float) -> str:
    return f"{_head(name, text)}syncd_{name} {float(value)}\n"


def _head(name: str, text: str) -> str:
    return f"# HELP syncd_{name} {text}\n# TYPE syncd_{name} {'counter' if name.endswith('_total') else 'gauge'}\n"


def _escape(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
