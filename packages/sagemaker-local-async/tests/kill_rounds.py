"""Kill the program with -9 again and again while it accepts requests, and check every answer.

    python kill_rounds.py --rounds 200 --requests 10000

In each round the program accepts its share of the requests. Then the program, or the model server,
or both are killed at a random moment and started again. In the end each accepted request must have
exactly one answer, its own, and no answer may have changed since it was first seen.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from front_door import FrontDoor, free_port, wait_until

NAME = "mortal"
SEED = 20261126
# Where the program writes the answers when it is told nothing else.
BUCKET = "sagemaker-local"
ANSWERS = "async/"
PROGRAM = "program"
MODEL = "model server"
BOTH = "both"
VICTIMS = (PROGRAM, MODEL, BOTH)
MODEL_SERVER = Path(__file__).with_name("model_server.py")
SENDERS = 4
# The program's invocations of the model server at the same time.
WORKERS = 4
# How long the answers may take after the last round.
LAST_SECONDS = 300
# A killed program may not come back, and the rounds must not wait for it for ever.
ROUND_SECONDS = 120


class ModelServerProcess:
    """A model server in a process of its own, which can be killed."""

    def __init__(self, folder: Path) -> None:
        self.journal = folder / "journal"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.command = [sys.executable, str(MODEL_SERVER), str(port), str(self.journal)]

    def start(self) -> None:
        self.process = subprocess.Popen(self.command)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def read_journal(self) -> dict[int, set[str]]:
        """Return the stamps of the answers that were made, by the number of the request."""
        stamps: dict[int, set[str]] = {}
        for line in self.journal.read_text().splitlines():
            number, _, stamp = line.partition(" ")
            stamps.setdefault(int(number), set()).add(stamp)
        return stamps


@dataclass
class Accepted:
    status: int
    # The answer to the call, with OutputLocation and FailureLocation.
    places: dict[str, Any]


class Load:
    """Requests that several threads send, and the answers as another thread sees them."""

    def __init__(self, door: FrontDoor, seed: int) -> None:
        self.door = door
        self.lock = threading.Lock()
        # The two below by the number of a request.
        self.accepted: dict[int, Accepted] = {}  # guarded by lock
        self.next_number = 0  # guarded by lock
        # The hash of each answer when it was first seen, by its key. Used by `watch` only.
        self.seen: dict[str, str] = {}
        self.changed: list[str] = []
        self.may_send = threading.Event()
        self.stopped = threading.Event()
        self.senders = [self.thread(self.send, f"{seed} {number}") for number in range(SENDERS)]
        self.watcher = self.thread(self.watch)

    def thread(self, target: Callable[..., None], *arguments: str) -> threading.Thread:
        return threading.Thread(target=target, args=arguments, daemon=True)

    def start(self) -> None:
        for thread in (*self.senders, self.watcher):
            thread.start()

    def accept(self, count: int) -> None:
        """Send until so many requests are accepted in all. The senders go on after that."""
        self.may_send.set()
        wait_until(lambda: self.count() >= count, ROUND_SECONDS, "it accepts no requests any more")
        self.may_send.clear()

    def count(self) -> int:
        with self.lock:
            return len(self.accepted)

    def stop(self) -> None:
        self.stopped.set()
        self.may_send.set()

    # ------------------------------------------------------------ requests

    def send(self, seed: str) -> None:
        dice = random.Random(seed)
        while self.may_send.wait() and not self.stopped.is_set():
            self.send_one(dice)

    def send_one(self, dice: random.Random) -> None:
        with self.lock:
            number = self.next_number
            self.next_number += 1
        status = dice.choice([200, 200, 200, 400])
        wish = {"n": number, "seconds": dice.uniform(0, 0.02), "status": status, "stamp": True}
        try:
            places = self.door.ask(NAME, wish)
        except (BotoCoreError, ClientError):
            time.sleep(0.05)  # it was not accepted: the program is being killed
            return
        with self.lock:
            self.accepted[number] = Accepted(status, places)

    # ------------------------------------------------------------ answers

    def watch(self) -> None:
        while not self.stopped.wait(1):
            with contextlib.suppress(BotoCoreError, ClientError):
                self.look()

    def look(self) -> None:
        """Remember the answers that are new, and those that have changed."""
        for key, found in self.list_hashes().items():
            if self.seen.setdefault(key, found) != found:
                self.changed.append(key)
                self.seen[key] = found

    def list_hashes(self) -> dict[str, str]:
        """Return the hash of each answer, by its key."""
        pages = self.door.s3.get_paginator("list_objects_v2")
        found = {}
        for page in pages.paginate(Bucket=BUCKET, Prefix=ANSWERS):
            for item in page.get("Contents", ()):
                found[item["Key"]] = item["ETag"]
        return found

    def wait_for_answers(self) -> None:
        """Wait until each request has an answer, or until nothing has come for a while."""
        self.may_send.clear()
        deadline = time.monotonic() + LAST_SECONDS
        while len(self.seen) < self.count() and time.monotonic() < deadline:
            time.sleep(1)
        # A second answer would come after the first.
        time.sleep(5)

    def answers_of(self, number: int) -> dict[str, bytes]:
        """Return the answers of a request, by their locations."""
        answers = {}
        places = self.accepted[number].places
        for location in (places["OutputLocation"], places["FailureLocation"]):
            data = self.door.read(location)
            if data is not None:
                answers[location] = data
        return answers


@dataclass
class Report:
    # Rounds, by what was killed.
    kills: Counter[str]
    accepted: int
    seconds: float
    # What is wrong, a line each.
    problems: list[str] = field(default_factory=list)
    outputs: int = 0
    failures: int = 0
    given_up: int = 0
    # Requests that the model server answered more than once.
    repeated: int = 0

    def __str__(self) -> str:
        kills = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} rounds in {self.seconds:.0f} s ({kills}); "
            f"{self.accepted} accepted requests: {self.outputs} outputs, "
            f"{self.failures} failures of the model, {self.given_up} given up, "
            f"{len(self.problems)} lost or wrong; "
            f"the model server answered {self.repeated} of them more than once"
        )


def run(
    folder: Path, rounds: int, requests: int, seed: int = SEED, keep_s3: bool = False
) -> Report:
    """Run the rounds and return what became of the requests. `folder` has to be empty.

    keep_s3: let another process serve S3, which is not killed. A round takes less time then.
    Ctrl-C ends the rounds early, and what was accepted by then is checked.
    """
    started = time.monotonic()
    model_server = ModelServerProcess(folder)
    storage = None
    if keep_s3:
        storage = FrontDoor(folder)
    arguments = (f"--endpoint={NAME}={model_server.url}", f"--max-concurrent={WORKERS}")
    door = FrontDoor(folder, *arguments, storage=storage)
    load = Load(door, seed)
    kills: Counter[str] = Counter()
    try:
        if storage:
            storage.start()
            storage.wait_until_started()
        model_server.start()
        door.start()
        door.wait_until_serving(NAME)
        load.start()
        with contextlib.suppress(KeyboardInterrupt):
            run_rounds(load, model_server, kills, rounds, requests, random.Random(seed))
        load.wait_for_answers()
        report = Report(kills, load.count(), time.monotonic() - started)
        check_answers(load, model_server.read_journal(), report)
    finally:
        load.stop()
        door.kill()
        model_server.kill()
        if storage:
            storage.kill()
    return report


def run_rounds(
    load: Load,
    model_server: ModelServerProcess,
    kills: Counter[str],
    rounds: int,
    requests: int,
    dice: random.Random,
) -> None:
    """Accept the requests, and kill after each part of them. Counts in `kills`."""
    for number in range(1, rounds + 1):
        load.accept(requests * number // rounds)
        # Some requests wait, some are at work, some answers are being written.
        time.sleep(dice.uniform(0, 0.5))
        victims = VICTIMS[number % len(VICTIMS)]
        kill_and_start(victims, load.door, model_server)
        kills[victims] += 1


def kill_and_start(victims: str, door: FrontDoor, model_server: ModelServerProcess) -> None:
    if victims != PROGRAM:
        model_server.kill()
    if victims != MODEL:
        door.kill()
    if victims != PROGRAM:
        model_server.start()
    if victims != MODEL:
        door.start()


def check_answers(load: Load, stamps: dict[int, set[str]], report: Report) -> None:
    """Compare each accepted request with its answer, and count in the report."""
    for location in load.changed:
        report.problems.append(f"{location} was written twice, with different answers")
    for number, accepted in load.accepted.items():
        if len(stamps.get(number, ())) > 1:
            report.repeated += 1
        answers = load.answers_of(number)
        if is_given_up(answers, accepted):
            report.given_up += 1
            continue
        problem = request_problem(answers, accepted, stamps.get(number, set()))
        if problem:
            report.problems.append(f"request {number}: {problem}")
        elif accepted.status == 200:
            report.outputs += 1
        else:
            report.failures += 1


def is_given_up(answers: dict[str, bytes], accepted: Accepted) -> bool:
    """Return whether the model server was killed so often over this request that it failed."""
    return list(answers) == [accepted.places["FailureLocation"]] and b"died" in next(
        iter(answers.values())
    )


def request_problem(answers: dict[str, bytes], accepted: Accepted, stamps: set[str]) -> str | None:
    """Return what is wrong with the answers of a request, by their locations."""
    if len(answers) != 1:
        return f"{len(answers)} answers instead of 1"
    location, data = next(iter(answers.items()))
    expected = "OutputLocation"
    if accepted.status != 200:
        expected = "FailureLocation"
    if location != accepted.places[expected]:
        return f"{location} instead of its {expected}: {data[:200]!r}"
    try:
        stamp = json.loads(data)["stamp"]
    except (ValueError, KeyError):
        return f"not the model's words: {data[:200]!r}"
    if stamp not in stamps:
        return f"the answer of another request: {data[:200]!r}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--keep-s3", action="store_true", help="kill no S3: more rounds an hour")
    arguments = parser.parse_args()
    # Ctrl-C, also for a process that runs in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        report = run(
            Path(folder),
            arguments.rounds,
            arguments.requests,
            arguments.seed,
            arguments.keep_s3,
        )
    print(report)
    for problem in report.problems:
        print(problem)
    return int(bool(report.problems))


if __name__ == "__main__":
    sys.exit(main())
