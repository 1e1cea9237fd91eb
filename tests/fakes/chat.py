"""The chat server as a process of its own, and a user who calls it as the page does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from local.processes import free_port
from tests.fakes.servers import ROOT, wait_until

Json = Any  # whatever JSON can hold
TOKEN = "42:secret-of-the-tests"
KEY = "key-of-the-tests"


class Chat:
    """One server, which can be killed and started again on the same port and folder."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder.with_suffix(".log")
        self.start()

    def start(self) -> None:
        arguments = ["--port", str(self.port), "--data", str(self.folder)]
        environment = os.environ | {"TELEGRAM_TOKEN": TOKEN, "CHAT_KEY": KEY}
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "local.telegram", *arguments],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )
        wait_until(self.is_up, 60, "the chat server did not come up")

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return requests.get(self.url, timeout=5).ok
        except requests.ConnectionError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def call(self, method: str, files: Json = None, **values: Json) -> Json:
        """Call a method of the Bot API. Return its result, or its error as (code, description)."""
        body: Json = {"json": values}
        if files:
            body = {"data": form_of(values), "files": files}
        answer = requests.post(f"{self.url}/bot{TOKEN}/{method}", timeout=70, **body)
        said = answer.json()
        assert said["ok"] == answer.ok
        if said["ok"]:
            return said["result"]
        assert said["error_code"] == answer.status_code
        return said["error_code"], said["description"]


def form_of(values: dict[str, Json]) -> dict[str, str]:
    form = {}
    for name, value in values.items():
        form[name] = value
        if not isinstance(value, str):
            form[name] = json.dumps(value)
    return form


class Guest:
    """A user, without a page."""

    def __init__(self, chat: Chat, number: int) -> None:
        self.chat = chat
        self.number = number
        self.after = 0

    def ask(self, method: str, path: str, **options: Json) -> requests.Response:
        url = f"{self.chat.url}/chat/{self.number}/{path}"
        return requests.request(method, url, headers={"X-Chat-Key": KEY}, timeout=60, **options)

    def write(self, text: str, **more: str) -> Json:
        return self.ask("POST", "message", data={"text": text, **more}).json()

    def send(self, kind: str, name: str, data: bytes, **more: str) -> Json:
        return self.ask("POST", "message", files={kind: (name, data)}, data=more).json()

    def press(self, message: int, data: str) -> requests.Response:
        return self.ask("POST", "press", json={"message_id": message, "data": data})

    def news(self, timeout: int = 0) -> list[Json]:
        """Return what has happened since the last call."""
        events: list[Json] = self.ask("GET", f"events?after={self.after}&timeout={timeout}").json()
        self.after = max([self.after, *[event["n"] for event in events]])
        return events


@contextmanager
def running_chat(folder: Path) -> Iterator[Chat]:
    """Run a chat server with its data in `folder`, on a free port."""
    chat = Chat(folder, free_port())
    try:
        yield chat
    finally:
        chat.kill()
