"""The storage behind --storage PATH: a folder with SeaweedFS in front of it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from botocore.exceptions import BotoCoreError, ClientError

from sagemaker_local.s3 import S3Client, create_s3_client
from sagemaker_local.seaweedfs import (
    StorageError,
    read_keys,
    remove_sockets,
    storage_command,
    write_private,
)

START_SECONDS = 60
POLL_SECONDS = 0.1
# prctl(2): the signal that a process gets when its parent ends.
PR_SET_PDEATHSIG = 1


@dataclass
class FolderStorage:
    """SeaweedFS in front of a folder."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def credentials_file(self) -> Path:
        return self.folder / "credentials"

    def check(self) -> None:
        """Raises StorageError where SeaweedFS has ended."""
        if self.process.poll() is not None:
            raise StorageError(f"SeaweedFS has ended. Its log: {self.folder / 'storage.log'}")


def make_folder(folder: Path) -> Path:
    """Make a folder that only its owner can use. Return it. Raises StorageError."""
    folder = folder.resolve()
    try:
        (folder / "s3").mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "lock").touch(mode=0o600)
    except OSError as error:
        raise StorageError(f"{folder} cannot be used: {error.strerror}") from None
    return folder


def take_lock(folder: Path) -> IO[str]:
    """Return a folder's lock file. The lock is held until it is closed. Raises StorageError."""
    lock = open(folder / "lock")  # noqa: SIM115 - it stays open
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise StorageError(f"Another process uses {folder}. Choose another folder.") from None
    return lock


@contextlib.contextmanager
def running_storage(folder: Path, port: int) -> Iterator[FolderStorage]:
    """Run SeaweedFS, and let boto3 in this process find it. Raises StorageError."""
    folder = make_folder(folder)
    with take_lock(folder):
        access_key, secret_key = read_keys(folder)
        write_credentials(folder / "credentials", access_key, secret_key)
        command = storage_command(folder / "s3", folder, port)
        with open(folder / "storage.log", "ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for this process, which still writes when it ends.
                start_new_session=True,
                preexec_fn=die_with_parent,
                umask=0o077,
            )
        storage = FolderStorage(folder, port, process)
        os.environ["AWS_ENDPOINT_URL_S3"] = storage.url
        os.environ["AWS_ACCESS_KEY_ID"] = access_key
        os.environ["AWS_SECRET_ACCESS_KEY"] = secret_key
        os.environ.pop("AWS_SESSION_TOKEN", None)
        os.environ.pop("AWS_PROFILE", None)
        try:
            wait_until_up(storage)
            yield storage
        finally:
            # It takes 15 s to stop by itself, and loses nothing when it is killed.
            process.kill()
            process.wait()
            remove_sockets(command)


def write_credentials(path: Path, access_key: str, secret_key: str) -> None:
    """Write the keys as boto3 reads them from AWS_SHARED_CREDENTIALS_FILE."""
    lines = [
        "[default]",
        f"aws_access_key_id = {access_key}",
        f"aws_secret_access_key = {secret_key}",
        "",
    ]
    write_private(path, "\n".join(lines).encode())


def die_with_parent() -> None:
    """Let this process be killed when its parent ends, however that ends. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_until_up(storage: FolderStorage) -> None:
    """Raises StorageError where S3 does not answer in time."""
    s3 = create_s3_client()
    deadline = time.monotonic() + START_SECONDS
    while problem := find_problem(s3):
        storage.check()
        if time.monotonic() > deadline:
            raise StorageError(f"SeaweedFS does not answer: {problem}")
        time.sleep(POLL_SECONDS)


def find_problem(s3: S3Client) -> str:
    try:
        s3.list_buckets()
    except (BotoCoreError, ClientError) as error:
        return str(error)
    return ""
