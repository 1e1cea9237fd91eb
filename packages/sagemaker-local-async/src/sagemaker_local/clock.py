"""How long ago something was, also if the wall clock has been set meanwhile.

Linux counts the seconds since the machine was started, sleep included, and nobody sets that clock.
It goes on over restarts of this program, so it can be stored together with the name of the boot.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path


@cache
def boot_id() -> str:
    """Return what names this run of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def seconds_since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
