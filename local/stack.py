"""`./local.sh`: all of stylebot on this machine. Starts its parts, watches them, and stops them.

    storage    SeaweedFS, which is S3; what it keeps is in .local/
    nst, cyclegan    the model servers, as SageMaker would start them
    sagemaker  local/sagemaker.py, which stands between
    chat       local/telegram.py, a chat in the browser, where TELEGRAM_TOKEN is not set
    bot        bot.py

Each part is a process group of its own, known by STYLEBOT_LOCAL in its environment, so that a start finds what
a start that was killed has left behind. All ports are of 127.0.0.1. Secrets travel by the environment alone.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

import requests

from local.processes import StackError, free_port
from local.seaweedfs import remove_sockets, s3_identity, storage_command

ROOT = Path(__file__).parents[1]
DATA = ROOT / ".local"
BUCKET = "stylebot"
MODELS = ("nst", "cyclegan")
START_SECONDS, STALL_SECONDS = (
    480,
    30,
)  # for a model server's first good /ping; for the next after a good one
LOG_BYTES = 10 << 20
MARK = "STYLEBOT_LOCAL"
PYTHON = sys.executable


def say(words: str) -> None:
    print(words, flush=True)


@dataclass
class Part:
    """A process that shall run. `cleanup` is a command that removes what its end may leave, such as a container."""

    name: str
    command: Callable[[], Sequence[str]]  # asked at each start
    environment: dict[str, str]
    log: Path
    cleanup: Sequence[str] = ()
    stop_seconds: float = 12
    wanted: bool = True
    process: subprocess.Popen[bytes] | None = None
    argv: Sequence[str] = ()  # of the process
    deaths: int = 0  # in a row, soon after a start
    exit_code: int | None = None
    after: float = 0.0  # no start before then (monotonic)
    born: float = 0.0
    proven: bool = False  # a model server that was in service since its start
    seen: float = 0.0  # in service, or started

    def start(self) -> None:
        self.clean_up()
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with open(self.log, "ab") as sink:
            self.argv = self.command()
            self.process = subprocess.Popen(
                self.argv,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.born = self.seen = time.monotonic()
        self.proven = False

    def tend(self) -> None:
        """Start it, start it again if it died, or stop it if it is not wanted."""
        if self.process and self.process.poll() is not None:
            self.bury(self.process.returncode)
        elif self.wanted and not self.process and time.monotonic() >= self.after:
            self.start()
        elif self.process and not self.wanted:
            say(f"{self.name} is idle and goes to sleep")
            self.stop()

    def bury(self, code: int) -> None:
        self.kill()
        self.exit_code = code
        self.deaths = self.deaths + 1 if time.monotonic() < self.born + 60 else 1
        pause = 0 if self.deaths == 1 else min(60, 2 ** (self.deaths - 1))
        self.after = time.monotonic() + pause
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        again = (
            f"is started again in {pause} s; its log: {self.log}" if pause else "is started again"
        )
        say(f"{self.name} {how}, and {again}")

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join([line for line in lines if line.strip()][-3:]) or "it said nothing"

    def terminate(self) -> None:
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()

    def stop(self) -> None:
        self.terminate()
        if self.process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(self.stop_seconds)
        self.kill()

    def kill(self) -> None:
        """The process, and whatever it started."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            remove_sockets(self.argv)
            self.process = None
            self.clean_up()

    def clean_up(self) -> None:
        if self.cleanup:
            subprocess.run(
                self.cleanup, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
            )


# ---------------------------------------------------------------- the parts' commands


def base_environment(data: Path) -> dict[str, str]:
    """What every part gets: nothing of the user's own AWS settings, and no proxy for this machine."""
    private = re.compile("AWS_|TELEGRAM_TOKEN|GUNICORN_CMD_ARGS")
    environment = {name: value for name, value in os.environ.items() if not private.match(name)}
    for name in ("NO_PROXY", "no_proxy"):
        environment[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"]))
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    more = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", MARK: str(data)}
    return environment | nowhere | more | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def model_command(name: str) -> list[str]:
    """The container's own command, outside of Docker."""
    return [PYTHON, "-m", f"containers.{name}", "serve"]


def docker_command(name: str, container: str, environment: dict[str, str]) -> list[str]:
    """The image, on this machine's own network, as SageMaker would start it otherwise."""
    command = ["docker", "run", "--rm", "--name", container, "--network", "host"]
    command += ["--gpus", "all"] if has_gpu() else []
    for variable in (
        "GUNICORN_CMD_ARGS",
        "NST_WEIGHTS",
        "OMP_WAIT_POLICY",
        *[key for key in environment if key.startswith("AWS_")],
    ):
        if variable in environment and environment[variable] != os.devnull:
            command += ["--env", variable]  # the value stays out of the command line
    if name == "cyclegan" and "MODEL_DIR" in environment:
        command += ["--volume", f"{Path(environment['MODEL_DIR']).resolve()}:/opt/ml/model:ro"]
    return [*command, f"stylebot-{name}", "serve"]


def has_image(name: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return not subprocess.run(
            ["docker", "image", "inspect", name], capture_output=True, check=False
        ).returncode
    return False


def has_gpu() -> bool:
    return Path("/dev/nvidiactl").exists()


# ---------------------------------------------------------------- all of them


@dataclass
class Options:
    data: Path = DATA
    docker: bool = False
    idle_minutes: float = 0
    ports: dict[str, int] = field(
        default_factory=dict
    )  # of chat, s3 and sagemaker, where they are chosen

    def port(self, name: str) -> int:
        port = self.ports.get(name) or free_port()
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise StackError(f"Port {port} is taken. Choose another: --{name}-port") from None
        return port


class Stack:
    """Raises StackError where something is missing that only its user can mend."""

    def __init__(self, options: Options) -> None:
        self.options, self.data = options, options.data.resolve()
        self.logs = self.data / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.data.chmod(0o700)
        self.lock = self.take_lock()
        kill_leftovers(self.data)
        self.parts: dict[str, Part] = {}
        self.api = self.chat = self.key = (
            ""  # the Bot API; the page of the chat and its key, where it is ours
        )
        self.addresses: dict[str, str] = {}

    def take_lock(self) -> IO[str]:
        lock = open(self.data / "lock", "a+")  # noqa: SIM115 - held until this process ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(
                f"It runs already with the data in {self.data}. Stop that one, or use --data."
            ) from None
        return lock

    def add(
        self,
        name: str,
        command: Sequence[str],
        environment: dict[str, str],
        cleanup: Sequence[str] = (),
    ) -> None:
        self.parts[name] = Part(
            name, lambda: command, environment, self.logs / f"{name}.log", cleanup
        )
        self.parts[name].start()

    def start(self) -> None:
        """All parts, the storage first and the bot, which is told the styles, last."""
        options, base = self.options, base_environment(self.data)
        port, folder, config = options.port("s3"), self.data / "s3", self.data / "s3.json"
        folder.mkdir(exist_ok=True)
        base |= s3_identity(config) | {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}"}
        # A second stack may take the ports that the storage uses among its own servers: each start takes new ones.
        # It would take 15 s to end; it must bear to be killed anyway.
        command = partial(storage_command, folder, config, port)
        self.parts["storage"] = Part(
            "storage", command, base, self.logs / "storage.log", stop_seconds=1
        )
        self.parts["storage"].start()
        self.wait(f"http://127.0.0.1:{port}/healthz")
        for name in MODELS:
            self.add_model(name, base)
        self.add_sagemaker(base)
        self.add_telegram(base)
        for name in MODELS:
            self.wait(f"{self.addresses[name]}/ping")
        self.add("bot", [PYTHON, str(ROOT / "bot.py")], self.bot_environment(base))

    def add_model(self, name: str, base: dict[str, str]) -> None:
        address = f"127.0.0.1:{free_port()}"
        environment = base | {"GUNICORN_CMD_ARGS": f"--bind {address}"}
        if (
            not has_gpu()
        ):  # threads that spin while they wait make two models on the same cores twice as slow
            environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        self.addresses[name] = f"http://{address}"
        if not self.options.docker:
            return self.add(name, model_command(name), environment)
        if not has_image(f"stylebot-{name}"):
            raise StackError(
                f"Docker does not run, or has no image stylebot-{name}. Build it: ./build.sh"
            )
        container = (
            f"stylebot-local-{name}-{hashlib.sha256(str(self.data).encode()).hexdigest()[:8]}"
        )
        command = docker_command(name, container, environment)
        return self.add(name, command, environment, ["docker", "rm", "--force", container])

    def add_sagemaker(self, base: dict[str, str]) -> None:
        port = self.options.port("sagemaker")
        self.addresses["sagemaker"] = f"http://127.0.0.1:{port}"
        command = [
            PYTHON,
            "-m",
            "local.sagemaker",
            f"--port={port}",
            f"--output=s3://{BUCKET}/async/output",
        ]
        command += [f"--idle-minutes={self.options.idle_minutes}"]
        command += [f"--endpoint={name}={self.addresses[name]}" for name in MODELS]
        self.add("sagemaker", command, base)

    def add_telegram(self, base: dict[str, str]) -> None:
        """The chat in the browser, unless there is a token for Telegram's own."""
        self.token = os.environ.get("TELEGRAM_TOKEN", "")
        if self.token:
            return
        port, self.token, self.key = (
            self.options.port("chat"),
            f"1:{secrets.token_urlsafe(24)}",
            secrets.token_hex(16),
        )
        self.api = f"http://127.0.0.1:{port}"
        self.chat = f"{self.api}/#{self.key}"
        command = [
            PYTHON,
            "-m",
            "local.telegram",
            "--port",
            str(port),
            "--data",
            str(self.data / "chat"),
        ]
        self.add("chat", command, base | {"TELEGRAM_TOKEN": self.token, "CHAT_KEY": self.key})
        self.wait(f"{self.api}/")

    def bot_environment(self, base: dict[str, str]) -> dict[str, str]:
        names = {
            "TELEGRAM_TOKEN": self.token,
            "BUCKET": BUCKET,
            "NST_ENDPOINT": "nst",
            "CYCLEGAN_ENDPOINT": "cyclegan",
        }
        if self.api:
            names["TELEGRAM_API"] = self.api
        if not os.environ.get("STYLES"):
            names["STYLES"] = self.styles()
        return base | names | {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": self.addresses["sagemaker"]}

    def styles(self) -> str:
        """What the painters' server lists: the bot offers just that."""
        words = fetch(f"{self.addresses['cyclegan']}/").text
        found = re.search(r"^Styles: (\S.*)$", words, re.MULTILINE)
        return found[1].replace(", ", ",") if found else ""

    def wait(self, url: str) -> None:
        """Until `url` answers 200. Raises StackError when a part keeps dying, or says that it is broken for good."""
        deadline, reason = time.monotonic() + START_SECONDS, "no answer"
        while time.monotonic() < deadline:
            self.tend(until_ready=True)
            with contextlib.suppress(requests.RequestException):
                answer = fetch(url)
                if answer.ok:
                    return
                reason = answer.text.strip()
                if '"broken"' in reason:
                    break
            time.sleep(0.1)
        raise StackError(f"{url} does not come up: {reason}. Logs: {self.logs}")

    def tend(self, until_ready: bool = False) -> None:
        """To be called about once a second. Raises StackError for a part that only its user can mend."""
        if not until_ready:
            self.follow_endpoints()
        for part in self.parts.values():
            part.tend()
            is_refused = part.name == "bot" and part.exit_code == 2
            if is_refused or (until_ready and part.deaths >= 3):
                raise StackError(
                    f"{part.name} does not run. Its last words:\n{part.last_words()}\nIts log: {part.log}"
                )

    def follow_endpoints(self) -> None:
        """Give each endpoint the server that SageMaker wants it to have: none, the same, or a new one."""
        try:
            told = fetch(f"{self.addresses['sagemaker']}/endpoints").json()
        except (requests.RequestException, ValueError):
            told = None
        for name in MODELS:
            if not told:
                self.parts[name].seen = time.monotonic()  # nobody looked
                continue
            part, state, now = self.parts[name], told[name], time.monotonic()
            if state["DesiredInstanceCount"] and not part.wanted:
                say(f"{name} is woken")
            part.wanted = bool(state["DesiredInstanceCount"])
            if state["EndpointStatus"] == "InService":
                part.proven, part.seen = True, now
            elif part.process and now > part.seen + (
                STALL_SECONDS if part.proven else START_SECONDS
            ):
                say(f"{name} has not answered /ping for a while, and is killed")
                part.kill()

    def stop(self) -> None:
        """The bot first, so that it ends its steps; the storage last. A second Ctrl-C stops them at once."""
        try:
            for names in (("bot",), ("sagemaker",), ("chat", *MODELS), ("storage",)):
                parts = [part for name in names if (part := self.parts.get(name))]
                for act in (Part.terminate, Part.stop):
                    for part in parts:
                        act(part)
        finally:
            for part in self.parts.values():
                part.kill()
            self.lock.close()


def fetch(url: str) -> requests.Response:
    with requests.Session() as web:
        web.trust_env = False  # no proxy
        return web.get(url, timeout=2)


def kill_leftovers(data: Path) -> None:
    """Whatever an earlier start with the same data has left, itself killed."""
    mark = f"{MARK}={data}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(process.name) != os.getpid() and mark in (
                process / "environ"
            ).read_bytes().split(b"\0"):
                command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                os.kill(int(process.name), signal.SIGKILL)
                remove_sockets(command)


def interrupts() -> None:
    """SIGTERM and a closed terminal end it like Ctrl-C, which a shell may have had it ignore: all parts are stopped."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./local.sh", add_help=False
    )  # local.sh itself explains the options
    parser.add_argument("--docker", action="store_true")
    parser.add_argument("--idle-minutes", type=float, default=0)
    parser.add_argument("--data", type=Path, default=DATA)
    for name in ("chat", "s3", "sagemaker"):
        parser.add_argument(f"--{name}-port", type=int, default=0)
    given = parser.parse_args()
    ports = {name: getattr(given, f"{name}_port") for name in ("chat", "s3", "sagemaker")}
    return run(Options(given.data, given.docker, given.idle_minutes, ports), watch)


def watch(stack: Stack) -> None:
    say(f"The chat: {stack.chat}" if stack.chat else "The bot answers in Telegram.")
    say(f"Ctrl-C stops everything. Data: {stack.data}, logs: {stack.logs}")
    while True:
        stack.tend()
        time.sleep(0.5)


def run(options: Options, use: Callable[[Stack], None]) -> int:
    """Start everything, use it, and stop it, however that ends. Gives the exit code."""
    interrupts()
    stack = None
    try:
        stack = Stack(options)
        say("Starting: storage, two model servers, SageMaker's runtime, the chat ...")
        stack.start()
        use(stack)
    except (StackError, requests.RequestException) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("Stopping ...")
        return 130
    finally:
        if stack:
            with contextlib.suppress(KeyboardInterrupt):
                stack.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
