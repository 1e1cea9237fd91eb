"""`./local.sh`: all of stylebot on this machine. It starts the parts, watches them, and stops them.

    storage          SeaweedFS, which is S3; its data is in .local/
    nst, cyclegan    the model servers, as SageMaker would start them
    sagemaker        packages/sagemaker-local-async: SageMaker in front of them, and training jobs
    chat             local/telegram, a chat in the browser, where TELEGRAM_TOKEN is not set
    bot              bot.py

Each part is a process group of its own. All parts have the variable STYLEBOT_LOCAL in their
environment, by which the next start finds and kills what a killed start has left behind. All ports
are ports of 127.0.0.1, and nothing answers there without a credential: S3 and SageMaker want a
signature, the chat a key or the bot's token. The model servers listen at Unix sockets. Secrets are
in the environment of the parts that need them, and on no command line.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import requests
from botocore.exceptions import BotoCoreError, ClientError

from bot import FAILURE_PREFIX, MODELS, MODELS_PREFIX, OUTPUT_PREFIX
from local.address import Address, make_key, read_address, write_address
from local.files import socket_path
from local.model_servers import (
    START_SECONDS,
    TRAINER_COMMAND,
    ModelServer,
    docker_command,
    has_image,
    model_command,
    model_environment,
    remove_container,
)
from local.painters import Painters, sagemaker_client, write_training_template
from local.processes import (
    PYTHON_PATH,
    ROOT,
    ManagedProcess,
    StackError,
    free_port,
    kill_leftovers,
    reserve_port,
    say,
)
from local.seaweedfs import (
    credentials_file,
    remove_sockets,
    s3_client,
    s3_environment,
    storage_process,
)
from local.telegram.store import BUTTON_PICTURES
from local.thumbnails import Thumbnails

DATA = ROOT / ".local"
BUCKET = "stylebot"
# Who has the chat's key owns this machine, and may train painters. page/server.js has it too.
PAGE_USER = 100
MARK = "STYLEBOT_LOCAL"
PYTHON = sys.executable
# bot.py ends with this exit code where its settings are wrong: another start would not help.
BOT_SETTINGS_ARE_WRONG = 2
WATCH_SECONDS = 0.5
# With less room on the disk the storage could keep nothing.
LEAST_BYTES = 64 * 2**20
# The bot's first start waits so long for the catalog of the painters.
CATALOG_SECONDS = 120


def base_environment(data: Path) -> dict[str, str]:
    """Return the environment of every part.

    It has none of the user's own settings of AWS and SeaweedFS, and no proxy for this machine.
    """
    private = re.compile("AWS_|TELEGRAM_TOKEN|GUNICORN_CMD_ARGS|WEED_")
    environment = {name: value for name, value in os.environ.items() if not private.match(name)}
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [os.environ.get(name, ""), "127.0.0.1", "localhost"]
        environment[name] = ",".join(host for host in hosts if host)
    environment.update(
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AWS_DEFAULT_REGION="us-east-1",
        AWS_EC2_METADATA_DISABLED="true",
        PYTHONPATH=PYTHON_PATH,
        PYTHONUNBUFFERED="1",
    )
    environment[MARK] = str(data)
    return environment


@dataclass
class Options:
    data: Path = DATA
    docker: bool = False
    idle_minutes: float = 0
    # The ports of chat, s3 and sagemaker that the user has chosen; 0 or none: a free one.
    ports: dict[str, int] = field(default_factory=dict)
    # Returns the command line of a model server, for use without Docker.
    model_command: Callable[[str], list[str]] = model_command
    # The command line of a training job, for use without Docker.
    trainer: Sequence[str] = TRAINER_COMMAND

    def port(self, name: str) -> int:
        """Return the port for `name`. Raises StackError where the chosen one is taken."""
        port = self.ports.get(name) or free_port()
        if not 0 < port < 2**16:
            raise StackError(f"{port} is no port. Choose one from 1 to 65535: --{name}-port")
        if not can_listen(port):
            raise StackError(f"Port {port} is taken. Choose another: --{name}-port")
        return port


def can_listen(port: int) -> bool:
    """Return whether a server can listen at the port, also right after another one has ended."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class AlreadyRunningError(Exception):
    """Another process runs the stack with the same data. The message says where its chat is."""


class Stack:
    """All parts. Its methods raise StackError for what only the user can put right."""

    def __init__(self, options: Options) -> None:
        """Raises AlreadyRunningError."""
        self.options = options
        self.data = options.data.resolve()
        self.logs = self.data / "logs"
        try:
            make_data_folder(self.data)
            self.logs.mkdir(exist_ok=True)
            self.lock = self.take_lock()
        except OSError as error:
            raise disk_problem(error, self.data) from None
        kill_leftovers(f"{MARK}={self.data}", remove_sockets)

        # All parts by their names, in the order of their start; and those that are model servers.
        self.parts: dict[str, ManagedProcess] = {}
        self.models: dict[str, ModelServer] = {}
        # The URL of each model server, by its name.
        self.model_urls: dict[str, str] = {}
        self.sagemaker_url = ""
        # A client of boto3, which has no types.
        self.sagemaker: Any = None
        self.painters: Painters | None = None
        self.thumbnails: Thumbnails | None = None
        self.token = os.environ.get("TELEGRAM_TOKEN", "")
        # Of the Bot API server and its page. None for Telegram's own.
        self.address: Address | None = None

    def take_lock(self) -> IO[str]:
        """Return the lock file. The lock is held until it is closed, or this process ends."""
        path = self.data / "lock"
        path.touch()
        path.chmod(0o600)  # it has the key of the chat in it
        lock = open(path, "r+")  # noqa: SIM115 - it stays open
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            where = lock.read() or "It is still starting, and will show the address of the chat."
            message = f"It runs already with the data in {self.data}.\n{where}"
            raise AlreadyRunningError(message) from None
        lock.truncate(0)
        return lock

    def announce(self, where: str) -> None:
        """Say where the chat is, also to whoever starts the stack a second time."""
        say(where)
        self.lock.write(where)
        self.lock.flush()

    def start(self) -> None:
        """Start all parts: the storage first, and the bot, which reads the catalog, last."""
        environment = base_environment(self.data)
        if not self.token:
            self.address = self.choose_address()
        port = self.options.port("s3")
        environment |= s3_environment(credentials_file(self.data), port)

        self.start_storage(environment, port)
        for name in MODELS:
            self.start_model(name, environment)
        self.start_sagemaker(environment)
        if self.address:
            self.start_chat(environment, self.address)
        for name in MODELS:
            self.wait_until_in_service(name)
        self.start_painters(environment)
        self.start_bot(environment)

    def start_part(self, part: ManagedProcess) -> None:
        self.parts[part.name] = part
        part.start()

    def start_python(
        self, name: str, arguments: Sequence[str], environment: dict[str, str]
    ) -> None:
        command = [PYTHON, *arguments]
        self.start_part(
            ManagedProcess(name, lambda: command, environment, self.log_path(name), ROOT)
        )

    def log_path(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def start_storage(self, environment: dict[str, str], port: int) -> None:
        log = self.log_path("storage")
        self.start_part(storage_process(self.data, port, environment, log, ROOT))
        self.wait_until_up(f"http://127.0.0.1:{port}", "/healthz")
        self.wait_until_storage_works(environment)

    def start_model(self, name: str, base: dict[str, str]) -> None:
        path = socket_path(self.data / "sockets", f"{name}.sock")
        environment = model_environment(base, path)
        if name == "cyclegan":
            environment["MODELS_URL"] = f"s3://{BUCKET}/{MODELS_PREFIX}"
        command = self.options.model_command(name)
        if self.options.docker:
            command = self.docker_command(name, environment)
        server = ModelServer(name, lambda: command, environment, self.log_path(name), ROOT)
        if self.options.docker:
            server.clean_up = remove_container
        self.models[name] = server
        self.model_urls[name] = f"unix:{path}"
        self.start_part(server)

    def docker_command(self, name: str, environment: dict[str, str]) -> list[str]:
        image = f"stylebot-{name}"
        if not has_image(image):
            raise StackError(f"Docker does not run, or has no image {image}. Build it: ./build.sh")
        digest = hashlib.sha256(str(self.data).encode()).hexdigest()[:8]
        container = f"stylebot-local-{name}-{digest}"
        return docker_command(name, container, environment, self.data / "sockets")

    def start_sagemaker(self, environment: dict[str, str]) -> None:
        port = self.options.port("sagemaker")
        self.sagemaker_url = f"http://127.0.0.1:{port}"
        arguments = [
            "-m",
            "sagemaker_local",
            f"--port={port}",
            "--signed",
            f"--output=s3://{BUCKET}/{OUTPUT_PREFIX}",
            f"--failure=s3://{BUCKET}/{FAILURE_PREFIX}",
            f"--idle-minutes={self.options.idle_minutes}",
            f"--training={self.data / 'training'}",
        ]
        if not self.options.docker:
            arguments.append(f"--trainer={shlex.join(self.options.trainer)}")
        for name, url in self.model_urls.items():
            arguments.append(f"--endpoint={name}={url}")
        self.start_python("sagemaker", arguments, environment)
        self.sagemaker = sagemaker_client("sagemaker", environment, self.sagemaker_url)

    def choose_address(self) -> Address:
        """Return the address of the chat: that of the last start, where its port is free."""
        path = self.data / "address.json"
        kept = read_address(path)
        is_port_chosen = bool(self.options.ports.get("chat"))
        if kept and not is_port_chosen and can_listen(kept.port):
            reserve_port(kept.port)
            return kept

        key = kept.key if kept else make_key()
        address = Address(self.options.port("chat"), key)
        if kept and not is_port_chosen:
            say(
                f"Port {kept.port}, where the chat was, is taken by another program. "
                f"The chat moves to {address.url}."
            )
        write_address(path, address)
        return address

    def start_chat(self, environment: dict[str, str], address: Address) -> None:
        """Start the chat in the browser, with a token made for this start."""
        self.token = f"1:{secrets.token_urlsafe(24)}"
        folder = self.data / "chat"
        arguments = ["-m", "local.telegram", f"--port={address.port}", f"--data={folder}"]
        keys = {"TELEGRAM_TOKEN": self.token, "CHAT_KEY": address.key}
        self.start_python("chat", arguments, environment | keys)
        self.wait_until_up(address.url, "/")
        self.thumbnails = Thumbnails(folder / BUTTON_PICTURES, BUCKET, environment)
        self.thumbnails.start()

    def start_bot(self, base: dict[str, str]) -> None:
        environment = base | {
            "TELEGRAM_TOKEN": self.token,
            "BUCKET": BUCKET,
            "NST_ENDPOINT": "nst",
            "CYCLEGAN_ENDPOINT": "cyclegan",
            "AWS_ENDPOINT_URL_SAGEMAKER": self.sagemaker_url,
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": self.sagemaker_url,
        }
        if self.address:
            environment["TELEGRAM_API"] = self.address.url
            # In Telegram this number is somebody else's.
            environment.setdefault("ADMINS", str(PAGE_USER))
        self.start_python("bot", [str(ROOT / "bot.py")], environment)

    def start_painters(self, environment: dict[str, str]) -> None:
        """Start what keeps the catalog of the painters, and wait for it where there is none yet."""
        folder = models_folder(self.data)
        folder.mkdir(exist_ok=True)
        write_training_template(s3_client(environment), BUCKET)
        self.painters = Painters(folder, BUCKET, environment, self.sagemaker_url)
        has_catalog = self.painters.has_catalog()
        self.painters.start()
        if not has_catalog:
            # Without a catalog the bot offers the authors' painters, which may not be there.
            self.wait_until(self.catalog_problem, CATALOG_SECONDS)

    def catalog_problem(self) -> str:
        assert self.painters
        if self.painters.has_answer.is_set():
            return ""
        return "no answer"

    def wait_until_storage_works(self, environment: dict[str, str]) -> None:
        """Wait until S3 answers a request; on a busy disk that is a minute after its port opens.

        Raises StackError where it keeps dying, or does not answer in time.
        """
        s3 = s3_client(environment)

        def find_problem() -> str:
            try:
                s3.list_buckets()
            except (BotoCoreError, ClientError) as error:
                return str(error)
            return ""

        if problem := self.wait_until(find_problem):
            raise StackError(f"The storage does not answer: {problem}. Logs: {self.logs}")

    def wait_until_up(self, server: str, path: str) -> None:
        """Wait until the server, http://HOST:PORT, answers 200 at `path`.

        Raises StackError where a part keeps dying.
        """
        if problem := self.wait_until(lambda: url_problem(server, path)):
            raise self.not_up(server, problem)

    def wait_until_in_service(self, name: str) -> None:
        """Wait until the model server is healthy, as its endpoint tells.

        Raises StackError where a part keeps dying, or where the server says that it is broken for
        good.
        """

        def find_problem() -> str:
            problem = self.endpoint_problem(name)
            if '"broken"' in problem:
                raise self.not_up(name, problem)
            return problem

        if problem := self.wait_until(find_problem):
            raise self.not_up(name, problem)

    def endpoint_problem(self, name: str) -> str:
        """Return "" where the endpoint has a healthy model server, and else why it has none."""
        try:
            variant = self.describe_variant(name)
        except (BotoCoreError, ClientError) as error:
            return str(error)
        if variant["CurrentInstanceCount"] > 0:
            return ""
        message: str = variant["VariantStatus"][0]["StatusMessage"]
        return message

    def describe_variant(self, name: str) -> dict[str, Any]:
        """Return what DescribeEndpoint says of the endpoint's variant. Raises boto3's errors."""
        answer = self.sagemaker.describe_endpoint(EndpointName=name)
        variant: dict[str, Any] = answer["ProductionVariants"][0]
        return variant

    def not_up(self, server: str, problem: str) -> StackError:
        return StackError(f"{server} does not come up: {problem}. Logs: {self.logs}")

    def wait_until(self, find_problem: Callable[[], str], seconds: float = START_SECONDS) -> str:
        """Watch all parts until `find_problem` returns "". Return the last problem after `seconds`.

        Raises StackError where a part keeps dying.
        """
        deadline = time.monotonic() + seconds
        while True:
            self.watch_parts()
            self.check_start()
            problem = find_problem()
            if not problem or time.monotonic() > deadline:
                return problem
            time.sleep(0.1)

    def watch(self) -> None:
        """Restart what has died, and follow what SageMaker wants. Call this about once a second."""
        self.follow_endpoints()
        self.watch_parts()

    def watch_parts(self) -> None:
        for part in self.parts.values():
            part.watch()
            if part.name == "bot" and part.exit_code == BOT_SETTINGS_ARE_WRONG:
                raise does_not_run(part)

    def check_start(self) -> None:
        """While the stack starts, a part that has died three times will not run later either."""
        for part in self.parts.values():
            if part.deaths >= 3:
                raise does_not_run(part)

    def follow_endpoints(self) -> None:
        """Tell each model server what SageMaker says of its endpoint."""
        for name, server in self.models.items():
            try:
                variant = self.describe_variant(name)
            except (BotoCoreError, ClientError):
                server.skip_health()
                continue
            server.set_wanted(variant["DesiredInstanceCount"] > 0)
            server.update_health(variant["CurrentInstanceCount"] > 0)

    def stop(self) -> None:
        """Stop the bot first, and the storage last. If interrupted, kill all at once."""
        if self.painters:
            self.painters.stop()
        if self.thumbnails:
            self.thumbnails.stop()
        try:
            for names in (["bot"], ["sagemaker"], ["chat", *MODELS], ["storage"]):
                parts = [self.parts[name] for name in names if name in self.parts]
                for part in parts:
                    part.terminate()
                for part in parts:
                    part.stop()
        finally:
            for part in self.parts.values():
                part.kill()
            self.lock.close()


def does_not_run(part: ManagedProcess) -> StackError:
    message = f"{part.name} does not run. The end of its log:\n{part.log_tail()}\n"
    return StackError(f"{message}Its log: {part.log}")


def make_data_folder(data: Path) -> None:
    """Make the folder of all data, for this user only. Raises OSError and StackError."""
    is_new = not data.exists()
    data.mkdir(parents=True, exist_ok=True)
    # A folder with other things in it is somebody's: what is made in it is private by itself.
    if is_new or (data / "lock").exists() or not any(data.iterdir()):
        data.chmod(0o700)
    free = shutil.disk_usage(data).free
    if free < LEAST_BYTES:
        raise StackError(
            f"The disk of {data} has only {free // 2**20} MB left. Make room, or choose another "
            "folder: --data DIR"
        )


def disk_problem(error: OSError, data: Path) -> StackError:
    """Return what to say of a file that cannot be read or written."""
    place = error.filename or data
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StackError(f"The disk of {place} is full. Make room, or choose another: --data DIR")
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return StackError(f"{place} is no folder. Choose another: --data DIR")
    return StackError(
        f"{place} cannot be used: {error.strerror}. Choose a folder that you may write to: "
        "--data DIR"
    )


def models_folder(data: Path) -> Path:
    """Return the folder of the painters that were trained on this machine."""
    return data / "models"


def url_problem(server: str, path: str) -> str:
    """Return "" where the server answers 200, and what it says where it does not."""
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy, no .netrc
            answer = session.get(server + path, timeout=2)
    except requests.RequestException:
        return "no answer"
    if answer.ok:
        return ""
    return answer.text.strip() or f"status {answer.status_code}"


def run(options: Options, use: Callable[[Stack], None]) -> int:
    """Start the stack, call `use`, and stop the stack, however that ended. Return the exit code."""
    handle_signals()
    # What is written is for this user only.
    os.umask(0o077)
    stack = None
    try:
        stack = Stack(options)
        say("Starting: storage, two model servers, SageMaker's runtime, the chat ...")
        stack.start()
        use(stack)
    except AlreadyRunningError as running:
        say(str(running))
    except (StackError, requests.RequestException) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(disk_problem(error, options.data), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("Stopping ...")
        return 130
    finally:
        if stack:
            with contextlib.suppress(KeyboardInterrupt):
                stack.stop()
    return 0


def handle_signals() -> None:
    """Let SIGTERM and a closed terminal stop all parts, as Ctrl-C does.

    A shell may have made this process ignore Ctrl-C: that is undone.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def run_until_stopped(stack: Stack) -> None:
    if stack.address:
        stack.announce(f"The chat: {stack.address.page}")
    else:
        stack.announce("The bot answers in Telegram.")
    say(f"Ctrl-C stops everything. Data: {stack.data}, logs: {stack.logs}")
    say("A painter of your own, in another terminal: ./local.sh train PICTURE --name NAME")
    while True:
        stack.watch()
        time.sleep(WATCH_SECONDS)


def main(
    command: Callable[[str], list[str]] = model_command,
    trainer: Sequence[str] = TRAINER_COMMAND,
) -> int:
    """Parse the command line, and run the stack. `command` and `trainer` are for tests."""
    # local.sh itself explains the options.
    parser = argparse.ArgumentParser(prog="./local.sh", add_help=False)
    parser.add_argument("--docker", action="store_true")
    parser.add_argument("--idle-minutes", type=float, default=0)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--chat-port", type=int, default=0)
    parser.add_argument("--s3-port", type=int, default=0)
    parser.add_argument("--sagemaker-port", type=int, default=0)
    arguments = parser.parse_args()

    ports = {
        "chat": arguments.chat_port,
        "s3": arguments.s3_port,
        "sagemaker": arguments.sagemaker_port,
    }
    options = Options(
        arguments.data, arguments.docker, arguments.idle_minutes, ports, command, trainer
    )
    return run(options, run_until_stopped)


if __name__ == "__main__":
    sys.exit(main())
