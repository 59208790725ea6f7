"""Labelbox as a Source, by random stories: edits, faults, an index that lags, Runs of both kinds. In the end the target is right, and no row that
was always there was ever taken for gone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from syncd.model import Kind, Status
from tests.fakes.labelbox_payloads import image, metadata, text
from tests.unit.test_labelbox import RECOVERED, REPORTED, Stage, heal, stage

__all__ = ["stage"]  # a fixture

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


def step(stage: Stage, rng: random.Random, told: list[object]) -> None:
    """Some edits, perhaps a fault, one Run; then everything works again."""
    stage.box.index_lag = rng.choice([0, 0, 0, 30, 300])
    for _ in range(rng.randrange(5)):
        members = stage.cats.members()
        row, state = rng.choice(members)
        edits = EDITS | (LABELED if state.members[stage.cats.id].labels else {}) | (ENDING if len(members) > FEWEST else {})
        name = rng.choice(list(edits))
        told.append((name, row))
        edits[name](stage, row, rng.random())
        stage.clock.wait(rng.choice([0.2, 1, 61]))
    stage.ids = [row for row, _ in stage.cats.members()]
    if rng.random() < 0.6:
        told.append(fault := rng.choice(list(FAULTS)))
        FAULTS[fault](stage)
    report = stage.run(rng.choice([None, None, Kind.FULL]), later=rng.choice([1, 60, 700, 3600]))
    told.append((report.kind, report.status, report.error, [failure.error for failure in report.failed]))
    heal(stage)
    stage.box._plans._all.clear()  # what did not come to pass is no fault of the story
    stage.box.exports.seconds, stage.box.files.chunk_size = 0, 1 << 20


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_the_target_is_right_in_the_end(stage: Stage, seed: int) -> None:
    rng, told = random.Random(seed), list[object]()
    stage.rig.rules["max_delete"] = {"fraction": 1.0, "at_least": 100}
    for _ in range(STEPS):
        step(stage, rng, told)
    stage.box.index_lag = 0
    stage.run()
    stage.run(Kind.FULL)
    assert stage.run(Kind.FULL).status is Status.OK, told
    assert stage.held() == stage.truth(), told
    gone = {line["task"] for line in stage.rig.feeds() if line["op"] == "trash"}
    assert not gone & {row for row, _ in stage.cats.members()}, told
