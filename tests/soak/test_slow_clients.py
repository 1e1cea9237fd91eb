"""A thousand slow clients, and clients that send what is expensive to read; /ping is measured.

`pytest -s tests/soak/test_slow_clients.py` prints the figures.
"""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from containers.serving.worker import MAX_CONNECTIONS
from tests.contract.test_slow_clients import PING_SECONDS, measure_pings, ping, report
from tests.fakes.servers import LOCAL, Running, gunicorn
from tests.fakes.strangers import BURSTS, KINDS, SLOW, strangers

CLIENTS, SENDERS, SECONDS = 1000, 8, 10.0
pytestmark = pytest.mark.long
# Of the server, which holds a hundred uploads and their answers
MEMORY_MEGABYTES = 1024


@pytest.fixture(autouse=True, scope="module")
def _many_files() -> None:
    """Let the processes that this one starts open as many connections as they may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@pytest.mark.parametrize("kind", KINDS)
def test_strangers_do_not_stop_ping(tmp_path: Path, kind: str) -> None:
    count = CLIENTS if kind in (*SLOW, *BURSTS) else SENDERS
    with gunicorn("tests.fakes.model:app()", tmp_path, environment=LOCAL) as server:
        with strangers(server.url, kind, count):
            seconds = measure_pings(server, SECONDS)
        print(report(kind, count, seconds), f" memory {memory(server)} MB")
        assert max(seconds) < PING_SECONDS
        assert memory(server) < MEMORY_MEGABYTES
        assert ping(server) < PING_SECONDS


def test_more_connections_than_the_server_holds_do_not_stop_ping(tmp_path: Path) -> None:
    count = MAX_CONNECTIONS + 500
    with gunicorn("tests.fakes.model:app()", tmp_path, environment=LOCAL) as server:
        with strangers(server.url, "half heads", count):
            seconds = measure_pings(server, SECONDS)
        print(report("half heads", count, seconds))
        assert max(seconds) < PING_SECONDS


def memory(server: Running) -> int:
    """Return the largest resident set of the server's worker so far, in MB."""
    pid = server.process.pid
    [worker] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for line in Path(f"/proc/{worker}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) >> 10
    raise AssertionError("the worker has no memory")
