"""Processes: start them, watch them, restart them when they die, and stop them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Where Python finds this project, and the package that stands in for SageMaker.
PYTHON_PATH = f"{ROOT}{os.pathsep}{ROOT / 'packages/sagemaker-local-async/src'}"
# These ports and those 10000 above them, which SeaweedFS opens too, are below the ephemeral ports.
PORTS = range(20000, 22700)
LOG_BYTES = 10 * 2**20
# Deaths are "in a row" while each comes sooner than this after the start.
SOON_SECONDS = 60
LONGEST_PAUSE_SECONDS = 60

# Ports that were returned lately. Their servers may not have bound them yet.
recent_ports: deque[int] = deque(maxlen=100)


class StackError(Exception):
    """The stack cannot start or go on. The message says why, and what to do."""


def say(message: str) -> None:
    print(message, flush=True)


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free, as is the port 10000 above it."""
    while True:
        port = random.choice(PORTS)
        if port in recent_ports:
            continue
        if is_free(port) and is_free(port + 10000):
            recent_ports.append(port)
            return port


def reserve_port(port: int) -> None:
    """Let free_port return other ports than this one."""
    recent_ports.append(port)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def leave_nothing(command: Sequence[str]) -> None:
    """Do nothing: the clean-up of a program that leaves nothing behind."""


@dataclass
class ManagedProcess:
    """A program that shall run, in a process group of its own. Used by one thread only.

    `command` is asked for the command line at each start. `clean_up` is called with that command
    line before the start and after the end, however it ended: it removes what the program may leave
    behind.
    """

    name: str
    command: Callable[[], Sequence[str]]
    environment: Mapping[str, str]
    log: Path
    folder: Path
    clean_up: Callable[[Sequence[str]], None] = leave_nothing
    # It is killed if it has not ended so long after SIGTERM.
    stop_seconds: float = 12

    # False while nobody needs the program, so that it is stopped.
    wanted: bool = True
    process: subprocess.Popen[bytes] | None = None
    # The command line of the newest process.
    arguments: Sequence[str] = ()
    exit_code: int | None = None
    # The number of deaths in a row.
    deaths: int = 0
    # time.monotonic() of the newest start, and of the earliest next one.
    started_at: float = 0.0
    restart_at: float = 0.0

    def start(self) -> None:
        self.arguments = self.command()
        self.clean_up(self.arguments)
        self.rotate_log()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.arguments,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # What it writes is for this user only.
                umask=0o077,
            )
        self.started_at = time.monotonic()

    def rotate_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))

    def watch(self) -> None:
        """Start, restart or stop the process as needed. Call this about once a second."""
        if self.process is None:
            if self.wanted and time.monotonic() >= self.restart_at:
                self.start()
            return

        exit_code = self.process.poll()
        if exit_code is not None:
            self.on_exit(exit_code)
        elif not self.wanted:
            say(f"{self.name} is idle and goes to sleep")
            self.stop()

    def on_exit(self, exit_code: int) -> None:
        """Clean up after a process that ended by itself, and set the time of its restart."""
        self.kill()
        self.exit_code = exit_code
        if time.monotonic() < self.started_at + SOON_SECONDS:
            self.deaths += 1
        else:
            self.deaths = 1

        if exit_code < 0:
            end = f"was killed by signal {-exit_code}"
        else:
            end = f"ended with exit code {exit_code}"

        if self.deaths == 1:
            self.restart_at = time.monotonic()
            say(f"{self.name} {end}, and is started again")
            return
        pause = min(LONGEST_PAUSE_SECONDS, 2 ** (self.deaths - 1))
        self.restart_at = time.monotonic() + pause
        say(f"{self.name} {end}, and is started again in {pause} s; its log: {self.log}")

    def log_tail(self) -> str:
        """Return the last three lines of the log."""
        lines: list[str] = []
        if self.log.exists():
            lines = self.log.read_text(errors="replace").splitlines()
        lines = [line for line in lines if line.strip()]
        return "\n".join(lines[-3:]) or "(the log is empty)"

    def terminate(self) -> None:
        """Ask the process to end. `stop` then waits for it."""
        if self.process:
            self.process.terminate()

    def stop(self) -> None:
        """End the process: by SIGTERM, and by SIGKILL if it takes longer than `stop_seconds`."""
        self.terminate()
        if self.process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(self.stop_seconds)
        self.kill()

    def kill(self) -> None:
        """Kill the process and whatever it started, at once."""
        if not self.process:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        self.clean_up(self.arguments)


def kill_leftovers(mark: str, clean_up: Callable[[Sequence[str]], None]) -> None:
    """Kill every process with `mark`, such as "NAME=VALUE", in its environment, except this one.

    `clean_up` is called with the command line of each. Linux only: it reads /proc.
    """
    for folder in Path("/proc").glob("[0-9]*"):
        number = int(folder.name)
        if number == os.getpid():
            continue
        # A process may end while we look at it, and those of other users cannot be read.
        with contextlib.suppress(OSError):
            environment = (folder / "environ").read_bytes().split(b"\0")
            if mark.encode() not in environment:
                continue
            command = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            os.kill(number, signal.SIGKILL)
            clean_up(command)
