"""SeaweedFS, the S3 of this machine: its command line, its credentials, its clean-up."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from local.processes import ManagedProcess, StackError, free_port

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

    Raises StackError where the program is not installed.
    """
    search_path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    weed = shutil.which("weed", path=search_path)
    if not weed:
        raise StackError("SeaweedFS is missing. Install it: ./setup.sh local")
    return [
        weed,
        "-logtostderr=true",
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={objects}",
        "-s3",
        f"-s3.port={port}",
        f"-s3.config={config}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-volume.max=50",
        "-master.volumeSizeLimitMB=256",
        "-volume.preStopSeconds=0",
        f"-master.port={free_port()}",
        f"-volume.port={free_port()}",
        f"-filer.port={free_port()}",
    ]


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
    # A file that is renamed is complete, even if this process is killed in between.
    new = config.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(json.dumps({"identities": [identity]}))
    new.replace(config)
