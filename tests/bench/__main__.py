"""`python -m tests.bench` (`make bench`): measures syncd as a whole process beside what a user would pick instead, or beside a floor.

Prints a table, keeps its numbers as JSON in bench/, and ends with 1 when a bar is not held. A and B take turns, medians count, CPU is that of whole
processes. Walls mean something on an idle machine only. What could not be installed is a line that says so.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from tests.bench import daemon, files, labelbox, million, studio
from tests.bench.process import ROOT
from tests.bench.table import Row, keep, machine, markdown, plain


class Sizes(NamedTuple):
    pairs: int  # how often two sides take turns
    files: int
    large: int
    live: int
    few: int
    million: int
    changes: tuple[int, ...]
    projects: int
    each: int
    labelbox: int
    syncs: int


WHOLE = Sizes(3, 10_000, 500_000_000, 3_000, 10_000, 1_000_000, (1, 10, 100, 1_000), 1_000, 1_000, 20_000, 2_000)
QUICK = Sizes(1, 2_000, 20_000_000, 1_500, 4_000, 20_000, (1, 10, 100), 120, 20, 2_000, 100)


CASES: Mapping[str, Callable[[Path, Sizes], list[Row]]] = {
    "studio": lambda folder, sizes: studio.real(folder, sizes.live, sizes.pairs),
    "files": lambda folder, sizes: files.against_copies(folder, sizes.files, sizes.pairs),
    "large": lambda folder, sizes: files.large(folder, sizes.large),
    "million": lambda folder, sizes: million.at_scale(folder, sizes.few, sizes.million, sizes.changes, [k for k in sizes.changes if k <= 100]),
    "projects": lambda folder, sizes: million.many_projects(folder, sizes.projects, sizes.each),
    "sharing": lambda folder, _: daemon.ten_syncs(folder, 500),
    "labelbox": lambda folder, sizes: labelbox.first_run(folder, sizes.labelbox, 5 * sizes.labelbox, sizes.pairs),
    "daemon": lambda folder, sizes: daemon.idle(folder, sizes.syncs),
}


def _case(name: str, sizes: Sizes) -> list[Row]:
    with tempfile.TemporaryDirectory(dir=ROOT / "bench", prefix="work-") as folder:
        return CASES[name](Path(folder), sizes)


def main() -> int:
    names = list(CASES)
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--quick", action="store_true", help="small numbers, in a minute or two: to see that it runs; bars mean little then")
    parser.add_argument("--markdown", action="store_true", help="print the table as README.md has it")
    options = parser.parse_args()
    (ROOT / "bench").mkdir(exist_ok=True)
    rows: list[Row] = []
    for name in options.only:
        start = time.monotonic()
        # each in a process of its own: what one of them grew to would be the least that the next one measures (see `process.Cost`)
        with ProcessPoolExecutor(1, get_context("fork")) as process:
            found = process.submit(_case, name, QUICK if options.quick else WHOLE).result()
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        rows += found
        if not options.markdown:
            print("\n".join(map(plain, found)), flush=True)
    print(f"{markdown(rows)}\n\n{machine()}" if options.markdown else machine())
    keep(rows)
    return int(not all(row.held for row in rows))


if __name__ == "__main__":
    sys.exit(main())
