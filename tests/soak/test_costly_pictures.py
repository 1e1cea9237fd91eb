"""Every costly picture, nine at a time, and thousands of damaged ones on a real server."""

import sys
from pathlib import Path

import pytest

from tests.fakes.costly_pictures import COSTLY, SIDE, png
from tests.fakes.picture_flood import (
    PHOTOGRAPH,
    damaged,
    flood,
    memory_of,
    wait_until_at_rest,
    worker_of,
)
from tests.fakes.picture_search import corpus
from tests.fakes.servers import gunicorn

ROUNDS = 2
DAMAGED = 4000

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def test_costly_and_damaged_pictures(tmp_path: Path) -> None:
    photo = ("photo", PHOTOGRAPH.read_bytes())
    costly = [(name, make()) for name, make in COSTLY.items()]
    bombs = [("PNG", png(SIDE, SIDE))] * 9
    floods = {
        "PNGs of 155 kB": bombs * 3,
        "costly pictures": [*costly, *corpus().items(), photo] * ROUNDS,
        "damaged pictures": list(damaged(DAMAGED, seed=2)),
    }
    with gunicorn("tests.fakes.model:app()", tmp_path) as server:
        flood(server, [photo] * 20, clients=9)
        worker = worker_of(server)
        before = memory_of(worker)
        for name, pictures in floods.items():
            result = flood(server, pictures, clients=9)
            after = wait_until_at_rest(server, before)
            print(f"{name}: {result.summary()}; memory {before:.0f} MB, then {after:.0f} MB")
            assert result.faults() == []
            # 9 s, and what a busy machine adds
            assert result.slowest().seconds < 30
            assert max(result.pings) < 10
            assert worker_of(server) == worker
