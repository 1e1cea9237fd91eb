"""/ping is answered whatever strangers send to a model server. tests/soak has more strangers."""

from __future__ import annotations

import http.client
import statistics
import time
from collections.abc import Iterator

import pytest

from tests.fakes.servers import LOCAL, Running, gunicorn
from tests.fakes.strangers import BURSTS, KINDS, SLOW, strangers

# SageMaker's limit for /ping. On a machine that has nothing else to do it takes milliseconds.
PING_SECONDS = 2.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("server")
    with gunicorn("tests.fakes.model:app()", folder, environment=LOCAL) as running:
        yield running


@pytest.mark.parametrize("kind", KINDS)
def test_strangers_do_not_stop_ping(server: Running, kind: str) -> None:
    count = 100 if kind in (*SLOW, *BURSTS) else 2
    with strangers(server.url, kind, count):
        seconds = measure_pings(server, 1.0)
    # The machine may be busy with other tests; what the strangers stopped took 15 s and more
    assert max(seconds) < 3 * PING_SECONDS, f"/ping took {max(seconds):.1f} s"


def measure_pings(server: Running, duration: float) -> list[float]:
    """Call /ping for `duration` seconds, each time in a new connection; return what each took."""
    seconds = []
    end = time.monotonic() + duration
    while time.monotonic() < end:
        seconds.append(ping(server))
        time.sleep(0.02)
    return seconds


def ping(server: Running) -> float:
    started = time.monotonic()
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    try:
        connection.request("GET", "/ping")
        assert connection.getresponse().status == 200
    finally:
        connection.close()
    return time.monotonic() - started


def report(kind: str, count: int, seconds: list[float]) -> str:
    """Return a line for people."""
    median, worst = 1000 * statistics.median(seconds), 1000 * max(seconds)
    return f"{kind:24} {count:5}  median {median:6.1f} ms  worst {worst:6.0f} ms"
