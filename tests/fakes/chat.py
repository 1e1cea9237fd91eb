"""The chat server as a process of its own, and somebody who talks to it as the page does."""

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

from tests.fakes.servers import ROOT, wait_until

Json = Any  # whatever JSON can hold
TOKEN, KEY = "42:secret-of-the-tests", "key-of-the-tests"


class Chat:
    """One server, which can be killed and started again on the same port and folder."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port, self.url = folder, port, f"http://127.0.0.1:{port}"
        self.log = folder.with_suffix(".log")
        self.start()

    def start(self, **environment: str) -> None:
        command = [
            sys.executable,
            "-m",
            "local.telegram",
            "--port",
            str(self.port),
            "--data",
            str(self.folder),
        ]
        secrets = {"TELEGRAM_TOKEN": TOKEN, "CHAT_KEY": KEY, **environment}
        with open(self.log, "a") as sink:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | secrets, stdout=sink, stderr=sink
            )
        wait_until(self.is_up, 20, "the chat server did not come up")

    def is_up(self) -> bool:
        try:
            return requests.get(self.url, timeout=5).ok
        except requests.ConnectionError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def call(self, method: str, files: Json = None, **values: Json) -> Json:
        """A method of the Bot API: its result, or its error as (code, description)."""
        form = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in values.items()
        }
        body: Json = {"data": form, "files": files} if files else {"json": values}
        answer = requests.post(f"{self.url}/bot{TOKEN}/{method}", timeout=70, **body)
        said = answer.json()
        assert said["ok"] == answer.ok
        if said["ok"]:
            return said["result"]
        assert said["error_code"] == answer.status_code
        return said["error_code"], said["description"]


class Guest:
    """A user, without a page."""

    def __init__(self, chat: Chat, number: int) -> None:
        self.chat, self.number, self.after = chat, number, 0

    def ask(self, method: str, path: str, **options: Json) -> requests.Response:
        url, headers = f"{self.chat.url}/chat/{self.number}/{path}", {"X-Chat-Key": KEY}
        return requests.request(method, url, headers=headers, timeout=60, **options)

    def write(self, text: str, **more: str) -> Json:
        return self.ask("POST", "message", data={"text": text, **more}).json()

    def send(self, kind: str, name: str, data: bytes, **more: str) -> Json:
        return self.ask("POST", "message", files={kind: (name, data)}, data=more).json()

    def press(self, message: int, data: str) -> requests.Response:
        return self.ask("POST", "press", json={"message_id": message, "data": data})

    def news(self, timeout: int = 0) -> list[Json]:
        """What has happened since the last time."""
        events: list[Json] = self.ask("GET", f"events?after={self.after}&timeout={timeout}").json()
        self.after = max([self.after, *[event["n"] for event in events]])
        return events


@contextmanager
def running_chat(folder: Path, port: int) -> Iterator[Chat]:
    chat = Chat(folder, port)
    try:
        yield chat
    finally:
        chat.kill()
