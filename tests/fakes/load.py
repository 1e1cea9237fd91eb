"""All kinds of requests to a model server, for minutes: what it holds at rest must not grow.

`python -m tests.fakes.load --minutes 120` prints memory, threads and open files ten times.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import requests
from PIL import Image

from tests.fakes.servers import LOCAL, RecordingStore, Running, gunicorn

CLIENTS = 4
ROUNDS = 10
# In which a server ends what its clients have left
REST_SECONDS = 8.0
PATIENCE = 60


class Held(NamedTuple):
    """What the processes of a server hold: memory in MB, each page once; threads; open files."""

    memory: int
    threads: int
    files: int


def picture(side: int, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((side, side * 3 // 4), 80).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


PHOTOS = [picture(64, "PNG"), picture(400, "JPEG"), picture(1200, "WEBP"), b"no picture", b""]


class Load:
    """Clients of one server, each of which does one thing after the other until it is stopped."""

    def __init__(self, server: Running, store: RecordingStore, seed: int) -> None:
        self.server = server
        self.store = store
        self.seed = seed
        self.stopping = threading.Event()
        self.statuses: Counter[str] = Counter()
        self.lock = threading.Lock()  # guards statuses
        for number, photo in enumerate(PHOTOS):
            store.objects[str(number)] = photo

    def run(self, seconds: float) -> None:
        self.stopping.clear()
        clients = []
        for number in range(CLIENTS):
            self.seed += 1
            dice = random.Random(self.seed)
            clients.append(threading.Thread(target=self.work, args=(dice,), name=str(number)))
        for client in clients:
            client.start()
        time.sleep(seconds)
        self.stopping.set()
        for client in clients:
            client.join()
        # They are the test's own memory, not the server's
        self.store.puts.clear()

    def work(self, dice: random.Random) -> None:
        kinds: list[Callable[[random.Random], requests.Response | None]] = [
            self.form,
            self.json,
            self.batch,
            self.nonsense,
            self.leave,
            self.half,
            self.ping,
        ]
        while not self.stopping.is_set():
            answer = dice.choice(kinds)(dice)
            if answer is not None:
                self.count(answer)

    def count(self, answer: requests.Response) -> None:
        status = str(answer.status_code)
        if answer.status_code >= 400:
            status = answer.json()["error"]["code"]
        with self.lock:
            self.statuses[status] += 1

    def url(self, dice: random.Random) -> str:
        return self.store.url(str(dice.randrange(len(PHOTOS) + 1)))

    def form(self, dice: random.Random) -> requests.Response:
        return self.server.post(files={"content": dice.choice(PHOTOS)}, data={"style": "negative"})

    def json(self, dice: random.Random) -> requests.Response:
        fields = {"content_url": self.url(dice), "style_name": "negative"}
        fields |= {"result_url": self.store.url("made.jpg")}
        fields |= {"progress_url": self.store.url("progress.json")}
        return self.server.post(json=fields)

    def batch(self, dice: random.Random) -> requests.Response:
        result = self.store.url("made.png")
        rows = [f"{self.url(dice)},negative,{result}" for _ in range(dice.randint(1, 5))]
        return self.server.post(data="\n".join(rows), headers={"Content-Type": "text/csv"})

    def nonsense(self, dice: random.Random) -> requests.Response:
        kinds = ["application/json", "text/csv", "image/png", "multipart/form-data", "a/b"]
        body = dice.randbytes(dice.randint(0, 20_000))
        return self.server.post(data=body, headers={"Content-Type": dice.choice(kinds)})

    def leave(self, dice: random.Random) -> None:
        with contextlib.suppress(requests.RequestException):
            requests.post(
                f"{self.server.url}/invocations",
                files={"content": PHOTOS[2]},
                data={"style": "negative"},
                timeout=(5, dice.uniform(0.001, 0.1)),
            )

    def half(self, dice: random.Random) -> None:
        host, port = self.server.url.removeprefix("http://").split(":")
        head = (
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 99
        )
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 5) as client:
            client.sendall(head[: dice.randint(0, len(head))])

    def ping(self, dice: random.Random) -> requests.Response:
        return requests.get(f"{self.server.url}/ping", timeout=PATIENCE)


def processes_of(pid: int) -> list[int]:
    """Return a process and all that came of it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += processes_of(int(child))
    return found


def held_by(server: Running) -> Held:
    memory = threads = files = 0
    for pid in processes_of(server.process.pid):
        folder = Path(f"/proc/{pid}")
        with contextlib.suppress(OSError):
            lines = (folder / "smaps_rollup").read_text().splitlines()
            memory += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            threads += len(list((folder / "task").iterdir()))
            files += len(list((folder / "fd").iterdir()))
    return Held(memory >> 10, threads, files)


def measure(seconds: float, rounds: int = ROUNDS) -> tuple[list[Held], Counter[str]]:
    """Return what a server holds at rest after each round, and what it has answered in between."""
    store = RecordingStore()
    with tempfile.TemporaryDirectory() as folder:
        application = "tests.fakes.model:cyclegan_interface()"
        with gunicorn(application, Path(folder), environment=LOCAL) as server:
            load = Load(server, store, seed=1)
            # Its threads begin with the first requests
            load.run(seconds / 10)
            held = []
            for _ in range(rounds):
                load.run(seconds / rounds)
                time.sleep(REST_SECONDS)
                held.append(held_by(server))
                print(f"{held[-1]} after {load.statuses.total()} answers", flush=True)
    store.shutdown()
    store.server_close()
    return held, load.statuses


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.load")
    parser.add_argument("--minutes", type=float, default=120, help="how long to send requests")
    arguments = parser.parse_args()
    _, statuses = measure(60 * arguments.minutes)
    print(dict(statuses))


if __name__ == "__main__":
    main()
