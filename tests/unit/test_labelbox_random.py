"""Labelbox as a Source, by random stories: edits, faults, an index that lags, Runs of both kinds. After each Run that says it is right the target is,
but for what it can't have seen; in the end it is altogether; and no row that was always there was ever taken for gone.

SYNCD_STORIES=1000 tells that many instead of the same few.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from syncd.model import Kind, Status
from tests.fakes.labelbox_payloads import image, metadata, text
from tests.unit.test_labelbox import RECOVERED, REPORTED, Stage, heal, stage

__all__ = ["stage"]  # a fixture

STORIES = int(os.environ.get("SYNCD_STORIES", "3"))
STEPS = 8
FEWEST = 6  # rows that stay
EDITS: dict[str, Callable[[Stage, str, Any], object]] = {
    "touch": lambda s, row, _: s.cats.touch(row),
    "label": lambda s, row, n: s.cats.label(row, text(f"{n}")),
    "metadata": lambda s, row, n: s.box.edit_metadata(row, metadata(f"{n}")),
    "status": lambda s, row, _: s.cats.set_status(row, "DONE"),
    "silent": lambda s, row, n: s.box.silent(row, external_id=f"{n}"),
    "add": lambda s, _, __: s.cats.add({}, {"labels": [image()]}),
}
LABELED: dict[str, Callable[[Stage, str, Any], object]] = {
    "edit": lambda s, row, n: s.cats.edit_label(row, image(f"{n}")),
    "delete label": lambda s, row, _: s.cats.delete_label(row),
}
ENDING: dict[str, Callable[[Stage, str, Any], object]] = {
    "delete": lambda s, row, _: s.box.delete(row),
    "remove": lambda s, row, _: s.cats.remove(row),
}
FAULTS = {**RECOVERED, **{name: fault for name, (fault, *_) in REPORTED.items()}}


def step(stage: Stage, rng: random.Random, told: list[object], *, dark: int) -> int:
    """Some edits, perhaps a fault, one Run; then everything works again. dark: how many full Runs it takes to see all that happened; and after it."""
    stage.box.index_lag = rng.choice([0, 0, 0, 30, 300])
    for _ in range(rng.randrange(5)):
        members = stage.cats.members()
        row, state = rng.choice(members)
        edits = EDITS | (LABELED if state.members[stage.cats.id].labels else {}) | (ENDING if len(members) > FEWEST else {})
        name = rng.choice(list(edits))
        told.append((name, row))
        edits[name](stage, row, rng.random())
        dark = max(dark, name == "silent")
        stage.clock.wait(rng.choice([0.2, 1, 61]))
    stage.ids = [row for row, _ in stage.cats.members()]
    fault = rng.choice(list(FAULTS)) if rng.random() < 0.6 else ""
    if fault:
        told.append(fault)
        FAULTS[fault](stage)
    later = rng.choice([1, 60, 700, 3600])
    report = stage.run(rng.choice([None, None, Kind.FULL]), later=later)
    told.append((report.kind, report.status, report.error, [failure.error for failure in report.failed]))
    heal(stage)
    stage.box._plans._all.clear()  # what did not come to pass is no fault of the story
    stage.box.exports.seconds, stage.box.files.chunk_size = 0, 1 << 20
    if report.status is not Status.OK or later < stage.box.index_lag or (fault in REPORTED and report.kind is not Kind.FULL):
        return 2  # an export of what changed can't be told from one that silently lacks some of it; the first full Run may read an older export
    dark = max(0, dark - (report.kind is Kind.FULL))
    assert dark or stage.held() == stage.truth(), told
    return dark


@pytest.mark.parametrize("seed", range(STORIES))
def test_whatever_happens_the_target_is_right_in_the_end(stage: Stage, seed: int) -> None:
    rng, told = random.Random(seed), list[object]()
    stage.rig.rules["max_delete"] = {"fraction": 1.0, "at_least": 100}
    dark = 0
    for _ in range(STEPS):
        dark = step(stage, rng, told, dark=dark)
    stage.box.index_lag = 0
    stage.run()
    stage.run(Kind.FULL)
    assert stage.run(Kind.FULL).status is Status.OK, told
    assert stage.held() == stage.truth(), told
    gone = {line["task"] for line in stage.rig.feeds() if line["op"] == "trash"}
    assert not gone & {row for row, _ in stage.cats.members()}, told
