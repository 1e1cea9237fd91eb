"""The pytest fixture `sagemaker_local`: this program on free ports, with a folder as storage."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from sagemaker_local.names import REGION
from sagemaker_local.seaweedfs import read_keys

START_SECONDS = 120
STOP_SECONDS = 20
BUCKET = "sagemaker-local"


class SagemakerLocal:
    """A running sagemaker-local, for tests.

    url, s3_url: where boto3 finds SageMaker and S3. bucket: a bucket for the tests' own objects.
    environment: the variables by which boto3 in another process finds both.
    """

    def __init__(self, folder: Path, arguments: Sequence[str] = ()) -> None:
        """`arguments` are more options of the command line."""
        self.folder = folder
        self.log = folder / "log"
        self.bucket = BUCKET
        self.command = [sys.executable, "-m", "sagemaker_local", "--port=0", "--s3-port=0"]
        self.command += [f"--storage={folder / 'storage'}", *arguments]
        self.url = ""
        self.s3_url = ""

    def start(self) -> None:
        """Start it, and wait until it serves. Raises RuntimeError with its log if it does not."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        # If it hangs, it ends, and so does the reading of its output.
        timer = threading.Timer(START_SECONDS, self.process.kill)
        timer.start()
        try:
            self.url = self.read_address("SageMaker at ")
            self.s3_url = self.read_address("S3 at ")
        finally:
            timer.cancel()

    def read_address(self, start: str) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line.startswith(start):
            self.stop()
            raise RuntimeError(f"sagemaker-local did not start:\n{self.log.read_text()}")
        return line.removeprefix(start).strip()

    def stop(self) -> None:
        """Stop it. What it stored is there at the next start."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill it at once. What it stored is there at the next start."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    @property
    def environment(self) -> dict[str, str]:
        access_key, secret_key = read_keys(self.folder / "storage")
        return {
            "AWS_ENDPOINT_URL_SAGEMAKER": self.url,
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": self.url,
            "AWS_ENDPOINT_URL_S3": self.s3_url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
        }

    def client(self, service: str) -> Any:  # noqa: ANN401 - boto3 makes it at run time
        """Return boto3's client of "sagemaker", "sagemaker-runtime" or "s3". It does not retry."""
        url = self.url
        if service == "s3":
            url = self.s3_url
        environment = self.environment
        return boto3.client(
            service,
            endpoint_url=url,
            region_name=REGION,
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            config=Config(read_timeout=70, retries={"total_max_attempts": 1}),
        )

    def wait_for_answer(self, accepted: dict[str, Any], seconds: float = 60) -> tuple[str, bytes]:
        """Return how an asynchronous request ended: "output" or "failure", and the content.

        accepted: the answer of invoke_endpoint_async. Raises TimeoutError.
        """
        s3 = self.client("s3")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for kind in ("output", "failure"):
                url = accepted[f"{kind.title()}Location"]
                bucket, _, key = url.removeprefix("s3://").partition("/")
                with contextlib.suppress(s3.exceptions.NoSuchKey):
                    return kind, s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            time.sleep(0.1)
        raise TimeoutError(f"no answer within {seconds:g} s:\n{self.log.read_text()[-2000:]}")


def clean_environment() -> dict[str, str]:
    """Return the environment without the user's own settings of AWS, and with this package."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    # Where it is not installed, the other process has to find it too.
    folders = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(folder for folder in folders if folder)
    return environment


@pytest.fixture(scope="session")
def sagemaker_local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SagemakerLocal]:
    """Run sagemaker-local without endpoints. Tests make theirs by boto3."""
    running = SagemakerLocal(tmp_path_factory.mktemp("sagemaker-local"))
    running.start()
    try:
        yield running
    finally:
        running.stop()
