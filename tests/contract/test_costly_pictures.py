"""Costly and damaged pictures on a real server; tests/soak sends more of them."""

import sys
from collections.abc import Iterator

import pytest

from containers.serving.decoder import DECODERS
from tests.fakes.costly_pictures import COSTLY
from tests.fakes.picture_flood import (
    PHOTOGRAPH,
    damaged,
    flood,
    memory_of,
    processes_of,
    wait_until_at_rest,
    worker_of,
)
from tests.fakes.servers import Running, gunicorn

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

QUICK = (
    "BMP of deltas",
    "PNG with alpha",
    "PNG of zTXt",
    "PNG with a large profile",
    "TIFF of strips",
    "TIFF in a circle",
    "HEIC that says it is large",
    "HEIC that says it is small",
)
# They take all the time that a picture may take.
SLOW = ("progressive JPEG", "GIF of comments")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with gunicorn("tests.fakes.model:app()", tmp_path_factory.mktemp("server")) as running:
        yield running


def test_costly_and_damaged_pictures_cost_only_their_own_answer(server: Running) -> None:
    photo = PHOTOGRAPH.read_bytes()
    flood(server, [("photo", photo)] * 20, clients=4)
    worker = worker_of(server)
    before = memory_of(worker)
    pictures = [(name, COSTLY[name]()) for name in (*SLOW, *QUICK)]
    pictures += list(damaged(150, seed=1))
    pictures += [("photo", photo)] * 10

    result = flood(server, pictures, clients=4)

    print(result.summary())
    assert result.faults() == []
    # 9 s, and what a busy machine adds
    assert result.slowest().seconds < 30
    assert max(result.pings) < 10
    [answer] = flood(server, [("photo", photo)], clients=1).answers
    assert answer.status == 200
    assert worker_of(server) == worker
    wait_until_at_rest(server, before)
    assert len(processes_of(worker, "containers.serving.decoder_process")) == DECODERS
