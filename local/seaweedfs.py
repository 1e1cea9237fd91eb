"""SeaweedFS, the S3 of this machine: its command line, its credentials, its clean-up.

Its S3 wants the credentials that `s3_environment` returns. Its other servers, which would give each
object to everybody who reaches them, talk only to each other: by TLS, with a certificate on both
sides that is made for this start.
"""

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
import trustme
from botocore.config import Config

from local.files import socket_path, write_private
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

    Its keys and sockets are in the folder `storage` beside `config`. Raises StackError where the
    program is not installed.
    """
    search_path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    weed = shutil.which("weed", path=search_path)
    if not weed:
        raise StackError("SeaweedFS is missing. Install it: ./setup.sh local")
    private = config.parent / "storage"
    s3_socket = socket_path(private, "s3.sock")
    filer_socket = socket_path(private, "filer.sock")
    make_certificates(private)
    # Without such a list, each web page may read the answers. SeaweedFS has no setting for those at
    # / and /status: every page may read them, but they have nothing in them.
    origin = f"http://127.0.0.1:{port}"
    return [
        weed,
        "-logtostderr=true",
        f"-config_dir={private}",
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={objects}",
        "-s3",
        f"-s3.port={port}",
        f"-s3.config={config}",
        f"-s3.localSocket={s3_socket}",
        f"-s3.allowedOrigins={origin}",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-volume.max=50",
        "-master.volumeSizeLimitMB=256",
        "-volume.preStopSeconds=0",
        # S3 calls the filer by gRPC only.
        "-filer.disableHttp",
        f"-filer.localSocket={filer_socket}",
        f"-filer.allowedOrigins={origin}",
        f"-master.port={free_port()}",
        f"-volume.port={free_port()}",
        f"-filer.port={free_port()}",
    ]


def make_certificates(folder: Path) -> None:
    """Write new keys, and the file by which SeaweedFS's servers let nobody in without them."""
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1", common_name="stylebot")
    chain = b"".join(part.bytes() for part in own.cert_chain_pems)
    write_private(folder / "ca.pem", authority.cert_pem.bytes())
    write_private(folder / "cert.pem", chain)
    write_private(folder / "key.pem", own.private_key_pem.bytes())

    # A string in JSON is one in TOML too.
    authority_line = f"ca = {json.dumps(str(folder / 'ca.pem'))}"
    pair = [
        f"cert = {json.dumps(str(folder / 'cert.pem'))}",
        f"key = {json.dumps(str(folder / 'key.pem'))}",
    ]
    lines = []
    for name in ("signing", "signing.read", "filer_signing", "filer_signing.read"):
        lines += [f"[jwt.{name}]", f'key = "{secrets.token_hex(20)}"']
    lines += ["[grpc]", authority_line]
    for name in ("master", "volume", "filer", "s3", "client"):
        lines += [f"[grpc.{name}]", *pair]
    lines += ["[https.client]", "enabled = true", authority_line, *pair]
    for name in ("master", "volume", "filer"):
        lines += [f"[https.{name}]", authority_line, *pair]
    write_private(folder / "security.toml", "\n".join(lines).encode())


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
