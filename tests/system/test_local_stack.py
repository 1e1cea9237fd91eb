"""All of stylebot at once: the real bot, storage, runtime and chat, around models that only invert a picture."""

from __future__ import annotations

import io
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from PIL import Image, ImageChops, ImageOps, ImageStat

from local.demo import PHOTO, STYLE, User, find_button
from local.processes import free_port
from local.seaweedfs import remove_sockets
from local.stack import MARK
from tests.fakes.chat import KEY, TOKEN, Chat
from tests.fakes.servers import ROOT, wait_until

Json = Any  # whatever JSON can hold
SEED, KILLS = 20261122, 3


class Stack:
    """./local.sh in a process of its own."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.data, self.arguments, self.environment = folder / "data", arguments, environment
        self.said = folder / "said"

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.fakes.stack",
            "stack",
            "--data",
            str(self.data),
            *self.arguments,
        ]
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AWS_", "TELEGRAM"))
        }
        with open(self.said, "wb") as sink:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment | self.environment, stdout=sink, stderr=sink
            )

    def comes_up(self) -> None:
        wait_until(
            lambda: "The chat: " in self.words() or self.process.poll() is not None,
            60,
            "it does not come up",
        )
        assert self.process.poll() is None, self.words()
        url = re.search(r"The chat: (\S+)", self.words())
        assert url
        self.api, _, self.key = url[1].partition("/#")

    def words(self) -> str:
        return self.said.read_text()

    def says(self, pattern: str, seconds: float = 30) -> None:
        wait_until(
            lambda: re.search(pattern, self.words()),
            seconds,
            f"it did not say {pattern!r}: {self.words()}",
        )

    def user(self, number: int) -> User:
        return User(
            SimpleNamespace(api=self.api, key=self.key, tend=lambda: None, logs=self.data / "logs"),
            number,
        )  # type: ignore[arg-type]

    def processes(self) -> dict[int, str]:
        """What it has started: process number to command line, with its environment's secrets left out by the OS."""
        found, mark = {}, f"{MARK}={self.data}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (
                        (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    )
        return found

    def part(self, pattern: str) -> int:
        """The number of a part's first process."""
        return min(number for number, command in self.processes().items() if pattern in command)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def kill_everything(self) -> None:
        self.process.kill()
        for number, command in self.processes().items():
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
            remove_sockets([command])
        self.process.wait()

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def running(folder: Path, *arguments: str, **environment: str) -> Iterator[Stack]:
    stack = Stack(folder, *arguments, **environment)
    stack.start()
    try:
        stack.comes_up()
        yield stack
    except BaseException:
        for log in sorted((stack.data / "logs").glob("*.log")):
            print(f"--- {log.name}\n{log.read_text()[-2000:]}")
        raise
    finally:
        print(stack.words())  # shown by pytest where the test fails
        stack.kill_everything()


def is_negative(data: bytes) -> bool:
    """Of the photo, as the fake models make it."""
    painted, photo = Image.open(io.BytesIO(data)).convert("RGB"), Image.open(PHOTO).convert("RGB")
    difference = ImageChops.difference(painted, ImageOps.invert(photo).resize(painted.size))
    return max(ImageStat.Stat(difference).mean) < 8


def test_a_conversation_with_both_models_and_no_secret_told(tmp_path: Path) -> None:
    with running(tmp_path) as stack:
        user = stack.user(7)
        user.send(picture=PHOTO)
        question = user.hears("style:")
        assert [
            button["text"] for row in question["reply_markup"]["inline_keyboard"] for button in row
        ] == ["Negative"]
        user.press(question, "style:negative", "Negative")
        assert is_negative(user.gets_picture("painted"))
        user.send(picture=PHOTO)
        user.hears("style:")
        user.send(picture=STYLE)
        assert is_negative(user.gets_picture("stylised"))

        processes = stack.processes()
        assert len(processes) >= 6
        secrets = {stack.key}
        for number in processes:
            pairs = [
                line.partition(b"=")
                for line in Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
            ]
            known = (b"TELEGRAM_TOKEN", b"CHAT_KEY", b"AWS_SECRET_ACCESS_KEY")
            secrets |= {value.decode() for name, _, value in pairs if name in known}
        assert len(secrets) == 3
        written = {
            log.name: log.read_text(errors="replace") for log in (stack.data / "logs").iterdir()
        }
        for secret in secrets:
            assert not [command for command in processes.values() if secret in command], (
                "a secret on a command line"
            )
            assert not [name for name, words in written.items() if secret in words], (
                "a secret in a log"
            )
        assert listening(processes) == {"0100007F"}, "a port that is open to others"

        second = Stack(tmp_path)
        second.said = tmp_path / "said by the second"
        second.start()
        assert second.process.wait(30) == 1
        assert "runs already" in second.words()

        assert stack.stop() == 130
        assert stack.processes() == {}, "something is left"
        stack.start()
        stack.comes_up()
        assert len([m for _, m in stack.user(7).listen(2) if "photo" in m]) >= 5, (
            "the chat's past is gone"
        )
        again = stack.user(7)
        result = max(
            (m for _, m in again.listen(2) if find_button(m, "another:")),
            key=lambda m: m["message_id"],
        )
        again.press(result, find_button(result, "another:")["callback_data"], "Another style")
        again.hears("style:")  # the bot knows its old result


def listening(processes: dict[int, str]) -> set[str]:
    """The addresses, as /proc shows them, at which these processes wait for connections."""
    sockets = set()
    for number in processes:
        for file in Path(f"/proc/{number}/fd").iterdir():
            with suppress(OSError):
                sockets.add(os.readlink(file).removeprefix("socket:[").removesuffix("]"))
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}


def test_everything_killed_in_the_middle_and_started_again_still_delivers(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    with running(tmp_path, FAKE_STEPS="12") as stack:
        for number in range(1, KILLS + 1):
            user = stack.user(number)
            user.send(picture=PHOTO)
            question = user.hears("style:")
            if number % 2:
                user.press(question, "style:negative", "Negative")
            else:
                user.send(picture=STYLE)
            time.sleep(
                dice.uniform(0, 2)
            )  # from before the bot has heard of it to the painted picture
            stack.kill_everything()
            stack.start()
            stack.comes_up()
        for number in range(1, KILLS + 1):
            assert is_negative(painting(stack.user(number))), f"the picture of user {number}"
        print(f"{KILLS} kills of everything, {KILLS} pictures")


def painting(user: User) -> bytes:
    """What the bot has sent, or will."""
    for _, message in user.listen(60):
        if (
            message.get("from") == "bot"
            and "photo" in message
            and not find_button(message, "cancel:")
        ):
            return user.web.get(
                f"{user.chat}/file/{message['photo']['file_id']}", timeout=10
            ).content
    raise AssertionError(f"no picture; the chat shows {list(user.messages.values())}")


def test_each_part_that_dies_is_started_again_and_said_so(tmp_path: Path) -> None:
    with running(tmp_path) as stack:
        for name, pattern in (
            ("storage", "-s3.port="),
            ("sagemaker", "local.sagemaker"),
            ("nst", "fake_service:nst"),
            ("chat", "local.telegram"),
            ("bot", "bot.py"),
        ):
            os.kill(stack.part(pattern), signal.SIGKILL)
            stack.says(f"{name} was killed by signal 9, and is started again\n")
        user = stack.user(3)
        wait_until(lambda: is_up(stack.api), 30, "the chat does not come back")
        user.send(picture=PHOTO)
        user.hears("style:")
        user.send(picture=STYLE)
        assert is_negative(user.gets_picture("stylised"))
        stack.kill()
        left = set(stack.processes())
        assert left, "it was killed alone"
        stack.start()
        stack.comes_up()
        assert not left & set(stack.processes()), "what the killed one has left is still there"
        assert stack.stop(signal.SIGTERM) == 130
        assert stack.processes() == {}


def is_up(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def test_an_idle_model_sleeps_and_is_woken_by_the_next_request(tmp_path: Path) -> None:
    with running(tmp_path, "--idle-minutes=0.05") as stack:
        stack.says("nst is idle and goes to sleep")
        wait_until(
            lambda: not [c for c in stack.processes().values() if "fake_service:nst" in c],
            20,
            "it is awake",
        )
        user = stack.user(5)
        user.send(picture=PHOTO)
        user.hears("style:")
        user.send(picture=STYLE)
        assert is_negative(user.gets_picture("stylised"))
        assert "nst is woken" in stack.words()


def test_a_token_leads_to_telegrams_own_chat_and_a_refused_one_is_told(tmp_path: Path) -> None:
    telegram = Chat(tmp_path / "telegram", free_port())  # in its place
    try:
        stack = Stack(tmp_path, TELEGRAM_TOKEN="42:of-somebody-else", TELEGRAM_API=telegram.url)
        stack.start()
        assert stack.process.wait(60) == 1
        assert "TELEGRAM_TOKEN is refused: set it to" in stack.words()
        assert stack.processes() == {}
        stack.environment["TELEGRAM_TOKEN"] = TOKEN
        stack.start()
        stack.says("The bot answers in Telegram")
        user = User(SimpleNamespace(api=telegram.url, key=KEY, tend=lambda: None, logs=""), 9)  # type: ignore[arg-type]
        user.send(picture=PHOTO)
        user.hears("style:")
        assert stack.stop() == 130
    finally:
        stack.kill_everything()
        telegram.kill()


def test_the_demo_leaves_its_pictures_and_a_transcript(tmp_path: Path) -> None:
    out, command = (
        tmp_path / "out",
        [sys.executable, "-m", "tests.fakes.stack", "demo", str(tmp_path / "out")],
    )
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in ("nst.jpg", "cyclegan.jpg"):
        assert is_negative((out / name).read_bytes())
        assert f"![{name}]({name})" in (out / "transcript.md").read_text()
    assert Image.open(out / "sheet.jpg").width > 1000
    assert "[Negative]" in (out / "transcript.md").read_text()


@pytest.mark.parametrize("arguments", [["nothing.jpg"], [str(PHOTO), "README.md"]])
def test_the_demo_refuses_what_is_no_picture(tmp_path: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "tests.fakes.stack", "demo", str(tmp_path / "out"), *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "is not a picture that can be read" in done.stderr


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        stack.arguments = (f"--s3-port={port}",)
        stack.start()
        try:
            assert stack.process.wait(30) == 1
        finally:
            stack.kill_everything()
    assert stack.words().endswith(f"Port {port} is taken. Choose another: --s3-port\n")
