"""How local.processes keeps a program running, and what it leaves behind: nothing."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from local import processes
from local.files import socket_path
from local.model_servers import STALL_SECONDS, START_SECONDS, ModelServer, docker_command
from local.processes import ManagedProcess, StackError, free_port, kill_leftovers
from local.seaweedfs import remove_sockets, s3_environment
from local.stack import Options, Stack, make_data_folder
from tests.fakes.servers import wait_until

SLEEP = "import time; time.sleep(600)"
IGNORES_SIGTERM = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


class Clock:
    """Stands in for the time module."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(processes, "time", clock)
    monkeypatch.setattr("local.model_servers.time", clock)
    return clock


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[ManagedProcess]]:
    """Processes that are killed in the end."""
    started: list[ManagedProcess] = []
    yield started
    for process in started:
        process.kill()


def python(code: str, folder: Path) -> ManagedProcess:
    command = [sys.executable, "-c", code]
    return ManagedProcess("it", lambda: command, dict(os.environ), folder / "it.log", folder)


def dies(process: ManagedProcess) -> None:
    """Watch a process that ends by itself until it has ended."""
    assert process.process
    process.process.wait(60)
    process.watch()
    assert process.process is None


def test_a_process_that_dies_is_restarted_at_once_and_then_after_longer_and_longer_pauses(
    tmp_path: Path, clock: Clock, started: list[ManagedProcess], capsys: pytest.CaptureFixture[str]
) -> None:
    process = python("raise SystemExit(3)", tmp_path)
    started.append(process)
    pauses = []
    for _ in range(8):
        process.watch()
        assert process.process, "it is not started"
        dies(process)
        pauses.append(process.restart_at - clock.now)
        clock.now = process.restart_at - 0.01
        process.watch()
        assert process.process is None, "it is started too early"
        clock.now = process.restart_at
    assert pauses == [0, 2, 4, 8, 16, 32, 60, 60]
    assert process.exit_code == 3
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "it ended with exit code 3, and is started again"
    assert said[1].startswith("it ended with exit code 3, and is started again in 2 s; its log: ")


def test_a_death_long_after_the_start_is_the_first_in_a_row(
    tmp_path: Path, clock: Clock, started: list[ManagedProcess]
) -> None:
    process = python("raise SystemExit(3)", tmp_path)
    started.append(process)
    process.deaths = 4
    process.start()
    clock.now += 61
    dies(process)
    assert process.deaths == 1


def test_a_process_that_is_not_wanted_is_stopped_and_started_again_once_it_is(
    tmp_path: Path, started: list[ManagedProcess]
) -> None:
    process = python(SLEEP, tmp_path)
    started.append(process)
    process.watch()
    process.wanted = False
    process.watch()
    assert process.process is None
    process.watch()
    assert process.process is None
    process.wanted = True
    process.watch()
    assert process.process
    assert process.deaths == 0


def test_a_process_that_ignores_sigterm_is_killed(
    tmp_path: Path, started: list[ManagedProcess]
) -> None:
    process = python(IGNORES_SIGTERM, tmp_path)
    started.append(process)
    process.stop_seconds = 0.1
    process.start()
    process.stop()
    assert process.process is None


def test_what_a_process_has_started_is_killed_with_it(
    tmp_path: Path, started: list[ManagedProcess]
) -> None:
    child_file = tmp_path / "child"
    code = f"""
import pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}])
new = pathlib.Path({str(child_file)!r} + ".new")
new.write_text(str(child.pid))
new.rename({str(child_file)!r})
child.wait()
"""
    process = python(code, tmp_path)
    started.append(process)
    process.start()
    wait_until(child_file.exists, 60, "it starts no child")
    child = int(child_file.read_text())
    process.kill()
    wait_until(lambda: not is_running(child), 10, "its child is left")


def is_running(number: int) -> bool:
    """Return whether there is such a process, and it is no zombie."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_the_clean_up_comes_before_the_start_and_after_the_end(
    tmp_path: Path, started: list[ManagedProcess]
) -> None:
    cleaned: list[Sequence[str]] = []
    process = python(SLEEP, tmp_path)
    process.clean_up = cleaned.append
    started.append(process)
    process.start()
    assert cleaned == [process.arguments]
    process.kill()
    assert cleaned == [process.arguments, process.arguments]
    process.kill()
    assert len(cleaned) == 2, "there was nothing left to clean up"


def test_the_log_is_kept_over_restarts_and_its_tail_is_told(
    tmp_path: Path, started: list[ManagedProcess]
) -> None:
    process = python("print('one\\n\\ntwo\\nthree')", tmp_path)
    started.append(process)
    assert process.log_tail() == "(the log is empty)"
    process.start()
    dies(process)
    assert process.log_tail() == "one\ntwo\nthree"
    process.start()
    dies(process)
    assert process.log.read_text().count("three") == 2


def test_a_log_that_is_too_long_is_moved_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[ManagedProcess]
) -> None:
    monkeypatch.setattr(processes, "LOG_BYTES", 10)
    process = python("print('new')", tmp_path)
    process.log.write_text("more than ten bytes")
    started.append(process)
    process.start()
    dies(process)
    assert process.log.read_text() == "new\n"
    assert (tmp_path / "it.log.1").read_text() == "more than ten bytes"


def test_leftovers_are_known_by_their_mark(tmp_path: Path, started: list[ManagedProcess]) -> None:
    left = python(SLEEP, tmp_path)
    other = python(SLEEP, tmp_path)
    left.environment = {"MARK": str(tmp_path)}
    other.environment = {"MARK": f"{tmp_path}/other"}
    cleaned: list[Sequence[str]] = []
    for process in (left, other):
        started.append(process)
        process.start()
    # Until the new program has begun, the process has the environment of its parent.
    wait_until(lambda: has_mark(left, tmp_path), 60, "it has no mark")
    kill_leftovers(f"MARK={tmp_path}", cleaned.append)
    assert left.process
    assert left.process.wait(60) == -9
    assert other.process
    assert other.process.poll() is None
    assert len(cleaned) == 1
    assert SLEEP in cleaned[0]


def has_mark(process: ManagedProcess, folder: Path) -> bool:
    assert process.process
    with suppress(OSError):
        environment = Path(f"/proc/{process.process.pid}/environ").read_bytes()
        return f"MARK={folder}\0".encode() in environment
    return False


def test_no_two_free_ports_in_a_row_are_the_same() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    for port in ports:
        assert port + 10000 < 32768, "the system may give it to anybody"


def test_a_port_is_free_only_if_the_one_10000_above_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        above = server.getsockname()[1]
        taken = above - 10000
        free = free_port()
        answers = [taken, free]
        monkeypatch.setattr(processes, "recent_ports", deque())
        monkeypatch.setattr("random.choice", lambda _: answers.pop(0))
        assert free_port() == free


def model_server(folder: Path) -> ModelServer:
    command = [sys.executable, "-c", SLEEP]
    return ModelServer("nst", lambda: command, dict(os.environ), folder / "nst.log", folder)


def test_a_model_server_that_stays_unhealthy_is_killed(
    tmp_path: Path, clock: Clock, started: list[ManagedProcess]
) -> None:
    server = model_server(tmp_path)
    started.append(server)
    server.start()
    clock.now += START_SECONDS
    server.update_health(False)
    assert server.process, "it has not had its time to start"
    server.update_health(True)
    clock.now += STALL_SECONDS
    server.update_health(False)
    assert server.process, "it has not had its time to come back"
    clock.now += 0.1
    server.update_health(False)
    assert server.process is None


def test_the_time_in_which_nobody_looked_does_not_count(
    tmp_path: Path, clock: Clock, started: list[ManagedProcess]
) -> None:
    server = model_server(tmp_path)
    started.append(server)
    server.start()
    clock.now += START_SECONDS + 10
    server.skip_health()
    server.update_health(False)
    assert server.process


def test_no_secret_is_in_dockers_command_line() -> None:
    environment = {"AWS_SECRET_ACCESS_KEY": "secret", "AWS_CONFIG_FILE": os.devnull, "HOME": "/x"}
    command = docker_command("nst", "container", environment, Path("/data/sockets"))
    assert command[command.index("--volume") + 1] == "/data/sockets:/data/sockets"
    assert command[-2:] == ["stylebot-nst", "serve"]
    passed_on = [command[n + 1] for n, word in enumerate(command) if word == "--env"]
    assert passed_on == ["AWS_SECRET_ACCESS_KEY"]
    assert "secret" not in command


def test_s3s_credentials_are_made_once_and_are_for_their_owner_only(tmp_path: Path) -> None:
    config = tmp_path / "s3.json"
    first = s3_environment(config, 1234)
    assert first["AWS_ENDPOINT_URL_S3"] == "http://127.0.0.1:1234"
    assert s3_environment(config, 1234) == first
    assert config.stat().st_mode & 0o777 == 0o600
    assert s3_environment(tmp_path / "other.json", 1234) != first


def test_a_path_that_is_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    with pytest.raises(StackError, match=r"bytes too long for a socket.*Choose a shorter one"):
        socket_path(folder, "nst.sock")
    made = socket_path(tmp_path / "s", "nst.sock")
    assert made.parent.stat().st_mode & 0o777 == 0o700


def test_a_place_where_no_data_can_be_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "full" / "lock"))
    readonly = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "others"))
    for data, error, said in (
        (file, None, "file is no folder. Choose"),
        (file / "below", None, "below is no folder. Choose"),
        (Path("/proc/nothing"), None, "nothing cannot be used: "),
        (tmp_path / "others", readonly, "others cannot be used: Permission denied. Choose a "),
        (tmp_path / "full", full, "full/lock is full. Make room, or choose another: --data DIR"),
    ):
        with monkeypatch.context() as patched:
            if error:
                patched.setattr(Stack, "take_lock", raises(error))
            with pytest.raises(StackError) as caught:
                Stack(Options(data))
        message = str(caught.value)
        assert said in message
        assert "--data DIR" in message
        assert "\n" not in message


def raises(error: Exception) -> Callable[[object], None]:
    def fail(_: object) -> None:
        raise error

    return fail


def test_a_disk_without_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=3 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StackError, match=r"has only 3 MB left\. Make room"):
        Stack(Options(tmp_path / "data"))


def test_only_a_folder_of_its_own_is_made_private(tmp_path: Path) -> None:
    new = tmp_path / "new"
    empty = tmp_path / "empty"
    shared = tmp_path / "shared"
    empty.mkdir()
    shared.mkdir()
    (shared / "of somebody").touch()
    shared.chmod(0o755)
    for data, mode in ((new, 0o700), (empty, 0o700), (shared, 0o755)):
        make_data_folder(data)
        assert data.stat().st_mode & 0o777 == mode


def test_what_is_no_port_is_told() -> None:
    for port in (-1, 2**16):
        with pytest.raises(StackError, match=r"is no port. Choose one from 1 to 65535: --s3-port"):
            Options(ports={"s3": port}).port("s3")


def test_what_a_part_writes_is_for_this_user_only(
    tmp_path: Path, started: list[ManagedProcess]
) -> None:
    process = python("open('secret', 'w')", tmp_path)
    started.append(process)
    process.start()
    dies(process)
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0


def test_seaweedfs_sockets_are_removed_by_their_ports() -> None:
    port = free_port()
    sockets = [Path(f"/tmp/seaweedfs-test-{number}.sock") for number in (port, port + 10000)]
    other = Path(f"/tmp/seaweedfs-test-{port + 1}.sock")
    for path in (*sockets, other):
        path.touch()
    try:
        remove_sockets(["weed", "server", f"-s3.port={port}"])
        assert not any(path.exists() for path in sockets)
        assert other.exists()
    finally:
        other.unlink()
