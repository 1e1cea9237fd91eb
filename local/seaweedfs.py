"""SeaweedFS, the S3 of this machine: its command line, its credentials, its clean-up.

Its S3 wants the credentials that `s3_environment` returns. The package sagemaker-local-async knows
how to start it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from local.files import write_private
from local.processes import PYTHON_PATH, ManagedProcess, StackError

# SeaweedFS takes 15 s to stop by itself. It loses nothing when it is killed.
STOP_SECONDS = 1


def storage_process(
    data: Path, port: int, environment: Mapping[str, str], log: Path, folder: Path
) -> ManagedProcess:
    """Return the storage with its objects in `data`/s3, as S3 at `port`; it is not started yet."""
    objects = data / "s3"
    objects.mkdir(exist_ok=True)
    # Each start uses new ports between SeaweedFS's own servers, in case another program took one.
    command = partial(storage_command, objects, credentials_file(data), port)
    return ManagedProcess(
        "storage",
        command,
        environment,
        log,
        folder,
        clean_up=remove_sockets,
        stop_seconds=STOP_SECONDS,
    )


def storage_command(objects: Path, config: Path, port: int) -> list[str]:
    """Return the command line of SeaweedFS with all of its servers in one process.

    `config` is s3.json in the folder of the keys. Raises StackError where the program is not
    installed, or the path of that folder is too long.
    """
    command = [sys.executable, "-m", "sagemaker_local.seaweedfs", f"--port={port}"]
    command += [f"--objects={objects}", f"--keys={config.parent}"]
    environment = {**os.environ, "PYTHONPATH": PYTHON_PATH}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StackError(f"The storage cannot be started: {done.stderr.strip()}")
    printed: list[str] = json.loads(done.stdout)
    return printed


def remove_sockets(command: Iterable[str]) -> None:
    """Remove the sockets that a killed SeaweedFS with this command line has left in /tmp."""
    for port in re.findall(r"\.port=(\d+)", " ".join(command)):
        for number in (int(port), int(port) + 10000):
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                socket_file.unlink(missing_ok=True)


def credentials_file(data: Path) -> Path:
    return data / "s3.json"


def s3_environment(config: Path, port: int) -> dict[str, str]:
    """Return the variables by which boto3 finds and may use the storage.

    The credentials are made at the first call, and kept in `config`, which is SeaweedFS's
    configuration file.
    """
    if not config.exists():
        make_credentials(config)
    keys = json.loads(config.read_text())["identities"][0]["credentials"][0]
    return {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": keys["accessKey"],
        "AWS_SECRET_ACCESS_KEY": keys["secretKey"],
    }


def s3_client(environment: Mapping[str, str]) -> Any:  # noqa: ANN401 - boto3 makes it at run time
    """Return a client of the storage that `s3_environment` describes. It does not retry."""
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        config=Config(connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 1}),
    )


def make_credentials(config: Path) -> None:
    """Write new credentials to `config`, readable by its owner only."""
    keys = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}
    identity = {
        "name": "stylebot",
        "credentials": [keys],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    write_private(config, json.dumps({"identities": [identity]}).encode())
