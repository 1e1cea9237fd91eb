"""Everything around one bot: Telegram, S3 and SageMaker, each with faults to switch on.

The emulator and the endpoint run in this process, SeaweedFS and the bot in their own. Users are
objects that send things to the emulator and look at what a chat would show.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.fakes.names import BUCKET, ROOT, TOKEN
from tests.fakes.sagemaker import Endpoint
from tests.fakes.storage import Storage
from tests.fakes.telegram import Message, Telegram, User
from tests.fakes.wire import Wire

# The bot's pauses, a few times shorter, for tests that would only wait.
QUICK = "bot.BACKOFF_SECONDS = 0.1; bot.EDIT_SECONDS = 1; bot.WAKING_SECONDS = 2"


class World:
    """Everything around one bot, which is started and killed by the test."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.telegram = Telegram()
        self.endpoint = Endpoint(storage)
        self.to_s3 = Wire(storage.port)
        self.to_telegram = Wire(self.telegram.port)
        self.process: subprocess.Popen[bytes] | None = None
        self.log = tempfile.NamedTemporaryFile(prefix="stylebot-bot-", suffix=".log")  # noqa: SIM115
        self.users = 1000

    def environment(self, **more: str) -> dict[str, str]:
        return os.environ | {
            "TELEGRAM_TOKEN": TOKEN,
            "TELEGRAM_API": f"http://127.0.0.1:{self.to_telegram.port}",
            "BUCKET": BUCKET,
            "NST_ENDPOINT": "nst",
            "CYCLEGAN_ENDPOINT": "cyclegan",
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.to_s3.port}",
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": self.endpoint.url,
            "SUPPORT": "Ask Vincent.",
            **more,
        }  # fmt: skip

    def start(self, constants: str = "", **more: str) -> None:
        """Start the bot. `constants` is Python that changes some of its own, such as QUICK."""
        environment = self.environment(PYTHONPATH=str(ROOT), **more)
        code = f"import bot; {constants}; raise SystemExit(bot.main())"
        command = [sys.executable, *(["-c", code] if constants else [str(ROOT / "bot.py")])]
        self.process = subprocess.Popen(command, env=environment, stderr=self.log)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def terminate(self) -> float:
        """SIGTERM; the seconds it took."""
        assert self.process
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        return time.monotonic() - began

    def user(self, language: str = "en", group: int | None = None) -> User:
        self.users += 1
        return User(self.telegram, self.users, language, group)

    def logged(self) -> str:
        return Path(self.log.name).read_text()

    def close(self) -> None:
        self.kill()
        for part in (self.to_s3, self.to_telegram, self.telegram, self.endpoint, self.log):
            part.close()
        self.storage.empty()


def made_of(message: Message) -> dict[str, Any]:
    """What a painting of the pretended model says about itself."""
    made: dict[str, Any] = json.loads(message.file)
    return made


@contextlib.contextmanager
def worlds() -> Iterator[Callable[[], World]]:
    """For programs: a maker of worlds that are closed at the end."""
    storage = Storage()
    made: list[World] = []

    def make() -> World:
        made.append(World(storage))
        return made[-1]

    try:
        yield make
    finally:
        for world in made:
            world.close()
        storage.close()
