"""Datasets, slices and model runs of Labelbox by random stories, as `test_labelbox_random` tells them of projects: after each Run that says it is
right the target is, but for what it can't have seen.

SYNCD_STORIES=1000 tells that many instead of the same few.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from syncd.model import Kind, Status
from tests.fakes.labelbox_payloads import image, metadata, text
from tests.fakes.labelbox_world import ModelRun
from tests.unit.test_labelbox import HOUR, Stage, stage

__all__ = ["stage"]  # a fixture

STORIES = int(os.environ.get("SYNCD_STORIES", "2"))
STEPS = 7
FEWEST = 8  # rows that stay
MUTATIONS = {"datasets": "exportDataRowsInCatalog", "slices": "exportDataRowsInSlice", "model_runs": "exportDataRowsInModelRun"}
DARK = {"silent", "remove"}  # what nothing but a full Run tells: rows that leave a project stay in their dataset, with less to show

Edit = Callable[[], object]


def in_slice(state: Any) -> bool:
    return any(field["value"] == "in" for field in state.metadata_fields)


def edits(stage: Stage, run: ModelRun, rng: random.Random) -> dict[str, Edit]:
    box, cats, members = stage.box, stage.cats, stage.cats.members()
    row, held = rng.choice(members)[0], [row for row, state in stage.box.living() if run.id in state.runs]
    told: dict[str, Edit] = {
        "label": lambda: cats.label(row, text(f"{rng.random()}")),
        "status": lambda: cats.set_status(row, "DONE"),
        "add": lambda: cats.add({}, {"metadata_fields": [metadata("in")], "labels": [image()]}),
        "into the slice": lambda: box.edit_metadata(row, metadata("in")),
        "out of the slice": lambda: box.edit_metadata(row, metadata("out")),
        "silent": lambda: box.silent(row, external_id=f"{rng.random()}"),
        "put into the run": lambda: run.put(row, labels=[image(f"{rng.random()}")]),
    }
    if len(members) > FEWEST:
        told |= {"delete": lambda: box.delete(row), "remove": lambda: cats.remove(row)}
    return told | ({"out of the run": lambda: run.remove(rng.choice(held))} if len(held) > 3 else {})


def truth(stage: Stage, kind: str, id_: str) -> dict[str, Any]:
    """The files that ought to be there: the export that syncd orders, without filters and without delay."""
    box, name = stage.box, MUTATIONS[kind]
    orders = (call.variables["input"] for call in reversed(box.log) if name in call.names)
    given = next(order for order in orders if kind != "datasets" or order["params"]["allProjects"])
    if kind == "datasets":
        only = {"ids": [id_], "operator": "is", "type": "dataset"}
        given = given | {"filters": {"searchQuery": {"scope": None, "query": [only]}}}
    lag, box.index_lag = box.index_lag, 0
    task = box.exports.start(name, given, "somebody else", box.url.removesuffix("/graphql"))
    box.index_lag = lag
    rows = map(orjson.loads, re.sub(rb"/tasks/\w+/masks/", b"/tasks/*/masks/", task.result.tail).split(b"\n")[:-1])
    return {f"{kind}/{id_}/{row['data_row']['id']}.json": row for row in rows}


@pytest.mark.parametrize("kind", MUTATIONS)
@pytest.mark.parametrize("seed", range(STORIES))
def test_whatever_people_do_the_target_follows(stage: Stage, kind: str, seed: int) -> None:
    rng, box, told = random.Random(seed), stage.box, list[object]()
    run, chosen = box.model_run("Run 1"), box.slice("Chosen", in_slice)
    for row in stage.ids[:8]:
        box.edit_metadata(row, metadata("in"))
        run.put(row, labels=[image()], predictions=[image("perhaps")])
    id_ = {"datasets": next(iter(box.datasets)), "slices": chosen.id, "model_runs": run.id}[kind]
    stage.rig.rules["max_delete"] = {"fraction": 1.0, "at_least": 100}
    stage.select(**{kind: [id_]})
    box.index_lag = rng.choice([0, 0, 30])
    stage.clock.wait(HOUR)
    dark = False  # something happened that only a full Run sees
    for _ in range(STEPS):
        for _ in range(rng.randrange(4)):
            possible = edits(stage, run, rng)
            told.append(name := rng.choice(list(possible)))
            possible[name]()
            dark |= name in DARK
            stage.clock.wait(rng.choice([0.1, 1, 50]))
        later = rng.choice([1, 60, HOUR])
        report = stage.run(rng.choice([None, None, Kind.FULL]), later=later)
        told.append((report.kind, report.status, later))
        seen = later >= box.index_lag and report.status is Status.OK
        dark = not seen or (dark and report.kind is not Kind.FULL)
        assert dark or stage.held() == truth(stage, kind, id_), told
    assert stage.run(Kind.FULL).status is Status.OK, told
    assert stage.held() == truth(stage, kind, id_), told
