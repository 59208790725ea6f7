"""`python -m tests.soak.stepped WRONG AFTER STEP ...`: syncd, whose wall clock is WRONG seconds off and jumps by STEP seconds AFTER so many."""

from __future__ import annotations

import sys
import time

from syncd.cli.main import main

wrong, after, step = (float(word) for word in sys.argv[1:4])
_true, _begun = time.time_ns, time.monotonic()


def stepped() -> int:
    """What `syncd.clock` asks for."""
    return _true() + int((wrong + (step if time.monotonic() - _begun > after else 0)) * 1e9)


if __name__ == "__main__":
    time.time_ns = stepped
    del sys.argv[1:4]
    main()
