"""A thousand chats wait for a painting: the bot's memory, and a newcomer's wait for an answer.

"S3 and Telegram" is the time that the same calls take by themselves, in this process and against
the same servers. What is beyond it is the bot's own time.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from benchmarks.measure import Settings, say, table

if TYPE_CHECKING:  # what the tests require is there to measure the bot, not always to report of it
    from tests.fakes.telegram import User
    from tests.fakes.world import World

TITLE = "The bot"
CHATS, STARTS = 1000, 50


def memory(world: World) -> float:
    """The bot's resident memory, MB."""
    assert world.process
    status = Path(f"/proc/{world.process.pid}/status").read_text()
    return next(
        int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")
    )


def measure_start(user: User) -> float:
    """Seconds from a /start put into the queue to its answer in the chat."""
    before = len(user.messages())
    began = time.monotonic()
    user.write("/start")
    while len(user.messages()) == before:
        time.sleep(0.001)
    return time.monotonic() - began


def measure_calls(world: World, key: str) -> list[float]:
    """Seconds that the calls of one /start take: read and write the chat, send the answer."""
    from tests.fakes.names import BUCKET, TOKEN
    from tests.fakes.storage import s3_client

    s3, web = s3_client(world.to_s3.port), requests.Session()
    url = f"http://127.0.0.1:{world.to_telegram.port}/bot{TOKEN}/sendMessage"
    seconds = []
    for _ in range(STARTS + 1):
        began = time.monotonic()
        body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        web.post(url, json={"chat_id": 1, "text": "Hello"}, timeout=10)
        seconds.append(time.monotonic() - began)
    return seconds[1:]  # the first one connects


def fill(world: World) -> None:
    """Every chat sends a photo and presses a painter; the model sleeps."""
    from tests.fakes.names import eventually

    users = [world.user() for _ in range(CHATS)]
    for user in users:
        user.photo()
    for user in users:
        user.press(user.sees("Choose", seconds=300), "Monet")
    eventually(lambda: len(world.endpoint.calls) == CHATS, "all jobs are with the model", 600)


def measure(_: Settings) -> dict[str, Any]:
    from tests.fakes.world import worlds

    rows = []
    with worlds() as make:
        world = make()
        world.endpoint.mode = "asleep"
        world.start()
        newcomers = [world.user() for _ in range(STARTS)]
        measure_start(newcomers[0])
        for chats in (0, CHATS):
            if chats:
                fill(world)
                time.sleep(20)  # the watcher's ordinary life
            starts = [measure_start(user) for user in newcomers for _ in range(2)]
            calls = measure_calls(world, f"chats/{newcomers[0].chat}.json")
            rows.append(
                {
                    "pending": chats,
                    "memory": memory(world),
                    "start": statistics.median(starts),
                    "calls": statistics.median(calls),
                }
            )
            start_ms = 1000 * rows[-1]["start"]
            say(f"{chats} jobs pending: {rows[-1]['memory']:.0f} MB, /start {start_ms:.0f} ms")
    return {"rows": rows}


def report(results: dict[str, Any]) -> str:
    rows = []
    for row in results["rows"]:
        start, calls = 1000 * row["start"], 1000 * row["calls"]
        rows.append(
            [
                f"{row['pending']}",
                f"{row['memory']:.0f}",
                f"{start:.0f}",
                f"{calls:.0f}",
                f"{start - calls:.0f}",
            ]
        )
    head = [
        "jobs pending",
        "memory, MB",
        "/start, median ms",
        "S3 and Telegram, median ms",
        "beyond, ms",
    ]
    return table(head, rows)
