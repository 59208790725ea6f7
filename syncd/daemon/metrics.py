"""What the daemon tells Prometheus: one text, written anew at each scrape.

Rules: every series of a Sync has the label `sync`, Runs also `status` and requests `outcome`; never a project or a task; no histograms. The series
of the Syncs are written here, not by prometheus-client: 2,000 Syncs would cost it 110 ms a scrape, this costs a tenth. It writes the process' own.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Info, ProcessCollector, generate_latest

from syncd import __version__
from syncd.clock import SECOND
from syncd.daemon.ledger import Ledger, State
from syncd.daemon.service import Service
from syncd.model import Status

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

Value = float | None  # None: no sample


def _seconds(micros: int | None) -> Value:
    return None if micros is None else micros / SECOND


_OF_A_SYNC: tuple[tuple[str, str, Callable[[Ledger, int], Value]], ...] = (  # the state of a Sync at a time
    ("last_success_timestamp_seconds", "Start of the last Run that ended ok.", lambda sync, _: _seconds(sync.standing.since)),
    ("last_run_timestamp_seconds", "End of the last Run.", lambda s, _: _seconds(s.standing.ended.finished_at if s.standing.ended else None)),
    ("oldest_unsynced_change_seconds", "Age of the oldest change not yet safe, at most.", lambda sync, now: sync.lag(now)),
    ("running", "1 while a Run goes on.", lambda sync, _: sync.state is State.RUNNING),
    ("guard_tripped", "1 while the Guard holds deletions back.", lambda sync, _: sync.left is State.GUARDED),
    ("runs_failed_in_a_row", "Runs since the last one that did not fail.", lambda sync, _: sync.standing.failed_in_a_row),
    ("collections", "Collections backed up.", lambda sync, _: sync.standing.collections),
    ("tasks", "Tasks backed up.", lambda sync, _: sync.standing.tasks),
    ("tasks_failing", "Tasks that are not in the Target as they are in the Source.", lambda sync, _: sync.standing.failing),
)
_OUTCOMES = ("outcome", ("ok", "failed"))
_COUNTS: tuple[tuple[str, str, str, Sequence[str]], ...] = (  # of `Ledger.totals`; all labels from the start, or a first failure is no increase
    ("tasks_written", "New and changed tasks put into the Target.", "", ()),
    ("bytes_written", "Bytes put into the Target.", "", ()),
    ("deletions", "Files trashed or deleted.", "", ()),
    ("failures", "Tasks that failed, counted in each Run.", "", ()),
    ("hooks", "Webhook calls taken.", "", ()),
    ("hooks_refused", "Webhook calls refused.", "", ()),
    ("runs", "Runs that ended, by how they ended.", "status", list(Status)),
    ("source_requests", "Requests to the Source, every try.", *_OUTCOMES),
    ("target_requests", "Requests to the Target, every try.", *_OUTCOMES),
)


_PROCESS = CollectorRegistry()
ProcessCollector(registry=_PROCESS)
Info("syncd_build", "The syncd that runs.", registry=_PROCESS).info({"version": __version__, "python": platform.python_version()})


def metrics(service: Service) -> bytes:
    """Everything, in Prometheus' text format 0.0.4; from any thread."""
    return "".join((*_of_daemon(service), *_of_syncs(service))).encode() + generate_latest(_PROCESS)


def _of_daemon(service: Service) -> Iterator[str]:
    waiting, running = service.queue()
    config = service.config_state
    yield _one("ready", "1 when the daemon can be relied on, as /readyz says.", not service.unready())
    yield _one("runs_waiting", "Runs that wait for a worker.", waiting)
    yield _one("runs_going_on", "Runs that go on.", running)
    yield _one("config_last_reload_successful", "0 when the newest edit of the config was not taken.", not config.problems)
    yield _one("config_last_reload_success_timestamp_seconds", "When the config in force was read.", config.loaded_at / SECOND)


def _of_syncs(service: Service) -> Iterator[str]:
    syncs, now = [(_escape(sync.name), sync) for sync in service.syncs()], service.clock.now()
    for metric, text, value in _OF_A_SYNC:
        yield _head(metric, text)
        start = f'syncd_{metric}{{sync="'
        yield from (f'{start}{name}"}} {float(number)}\n' for name, sync in syncs if (number := value(sync, now)) is not None)
    for metric, text, label, values in _COUNTS:
        yield _head(f"{metric}_total", text)
        for one, more in [(f"{metric} {value}", f',{label}="{value}"') for value in values] or [(metric, "")]:
            yield from (f'syncd_{metric}_total{{sync="{name}"{more}}} {float(sync.totals[one])}\n' for name, sync in syncs)


def _one(name: str, text: str, value: float) -> str:
    return f"{_head(name, text)}syncd_{name} {float(value)}\n"


def _head(name: str, text: str) -> str:
    return f"# HELP syncd_{name} {text}\n# TYPE syncd_{name} {'counter' if name.endswith('_total') else 'gauge'}\n"


def _escape(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
