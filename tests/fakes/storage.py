"""SeaweedFS as S3, for tests."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from moto.server import ThreadedMotoServer

from local.processes import free_port
from local.seaweedfs import remove_sockets, s3_environment, storage_command
from local.stack import base_environment, url_problem
from tests.fakes.names import BUCKET, Json, eventually
from tests.fakes.servers import wait_until


class Storage:
    """A SeaweedFS of its own, in a temporary folder."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="stylebot-test-")
        config = Path(self.folder) / "s3.json"
        credentials = [{"accessKey": "key", "secretKey": "secret"}]
        actions = ["Admin", "Read", "Write", "List"]
        config.write_text(
            json.dumps(
                {"identities": [{"name": "t", "credentials": credentials, "actions": actions}]}
            )
        )
        self.port = free_port()
        self.command = command = storage_command(Path(self.folder), config, self.port)
        with (Path(self.folder) / "log").open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.client = s3_client(self.port)
        eventually(self._make_bucket, "SeaweedFS is up", 120)

    def _make_bucket(self) -> bool:
        with contextlib.suppress(ClientError, BotoCoreError):
            self.client.create_bucket(Bucket=BUCKET)
            return True
        return False

    def list_keys(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def read(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return data

    def json(self, key: str) -> Json:
        return json.loads(self.read(key))

    def empty(self) -> None:
        for key in self.list_keys():
            self.client.delete_object(Bucket=BUCKET, Key=key)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        remove_sockets(self.command)
        shutil.rmtree(self.folder, ignore_errors=True)


def s3_client(port: int) -> Json:
    config = Config(
        retries={"total_max_attempts": 1},
        max_pool_connections=50,
        connect_timeout=5,
        read_timeout=20,
    )
    # Not the credentials of the default session: another test may have made it for another server.
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=config,
    )


@contextlib.contextmanager
def running_storage(folder: Path) -> Iterator[dict[str, str]]:
    """Run a SeaweedFS as `./local.sh` does. Yield the environment of a process that finds it."""
    config = folder / "s3.json"
    port = free_port()
    environment = base_environment(folder) | s3_environment(config, port)
    command = storage_command(folder, config, port)
    with open(folder / "log", "wb") as log:
        weed = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        health = f"http://127.0.0.1:{port}"
        wait_until(lambda: url_problem(health, "/healthz") == "", 60, "SeaweedFS did not come up")
        yield environment
    finally:
        weed.kill()
        weed.wait()
        remove_sockets(command)


@contextlib.contextmanager
def moto_bucket(monkeypatch: pytest.MonkeyPatch, region: str) -> Iterator[Json]:
    """Run moto as S3 with the bucket `bucket`, and let this process's environment name it.

    Yields a client. region: of the environment; the bucket is in us-east-1.
    """
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_REGION", region)
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    try:
        yield client
    finally:
        server.stop()
