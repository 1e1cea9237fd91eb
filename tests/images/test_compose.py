"""compose.yaml as a user runs it, with the images of build.sh and the compose that Debian has."""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import requests
from PIL import Image

from aws.bot_service import STOP_SECONDS
from bot import MESSAGES_AT_ONCE
from local import compose
from local.demo import PHOTO, User, text_of
from local.processes import free_port
from local.stack import BUCKET, PAGE_USER
from tests.fakes.names import ROOT, eventually

TEXT = (ROOT / "compose.yaml").read_text()
TAG = "test-compose"
START_SECONDS = 600
# So many messages of one user the bot answers one by one, however late it comes.
MESSAGES = MESSAGES_AT_ONCE - 1


class Project:
    """The containers and volumes of one `docker-compose up`."""

    def __init__(self, tag: str) -> None:
        self.name = f"stylebot{secrets.token_hex(4)}"
        self.port = free_port()
        self.environment = os.environ | {"STYLEBOT_TAG": tag, "CHAT_PORT": str(self.port)}
        self.environment.pop("TELEGRAM_TOKEN", None)

    def compose(self, *arguments: str) -> str:
        command = [*compose_command(), "--project-name", self.name, *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"
        return done.stdout

    def up(self) -> None:
        self.compose("up", "--detach")

    def address(self) -> str:
        """Return the address of the page, once everything is up."""
        found: list[str] = []

        def look() -> bool:
            found.extend(re.findall(r"The chat: (\S+)", self.compose("logs", "painters")))
            return bool(found)

        eventually(look, "the chat is up", START_SECONDS)
        return found[-1]

    def chat_answers(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/", timeout=5).ok
        except requests.RequestException:
            return False

    def user(self) -> User:
        api, _, key = self.address().partition("/#")
        return User(api, key, PAGE_USER)

    def container(self, part: str) -> str:
        """Return the id of the running container."""
        return self.compose("ps", "--quiet", part).strip()

    def inspect(self, part: str, what: str) -> str:
        return inspect(self.container(part), what)

    def kill(self, part: str) -> None:
        os.kill(int(self.inspect(part, "{{.State.Pid}}")), signal.SIGKILL)

    def update(self, part: str, stop_seconds: int) -> int:
        """Replace the container as ECS does, and return the exit code of the old one.

        SIGTERM, and SIGKILL if it has not ended in `stop_seconds`; only then a new container.
        """
        container = self.container(part)
        stop = ["docker", "stop", "--time", str(stop_seconds), container]
        subprocess.run(stop, capture_output=True, check=True)
        code = int(inspect(container, "{{.State.ExitCode}}"))
        self.compose("up", "--detach", "--no-deps", "--force-recreate", part)
        return code


def inspect(container: str, what: str) -> str:
    """Return what Docker tells of a container, by a template of Go."""
    command = ["docker", "inspect", "--format", what, container]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def compose_command() -> list[str]:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    why = "Docker Compose is missing: apt-get install docker-compose"
    if not os.environ.get("CI"):
        pytest.skip(why)
    pytest.fail(why)


@pytest.fixture(scope="module")
def tag() -> Iterator[str]:
    """Build the images, or take those that STYLEBOT_TAG names."""
    compose_command()
    if there := os.environ.get("STYLEBOT_TAG"):
        yield there
        return
    command = ["./build.sh", "--tag", TAG, "--local"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, f"build.sh failed:\n{(built.stdout + built.stderr)[-5000:]}"
    yield TAG
    names = [f"stylebot-{name}:{TAG}" for name in ("local", "nst", "cyclegan", "bot")]
    subprocess.run(["docker", "rmi", *names], capture_output=True, check=True)


@pytest.fixture(scope="module")
def project(tag: str) -> Iterator[Project]:
    project = Project(tag)
    try:
        project.up()
        yield project
    finally:
        project.compose("down", "--volumes")


def paint(user: User) -> Image.Image:
    user.send_picture(PHOTO)
    user.press(*user.wait_for_button("style:"))
    return Image.open(io.BytesIO(user.wait_for_picture("painting")))


def test_everything_starts_paints_and_survives_kills_and_a_new_start(project: Project) -> None:
    user = project.user()
    assert paint(user).size > (100, 100)

    for part in ("storage", "cyclegan", "bot", "chat", "sagemaker"):
        project.kill(part)
    eventually(project.chat_answers, "the chat is started again", 120)
    assert paint(user).size > (100, 100)

    address = project.address()
    project.compose("down")
    project.up()
    assert project.address() == address
    user = project.user()
    texts = [text_of(message) for _, message in user.listen(5)]
    assert sum("Painted" in text for text in texts) == 2, texts
    assert paint(user).size > (100, 100)


def ask_for_help(users: list[User]) -> None:
    """Let each of the users write MESSAGES times, in turn, for ten seconds in all."""
    for _ in range(MESSAGES):
        for user in users:
            form = {"text": "/help"}
            answer = user.session.post(f"{user.url}/message", data=form, timeout=30)
            answer.raise_for_status()
            time.sleep(0.5)


def count_answers(user: User) -> int:
    """Return how often the user was told how to use the bot, after a second."""
    list(user.listen(1))
    messages = [message for message in user.messages.values() if message["from"] == "bot"]
    return sum(text_of(message).startswith("Send me a photo") for message in messages)


def test_an_update_of_the_bot_as_ecs_makes_it_loses_no_message(project: Project) -> None:
    painter = project.user()
    paintings = sum("Painted" in text_of(message) for _, message in painter.listen(5))
    api, _, key = project.address().partition("/#")
    others = [User(api, key, PAGE_USER + number) for number in range(1, 11)]
    painter.send_picture(PHOTO)
    question = painter.wait_for_button("style:")

    with ThreadPoolExecutor() as pool:
        writing = pool.submit(ask_for_help, others)
        painter.press(*question)
        assert project.update("bot", STOP_SECONDS) == 0, "it did not end by itself"
        writing.result()

    assert Image.open(io.BytesIO(painter.wait_for_picture("painting"))).size > (100, 100)
    for user in others:
        # An answer of the moment of the update may come twice.
        answered = partial(lambda user: count_answers(user) >= MESSAGES, user)
        eventually(answered, "each message is answered", 60)
    list(painter.listen(1))
    texts = [text_of(message) for message in painter.messages.values()]
    assert sum("Painted" in text for text in texts) == paintings + 1, texts


def test_only_the_page_is_open_and_only_here(project: Project) -> None:
    project.address()
    published = project.inspect("network", "{{json .HostConfig.PortBindings}}")
    assert published.count("HostPort") == 1
    assert f'"HostIp":"127.0.0.1","HostPort":"{project.port}"' in published
    inside = project.inspect("network", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
    for port in (compose.S3_PORT, compose.SAGEMAKER_PORT, *compose.MODEL_PORTS.values()):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((inside, port), timeout=5)
    key = project.address().partition("#")[2]
    for part in ("storage", "chat", "bot", "nst"):
        told = project.inspect(part, "{{json .Config}} {{json .Args}}")
        assert key not in told


def test_the_file_and_the_code_name_the_same_places() -> None:
    assert f"AWS_ENDPOINT_URL_S3: http://127.0.0.1:{compose.S3_PORT}\n" in TEXT
    assert f"AWS_ENDPOINT_URL_SAGEMAKER: {compose.SAGEMAKER_URL}\n" in TEXT
    assert f"MODELS_URL: s3://{BUCKET}/models/\n" in TEXT
    assert f"BUCKET: {BUCKET}\n" in TEXT
    assert f"ADMINS={PAGE_USER}\n" in TEXT
    assert f"test, -e, {compose.READY}]" in TEXT
    for name, port in compose.MODEL_PORTS.items():
        assert f"{name.upper()}_ENDPOINT: {name}\n" in TEXT
        assert f"--bind 127.0.0.1:{port}\n" in TEXT
