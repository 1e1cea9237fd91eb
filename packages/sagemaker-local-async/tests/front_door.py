"""The program under test, as its users have it: its command line, its port, and boto3."""

from __future__ import annotations

import configparser
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import boto3
import requests
from botocore.config import Config
from botocore.exceptions import ClientError

T = TypeVar("T")
# A client of boto3, which has no types.
Client = Any

REGION = "us-east-1"
SOURCES = Path(__file__).parents[1] / "src"
# Without --signed the program takes any credentials; its S3 takes those of its folder only.
ANY_CREDENTIALS = {"aws_access_key_id": "any", "aws_secret_access_key": "any"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def wait_until(check: Callable[[], T | None], seconds: float, otherwise: str) -> T:
    """Return the first true value of check(). Raises AssertionError(otherwise) after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := check():
            return value
        time.sleep(0.05)
    raise AssertionError(otherwise)


def client(
    service: str,
    url: str,
    credentials: dict[str, str] = ANY_CREDENTIALS,
    validates: bool = True,
) -> Client:
    """Return a client that asks once. validates: whether botocore checks the parameters first."""
    config = Config(
        retries={"total_max_attempts": 1},
        connect_timeout=5,
        read_timeout=70,
        max_pool_connections=50,
        parameter_validation=validates,
    )
    return boto3.client(service, endpoint_url=url, region_name=REGION, config=config, **credentials)


def read_credentials(file: Path) -> dict[str, str]:
    """Return what a client needs of a file such as ~/.aws/credentials."""
    profiles = configparser.ConfigParser()
    profiles.read(file)
    return {name: profiles["default"][name] for name in ANY_CREDENTIALS}


class FrontDoor:
    """The program with a storage folder of its own. It can be killed and started again."""

    s3_url: str
    # boto3's file with the keys of S3, which the first start makes.
    credentials: Path

    def __init__(self, folder: Path, *arguments: str, storage: FrontDoor | None = None) -> None:
        """storage: a program whose S3 this one shall use, in the place of a folder of its own."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "sagemaker.log"
        self.command = [sys.executable, "-m", "sagemaker_local", f"--port={self.port}", *arguments]
        self.environment = os.environ | {"PYTHONPATH": str(SOURCES)}
        if storage:
            self.s3_url = storage.s3_url
            self.credentials = storage.credentials
            self.command.append(f"--storage={self.s3_url}")
            self.environment["AWS_SHARED_CREDENTIALS_FILE"] = str(self.credentials)
            self.environment["AWS_DEFAULT_REGION"] = REGION
        else:
            s3_port = free_port()
            self.s3_url = f"http://127.0.0.1:{s3_port}"
            self.credentials = folder / "storage" / "credentials"
            self.command += [f"--storage={folder / 'storage'}", f"--s3-port={s3_port}"]

    @cached_property
    def runtime(self) -> Client:
        return client("sagemaker-runtime", self.url)

    @cached_property
    def control(self) -> Client:
        return client("sagemaker", self.url)

    @cached_property
    def s3(self) -> Client:
        """To be used after the first start."""
        return client("s3", self.s3_url, read_credentials(self.credentials))

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """Kill the program itself, which cannot take its other processes along."""
        self.process.kill()
        self.process.wait()

    def wait_until_started(self) -> None:
        wait_until(
            lambda: "SageMaker at" in self.log.read_text(),
            60,
            f"it does not start:\n{self.log.read_text()}",
        )

    def is_serving(self, name: str) -> bool:
        try:
            told = requests.get(f"{self.url}/endpoints", timeout=5).json()
        except requests.RequestException:
            return False
        return bool(told.get(name, {}).get("EndpointStatus") == "InService")

    def wait_until_serving(self, name: str) -> None:
        wait_until(
            lambda: self.is_serving(name), 60, f"{name} is not in service:\n{self.log.read_text()}"
        )

    def ask(self, name: str, wish: object = None, **options: object) -> dict[str, Any]:
        """Send an asynchronous request with `wish` as JSON, or with what `options` say."""
        if wish is not None:
            options["Body"] = json.dumps(wish).encode()
        answer: dict[str, Any] = self.runtime.invoke_endpoint_async(EndpointName=name, **options)
        return answer

    def read(self, url: str) -> bytes | None:
        """Return the content of an s3:// URL, or None where there is none."""
        bucket, _, key = url.removeprefix("s3://").partition("/")
        try:
            data: bytes = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except self.s3.exceptions.NoSuchKey:
            return None
        return data

    def answer(self, accepted: dict[str, Any], seconds: float = 30) -> tuple[str, bytes]:
        """Return "output" or "failure", and its content, once there is one."""

        def find() -> tuple[str, bytes] | None:
            for kind in ("output", "failure"):
                data = self.read(accepted[f"{kind.title()}Location"])
                if data is not None:
                    return kind, data
            return None

        return wait_until(find, seconds, f"no answer; the log:\n{self.log.read_text()}")


@contextmanager
def running_with_both(folder: Path, model_url: str, *arguments: str) -> Iterator[FrontDoor]:
    """Run the program with the endpoints "queued", an asynchronous one, and "live"."""
    endpoints = (f"--endpoint=queued={model_url}", f"--realtime=live={model_url}")
    with running(folder, *endpoints, *arguments) as door:
        door.wait_until_serving("queued")
        door.wait_until_serving("live")
        yield door


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[FrontDoor]:
    door = FrontDoor(folder, *arguments)
    door.start()
    try:
        yield door
    finally:
        door.process.send_signal(signal.SIGTERM)
        try:
            door.process.wait(15)
        finally:
            door.kill()


def error_of(call: Callable[..., object], **options: object) -> dict[str, Any]:
    """Return the error that the call ends in, as botocore parsed it."""
    try:
        call(**options)
    except ClientError as error:
        response: dict[str, Any] = dict(error.response)
        return response
    raise AssertionError(f"no error for {options}")
