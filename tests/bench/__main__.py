"""`python -m tests.bench` (`make bench`): measures syncd as a whole process, prints a table, keeps the numbers as JSON in bench/.

Exit code 1 when a bar is not held. CPU seconds and ratios of neighbouring runs are compared, since walls on a shared machine mean little.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from tests.bench import cases, daemon
from tests.bench.cases import Row
from tests.bench.process import ROOT

_DEFAULT = ["rclone", "again", "memory", "labelbox", "daemon"]


def main() -> int:
    options = _options()
    rows = []
    for name, case in _cases(options).items():
        if name in options.only:
            with tempfile.TemporaryDirectory(prefix="syncd-bench-") as folder:
                found = case(Path(folder))
            for row in found:
                print(_line(row), flush=True)
            rows += found
    _keep(rows)
    return int(not all(row.held for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tasks", type=int, default=10_000, help="of a first Run; memory is measured at so many and ten times as many (Labelbox: twice)"
    )
    parser.add_argument("--pairs", type=int, default=3, help="how often the two sides of a comparison take turns")
    parser.add_argument("--only", nargs="+", choices=[*_DEFAULT, "live"], default=_DEFAULT)
    parser.add_argument("--live", action="store_true", help="also against the real Label Studio, once .ci/label-studio has installed it")
    parser.add_argument("--live-tasks", type=int, default=5_000)
    options = parser.parse_args()
    options.only = [*options.only, *(["live"] if options.live else [])]
    return options


def _cases(options: argparse.Namespace) -> Mapping[str, Callable[[Path], list[Row]]]:
    def live(folder: Path) -> list[Row]:
        from tests.bench.live import against_download

        return against_download(folder, options.live_tasks, options.pairs)

    def first_run(folder: Path) -> list[Row]:
        from tests.bench.labelbox import first_run

        return first_run(folder, 2 * options.tasks, 20 * options.tasks, options.pairs)

    return {
        "rclone": lambda folder: cases.against_rclone(folder, options.tasks, options.pairs),
        "again": lambda folder: cases.nothing_changed(folder, options.tasks),
        "memory": lambda folder: cases.memory(folder, options.tasks, 10 * options.tasks),
        "labelbox": first_run,
        "daemon": daemon.idle,
        "live": live,
    }


def _line(row: Row) -> str:
    bar = "" if row.most is None else f"at most {row.most:g}   {'held' if row.held else 'NOT HELD'}"
    return f"{row.name:<70} {row.value:>9.2f} {row.unit:<3} {bar}".rstrip()


def _keep(rows: list[Row]) -> None:
    folder = ROOT / "bench"
    folder.mkdir(exist_ok=True)
    path = folder / time.strftime("%Y%m%dT%H%M%S.json")
    path.write_text(json.dumps([asdict(row) | {"held": row.held} for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
