"""All of stylebot at once, around models that only invert a picture."""

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

import pytest
import requests
from PIL import Image, ImageChops, ImageOps, ImageStat

from local.demo import PHOTO, STYLE, User, buttons_of, find_button, text_of
from local.seaweedfs import remove_sockets, s3_client
from local.stack import BUCKET, MARK, PAGE_USER
from tests.fakes.chat import KEY, TOKEN, running_chat
from tests.fakes.servers import ROOT, wait_until

SEED = 20261122
KILLS = 3
# What each part's command line has, and no other part's.
PATTERNS = {
    "storage": "-s3.port=",
    "sagemaker": "sagemaker_local",
    "nst": "tests.fakes.model:nst",
    "chat": "local.telegram",
    "bot": "bot.py",
}


class Stack:
    """./local.sh in a process of its own."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.data = folder / "data"
        self.arguments = arguments
        self.environment = environment
        self.said = folder / "said"
        self.api = ""
        self.key = ""

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.fakes.stack", "stack", "--data", str(self.data)]
        environment = clean_environment() | self.environment
        with open(self.said, "wb") as sink:
            self.process = subprocess.Popen(
                [*command, *self.arguments], cwd=ROOT, env=environment, stdout=sink, stderr=sink
            )

    def comes_up(self) -> None:
        wait_until(
            lambda: "The chat: " in self.words() or self.process.poll() is not None,
            120,
            "it does not come up",
        )
        assert self.process.poll() is None, self.words()
        url = re.search(r"The chat: (\S+)", self.words())
        assert url
        self.api, _, self.key = url[1].partition("/#")

    @property
    def address(self) -> str:
        return f"The chat: {self.api}/#{self.key}"

    def words(self) -> str:
        return self.said.read_text()

    def says(self, pattern: str, seconds: float = 120) -> None:
        wait_until(
            lambda: re.search(pattern, self.words()),
            seconds,
            f"it did not say {pattern!r}: {self.words()}",
        )

    def user(self, number: int) -> User:
        return User(self.api, self.key, number)

    def processes(self) -> dict[int, str]:
        """Return what it has started: the command line of each process, by its number."""
        found = {}
        mark = f"{MARK}={self.data}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(folder.name)] = command.decode()
        return found

    def part(self, name: str) -> int | None:
        """Return the number of a part's first process, or None where it does not run."""
        pattern = PATTERNS[name]
        numbers = [number for number, command in self.processes().items() if pattern in command]
        return min(numbers, default=None)

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


def clean_environment() -> dict[str, str]:
    """Return the environment without what the user's own AWS and Telegram have in it."""
    names = [name for name in os.environ if not name.startswith(("AWS_", "TELEGRAM"))]
    return {name: os.environ[name] for name in names}


def is_negative(data: bytes) -> bool:
    """Return whether it is the negative of the photo, which the fake models make."""
    painted = Image.open(io.BytesIO(data)).convert("RGB")
    photo = Image.open(PHOTO).convert("RGB")
    difference = ImageChops.difference(painted, ImageOps.invert(photo).resize(painted.size))
    return max(ImageStat.Stat(difference).mean) < 8


def test_a_conversation_with_both_models_and_no_secret_told(tmp_path: Path) -> None:
    with running(tmp_path) as stack:
        user = stack.user(7)
        user.send_picture(PHOTO)
        question, negative = user.wait_for_button("style:negative")
        assert [button["text"] for button in buttons_of(question)] == ["Negative"]
        user.press(question, negative)
        assert is_negative(user.wait_for_picture("painted"))
        send_photo_and_style(user)
        assert is_negative(user.wait_for_picture("stylised"))

        processes = stack.processes()
        assert len(processes) >= 6
        check_secrets(stack, processes)
        assert listening(processes) == {"0100007F"}, "a port that is open to others"

        second = Stack(tmp_path)
        second.said = tmp_path / "said by the second"
        second.start()
        assert second.process.wait(60) == 0
        assert "runs already" in second.words()
        assert second.words().endswith(f"\n{stack.address}\n")

        address = stack.address
        assert stack.stop() == 130
        assert stack.processes() == {}, "something is left"
        stack.start()
        stack.comes_up()
        assert stack.address == address
        past = stack.user(7)
        pictures = [message for _, message in past.listen(2) if "photo" in message]
        assert len(pictures) >= 5, "the chat's past is gone"
        result = max(
            (message for message in past.messages.values() if find_button(message, "another:")),
            key=lambda message: int(message["message_id"]),
        )
        another = find_button(result, "another:")
        assert another
        past.press(result, another)
        past.wait_for_button("style:")  # the bot knows its old result


def send_photo_and_style(user: User) -> None:
    user.send_picture(PHOTO)
    user.wait_for_button("style:")
    user.send_picture(STYLE)
    user.press(*user.wait_for_button("paint:"))


def test_the_chat_moves_where_its_port_is_taken(tmp_path: Path) -> None:
    with running(tmp_path) as stack:
        port, key = int(stack.api.rpartition(":")[2]), stack.key
        assert (stack.data / "address.json").stat().st_mode & 0o777 == 0o600
        assert (stack.data / "lock").stat().st_mode & 0o777 == 0o600
        assert stack.stop() == 130
        with socket.create_server(("127.0.0.1", port)):
            stack.start()
            stack.comes_up()
            assert stack.key == key
            assert f"Port {port}, where the chat was, is taken by another program" in stack.words()
            assert f"The chat moves to {stack.api}.\n" in stack.words()
            moved = stack.address
            assert stack.stop() == 130
        stack.start()
        stack.comes_up()
        assert stack.address == moved


def check_secrets(stack: Stack, processes: dict[int, str]) -> None:
    """No secret may be on a command line or in a log."""
    names = (b"TELEGRAM_TOKEN", b"CHAT_KEY", b"AWS_SECRET_ACCESS_KEY")
    secrets = {stack.key}
    for number in processes:
        for line in Path(f"/proc/{number}/environ").read_bytes().split(b"\0"):
            name, _, value = line.partition(b"=")
            if name in names:
                secrets.add(value.decode())
    assert len(secrets) == 3

    for secret in secrets:
        for command in processes.values():
            assert secret not in command, "a secret on a command line"
        for log in (stack.data / "logs").iterdir():
            assert secret not in log.read_text(errors="replace"), f"a secret in {log.name}"


def listening(processes: dict[int, str]) -> set[str]:
    """Return the addresses, as /proc shows them, at which these processes wait for connections."""
    return {address.partition(":")[0] for address in listening_sockets(processes)}


def listening_sockets(processes: dict[int, str]) -> set[str]:
    """Return the address and port, in hexadecimal digits, of each TCP socket that listens."""
    sockets = inodes(processes)
    addresses = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            columns = line.split()
            is_listening = columns[3] == "0A"
            if is_listening and columns[9] in sockets:
                addresses.add(columns[1])
    return addresses


def unix_sockets(processes: dict[int, str]) -> set[str]:
    """Return the path of each Unix socket at which these processes wait for connections."""
    sockets = inodes(processes)
    paths = set()
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[6] in sockets and len(columns) > 7:
            paths.add(columns[7])
    return paths


def inodes(processes: dict[int, str]) -> set[str]:
    sockets = set()
    for number in processes:
        for file in Path(f"/proc/{number}/fd").iterdir():
            with suppress(OSError):
                sockets.add(os.readlink(file).removeprefix("socket:[").removesuffix("]"))
    return sockets


VERBS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "COPY", "PROPFIND")
PATHS = (
    "/",
    "/ping",
    "/healthz",
    "/status",
    "/metrics",
    "/endpoints",
    "/invocations",
    "/endpoints/nst/async-invocations",
    "/chat/7/events",
    "/chat/7/message",
    "/bot1:x/getUpdates",
    "/stylebot",
    "/stylebot?list-type=2",
    "/stylebot/stolen",
    "/stylebot/{key}",
    "/buckets/stylebot/",
    "/buckets/stylebot/{key}",
    "/buckets/stylebot/stolen",
    "/.tus/buckets/stylebot/stolen",
    "/dir/assign",
    "/dir/status",
    "/vol/status",
    "/cluster/status",
    "/ui/index.html",
    "/stats/disk",
    "/1,01637037d6",
    "/?Action=AssumeRoleWithWebIdentity",
    "/debug/pprof/",
)
# What answers anybody: whether S3 runs, and the chat's page, which has no secret in it.
PUBLIC = ("/healthz", "/status", "/")
SETTINGS_FRAME = 4


@pytest.mark.filterwarnings("ignore:Unverified HTTPS")
def test_nothing_answers_a_caller_without_a_credential(tmp_path: Path) -> None:
    with running(tmp_path) as stack:
        user = stack.user(7)
        user.send_picture(PHOTO)
        user.wait_for_button("style:")
        objects = list_objects(stack)
        keys = [key for key in objects if key.startswith("chats/") or "7" in key]
        assert keys, objects.keys()
        processes = stack.processes()
        ports = {int(address.partition(":")[2], 16) for address in listening_sockets(processes)}
        assert len(ports) >= 5
        let_in: list[str] = []
        for port in sorted(ports):
            for scheme in ("http", "https"):
                let_in += attack(f"{scheme}://127.0.0.1:{port}", keys[0])
            let_in += [f"{port} speaks gRPC with anybody"] * speaks_http2(port)
        assert not let_in, "\n".join(let_in)
        for path in unix_sockets(processes):
            modes = [place.stat().st_mode for place in (Path(path), Path(path).parent)]
            assert any(mode & 0o077 == 0 for mode in modes), f"{path} is open to other users"
        # The bot may have written meanwhile, but nothing is gone or new by other hands.
        after = list_objects(stack)
        assert objects.keys() <= after.keys()
        assert not [key for key in after if "stolen" in key]


def list_objects(stack: Stack) -> dict[str, str]:
    """Return the ETag of each object in the stack's bucket by its key."""
    environ = Path(f"/proc/{stack.part('bot')}/environ").read_text().split("\0")
    environment = dict(line.partition("=")[::2] for line in environ if line)
    pages = s3_client(environment).get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return {item["Key"]: item["ETag"] for page in pages for item in page.get("Contents", ())}


def attack(url: str, key: str) -> list[str]:
    """Return what was let in, of all that a page of another site or another user may send."""
    let_in: list[str] = []
    for headers in (
        {},
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Origin": "http://evil.example", "Content-Type": "text/plain"},
        {"Host": "evil.example", "Tus-Resumable": "1.0.0", "Upload-Length": "1"},
    ):
        for verb in VERBS:
            for path in PATHS:
                answer = ask(verb, url + path.format(key=key), headers)
                if answer is None:
                    # A port that speaks no HTTP, or no TLS, does so for each path.
                    return let_in
                if is_let_in(answer, verb, path):
                    let_in.append(f"{verb} {url}{path} {headers}: {answer.status_code}")
    return let_in


def ask(verb: str, url: str, headers: dict[str, str]) -> requests.Response | None:
    """Return the answer, or None where there is none."""
    with requests.Session() as session:
        session.trust_env = False
        session.headers.update(headers)
        try:
            return session.request(
                verb, url, data=b"x", timeout=10, verify=False, allow_redirects=False
            )
        except requests.RequestException:
            return None


def is_let_in(answer: requests.Response, verb: str, path: str) -> bool:
    if verb == "OPTIONS":
        # So a browser asks whether a page of another site may go on.
        is_page = "Origin" in answer.request.headers
        return is_page and "Access-Control-Allow-Origin" in answer.headers
    if path.partition("?")[0] in PUBLIC:
        # SeaweedFS lets every page read these answers of its S3, whatever its settings say: a
        # refusal at /, and nothing at the others.
        if "Access-Control-Allow-Origin" in answer.headers and answer.ok:
            return bool(answer.content)
        return b"stylebot/" in answer.content or b"ListAllMyBuckets" in answer.content
    if answer.status_code == 405:
        return False
    # With this header the page could read the answer, also an error about an object.
    return answer.status_code < 400 or "Access-Control-Allow-Origin" in answer.headers


def speaks_http2(port: int) -> bool:
    """Return whether a plain gRPC client, which has no certificate, would get a connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=3) as plain:
        return gets_settings(plain)


def gets_settings(connection: socket.socket) -> bool:
    """Return whether the server answers HTTP/2's greeting with its settings."""
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
    with suppress(OSError):
        frame = connection.recv(9)
        return len(frame) == 9 and frame[3] == SETTINGS_FRAME
    return False


def test_everything_killed_in_the_middle_and_started_again_still_delivers(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    with running(tmp_path, FAKE_STEPS="12") as stack:
        for number in range(1, KILLS + 1):
            user = stack.user(number)
            user.send_picture(PHOTO)
            question, negative = user.wait_for_button("style:negative")
            if number % 2:
                user.press(question, negative)
            else:
                user.send_picture(STYLE)
                user.press(*user.wait_for_button("paint:"))
            # From before the bot has heard of it to the painted picture.
            time.sleep(dice.uniform(0, 2))
            stack.kill_everything()
            stack.start()
            stack.comes_up()
        for number in range(1, KILLS + 1):
            assert is_negative(painting(stack.user(number))), f"the picture of user {number}"
        print(f"{KILLS} kills of everything, {KILLS} pictures")


def painting(user: User) -> bytes:
    """Return what the bot has sent, or will send."""
    for _, message in user.listen(60):
        is_from_bot = message.get("from") == "bot"
        # The question for a painter shows a picture of them, the progress its preview.
        if message["message_id"] in user.questions or find_button(message, "cancel:"):
            continue
        if is_from_bot and "photo" in message:
            return user.download(message["photo"]["file_id"])
    raise AssertionError(f"no picture; the chat shows {list(user.messages.values())}")


def test_each_part_that_dies_is_started_again_and_said_so(tmp_path: Path) -> None:
    with running(tmp_path) as stack:
        for name in PATTERNS:
            number = stack.part(name)
            assert number, f"{name} does not run"
            os.kill(number, signal.SIGKILL)
            stack.says(f"{name} was killed by signal 9, and is started again\n")
        user = stack.user(3)
        wait_until(lambda: is_up(stack.api), 30, "the chat does not come back")
        send_photo_and_style(user)
        assert is_negative(user.wait_for_picture("stylised"))
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
        wait_until(lambda: stack.part("nst") is None, 20, "it is awake")
        user = stack.user(5)
        send_photo_and_style(user)
        assert is_negative(user.wait_for_picture("stylised"))
        assert "nst is woken" in stack.words()


def test_a_token_leads_to_telegrams_own_chat_and_a_refused_one_is_told(tmp_path: Path) -> None:
    with running_chat(tmp_path / "telegram") as telegram:  # in Telegram's place
        stack = Stack(tmp_path, TELEGRAM_TOKEN="42:of-somebody-else", TELEGRAM_API=telegram.url)
        try:
            stack.start()
            assert stack.process.wait(120) == 1
            assert "TELEGRAM_TOKEN is refused: set it to" in stack.words()
            assert stack.processes() == {}
            stack.environment["TELEGRAM_TOKEN"] = TOKEN
            stack.start()
            stack.says("The bot answers in Telegram")
            user = User(telegram.url, KEY, 9)
            user.send_picture(PHOTO)
            user.wait_for_button("style:")
            # The page's number is somebody else's in Telegram, and no admin's.
            stranger = User(telegram.url, KEY, PAGE_USER)
            stranger.session.post(f"{stranger.url}/message", data={"text": "/stats"}, timeout=30)
            said = [text_of(message) for _, message in stranger.listen(10)]
            assert "I do not know this command, see /help." in "".join(said)
            assert stack.stop() == 130
        finally:
            stack.kill_everything()


def run_demo(out: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fakes.stack", "demo", str(out), *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


# With STYLES the question for a painter is a text, and without it a picture of the painters.
@pytest.mark.parametrize(("styles", "label"), [("", "Negative"), ("negative=Mirror", "Mirror")])
def test_the_demo_leaves_its_pictures_and_a_transcript(
    tmp_path: Path, styles: str, label: str
) -> None:
    out = tmp_path / "out"
    done = run_demo(out, STYLES=styles)
    assert done.returncode == 0, done.stderr
    transcript = (out / "transcript.md").read_text()
    for name in ("nst.jpg", "cyclegan.jpg"):
        assert is_negative((out / name).read_bytes())
        assert f"![{name}]({name})" in transcript
    assert Image.open(out / "sheet.jpg").width > 1000
    assert f"**you** press [{label}]" in transcript
    assert "Choose a painter" in transcript


@pytest.mark.parametrize("arguments", [["nothing.jpg"], [str(PHOTO), "README.md"]])
def test_the_demo_refuses_what_is_no_picture(tmp_path: Path, arguments: list[str]) -> None:
    done = run_demo(tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert "is not a picture that can be read" in done.stderr


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        stack.arguments = (f"--s3-port={port}",)
        stack.start()
        try:
            assert stack.process.wait(60) == 1
        finally:
            stack.kill_everything()
    assert stack.words().endswith(f"Port {port} is taken. Choose another: --s3-port\n")
