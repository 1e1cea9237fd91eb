"""What the program adds to a call of the model server: milliseconds, and requests a second.

    PYTHONPATH=tests python benchmarks/overhead.py

The model server answers at once, so what is measured is the program's part. Direct calls and calls
through the program alternate, by the same HTTP client, so that a busy machine slows down both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from front_door import FrontDoor, running
from kill_rounds import ModelServerProcess

# The program's invocations of the model server at the same time.
WORKERS = 4
# Callers at the same time, where requests a second are counted.
CALLERS = 8
BODIES = {"1 kB": 2**10, "1 MB": 2**20}


@dataclass
class Milliseconds:
    """Times of calls. On a busy machine, the fastest tenth tells most about the program."""

    median: float
    tenth: float

    @classmethod
    def of(cls, seconds: list[float]) -> Milliseconds:
        ordered = sorted(1000 * second for second in seconds)
        return cls(statistics.median(ordered), ordered[len(ordered) // 10])

    def __str__(self) -> str:
        return f"{self.median:.1f} ({self.tenth:.1f})"


def post_call(url: str, body: bytes) -> Callable[[requests.Session], None]:
    """Return a call that ends with the answer."""

    def call(session: requests.Session) -> None:
        session.post(url, body, timeout=60).raise_for_status()

    return call


def direct_call(model_url: str, body: bytes) -> Callable[[requests.Session], None]:
    return post_call(f"{model_url}/invocations", body)


def realtime_call(door: FrontDoor, body: bytes) -> Callable[[requests.Session], None]:
    return post_call(f"{door.url}/endpoints/live/invocations", body)


def async_call(door: FrontDoor, body: bytes) -> Callable[[requests.Session], None]:
    """Return a call that ends when the output is in S3."""

    def call(session: requests.Session) -> None:
        url = f"{door.url}/endpoints/queued/async-invocations"
        answer = session.post(url, body, timeout=60)
        answer.raise_for_status()
        location = answer.headers["X-Amzn-SageMaker-OutputLocation"]
        while door.read(location) is None:
            time.sleep(0.002)

    return call


def accept_call(door: FrontDoor, body: bytes) -> Callable[[requests.Session], None]:
    """Return a call that ends when the request is accepted."""
    return post_call(f"{door.url}/endpoints/queued/async-invocations", body)


def measure_times(
    calls: dict[str, Callable[[requests.Session], None]], count: int
) -> dict[str, Milliseconds]:
    """Return the times of `count` calls of each kind, one after the other, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with requests.Session() as session:
        for _ in range(count):
            for name, call in calls.items():
                started = time.perf_counter()
                call(session)
                seconds[name].append(time.perf_counter() - started)
    return {name: Milliseconds.of(found) for name, found in seconds.items()}


def measure_rate(call: Callable[[requests.Session], None], count: int) -> float:
    """Return the requests a second of CALLERS threads that make `count` calls together."""

    def work() -> None:
        with requests.Session() as session:
            for _ in range(count // CALLERS):
                call(session)

    threads = [threading.Thread(target=work) for _ in range(CALLERS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count / (time.perf_counter() - started)


def measure_drain(door: FrontDoor, count: int) -> float:
    """Return the requests a second from the first call until all outputs are in S3."""
    body = b'{"drain": true}'
    call = accept_call(door, body)
    started = time.perf_counter()
    measure_rate(call, count)
    while backlog(door):
        time.sleep(0.05)
    return count / (time.perf_counter() - started)


def backlog(door: FrontDoor) -> int:
    told: dict[str, Any] = requests.get(f"{door.url}/endpoints", timeout=10).json()
    size: int = told["queued"]["ApproximateBacklogSize"]
    return size


def report(door: FrontDoor, model_url: str, count: int) -> None:
    columns = "direct | InvokeEndpoint | InvokeEndpointAsync, output in S3"
    print(f"| milliseconds, median (fastest tenth) | {columns} |")
    print("|---|---|---|---|")
    for name, size in BODIES.items():
        body = b"x" * size
        calls = {"direct": direct_call(model_url, body), "live": realtime_call(door, body)}
        if size <= 128_000:
            calls["async"] = async_call(door, body)
        found = measure_times(calls, count)
        print(f"| {name} | {found['direct']} | {found['live']} | {found.get('async', '-')} |")
    print()
    print(f"| 1 kB, {CALLERS} callers | requests a second |")
    print("|---|---|")
    body = b"x" * 2**10
    for name, call in {
        "direct": direct_call(model_url, body),
        "InvokeEndpoint": realtime_call(door, body),
        "InvokeEndpointAsync, accepted": accept_call(door, body),
    }.items():
        print(f"| {name} | {measure_rate(call, 4 * count):.0f} |")
    while backlog(door):
        time.sleep(0.05)
    print(f"| InvokeEndpointAsync, outputs in S3 | {measure_drain(door, 4 * count):.0f} |")
    print()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, a load of {load:.1f} while measuring; {WORKERS} workers.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=200, help="calls of each kind (%(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model_server = ModelServerProcess(folder)
        model_server.start()
        options = (
            f"--endpoint=queued={model_server.url}",
            f"--realtime=live={model_server.url}",
            f"--max-concurrent={WORKERS}",
        )
        try:
            with running(folder, *options) as door:
                door.wait_until_serving("queued")
                door.wait_until_serving("live")
                report(door, model_server.url, arguments.count)
        finally:
            model_server.kill()


if __name__ == "__main__":
    main()
