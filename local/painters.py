"""The painters that were trained later: their files, the bucket, and the catalog for the bot.

A file style_NAME.pth in the folder `models` of the data is put into the bucket, where the server of
CycleGAN finds it. Then the server is asked for a new catalog of its styles, through SageMaker's
runtime, and the bot of the running stack offers NAME.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from bot import CATALOG_KEY, MODELS_PREFIX, TRAINING_TEMPLATE_KEY
from local.processes import say
from local.seaweedfs import s3_client

NAME = "[a-z0-9][a-z0-9_-]{0,31}"
# A client of boto3, which has no types.
S3Client = Any
FILE_NAME = re.compile(rf"style_({NAME})\.pth")
LOOK_SECONDS = 1.0
# So many failures in a row are no part that is being started again, and are told.
FAILURES_TOLD = 20
# A file that has not changed for so long is complete, also at the first look.
SETTLED_SECONDS = 5.0
ENDPOINT = "cyclegan"
# The metadata of an object that was put from the folder: which version of the file it is.
VERSION_METADATA = "file-version"

# The arguments of CreateTrainingJob that do not depend on the painter. sagemaker-local wants them
# as SageMaker does, and uses the first and the third.
TRAINING_IMAGE = "stylebot-cyclegan"
TRAINING_TEMPLATE = {
    "version": 1,
    "name_prefix": "stylebot-train-",
    "arguments": {
        "AlgorithmSpecification": {"TrainingImage": TRAINING_IMAGE, "TrainingInputMode": "File"},
        "RoleArn": "arn:aws:iam::000000000000:role/stylebot",
        "StoppingCondition": {"MaxRuntimeInSeconds": 6 * 3600},
        "ResourceConfig": {
            "InstanceType": "ml.m5.large",
            "InstanceCount": 1,
            "VolumeSizeInGB": 1,
        },
    },
}


def write_training_template(s3: S3Client, bucket: str) -> None:
    """Tell the bot how to create a training job. Raises the errors of S3."""
    body = json.dumps(TRAINING_TEMPLATE, indent=2).encode()
    s3.put_object(
        Bucket=bucket, Key=TRAINING_TEMPLATE_KEY, Body=body, ContentType="application/json"
    )


@dataclass(frozen=True)
class CatalogRequest:
    """A catalog that was asked for. The s3:// URLs of its answer, of which one is written."""

    output: str
    failure: str


class Painters:
    """Keeps the bucket and the catalog up to date, in a thread of its own."""

    def __init__(
        self, folder: Path, bucket: str, environment: Mapping[str, str], sagemaker_url: str
    ) -> None:
        """`environment` has the storage's address and keys."""
        self.folder = folder
        self.bucket = bucket
        self.s3: S3Client = s3_client(environment)
        self.runtime = sagemaker_client("sagemaker-runtime", environment, sagemaker_url)
        self.stopping = threading.Event()
        # Set once the first request for a catalog has been answered, in whatever way.
        self.has_answer = threading.Event()

        # All below is used by the thread only. The version of each file at the last look, and of
        # each file that the bucket has.
        self.seen: dict[str, str] = {}
        self.stored: dict[str, str] = {}
        self.has_listed = False
        # The painters whose catalog was not asked for yet, and those of the pending request.
        self.new: set[str] = set()
        self.asked: set[str] = set()
        self.is_catalog_due = True
        self.request: CatalogRequest | None = None
        self.failures = 0
        # Files that were told to have no painter's name.
        self.ignored: set[str] = set()

    def start(self) -> None:
        threading.Thread(target=self.run, daemon=True).start()

    def stop(self) -> None:
        self.stopping.set()

    def has_catalog(self) -> bool:
        """Return whether the bucket has a catalog, of this start or an earlier one."""
        try:
            self.s3.head_object(Bucket=self.bucket, Key=CATALOG_KEY)
        except (BotoCoreError, ClientError):
            return False
        return True

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                self.step()
                self.failures = 0
            except (BotoCoreError, ClientError) as error:
                self.failures += 1
                if self.failures == FAILURES_TOLD:
                    say(f"The painters of the chat are not brought up to date: {error}")
            self.stopping.wait(LOOK_SECONDS)

    def step(self) -> None:
        """Do what can be done without waiting. Raises the errors of S3 and of the runtime."""
        if not self.has_listed:
            self.list_bucket()
        self.update_bucket()
        if self.is_catalog_due and not self.request:
            self.request_catalog()
        if self.request:
            self.look_for_answer(self.request)

    # ---- the bucket

    def list_bucket(self) -> None:
        """Find out which of the bucket's painters an earlier start put there from the folder."""
        prefix = f"{MODELS_PREFIX}style_"
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        for key in [item["Key"] for page in pages for item in page.get("Contents", ())]:
            found = FILE_NAME.fullmatch(key.removeprefix(MODELS_PREFIX))
            head = self.head(key)
            if found and head and VERSION_METADATA in head["Metadata"]:
                self.stored[found[1]] = head["Metadata"][VERSION_METADATA]
        self.has_listed = True

    def head(self, key: str) -> dict[str, Any] | None:
        """Return what S3 says of an object, or None where there is none."""
        try:
            head: dict[str, Any] = self.s3.head_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if not is_missing(error):
                raise
            return None
        return head

    def update_bucket(self) -> None:
        """Put each new or changed file into the bucket, and remove those that are gone."""
        found = self.versions()
        for name, version in found.items():
            if self.stored.get(name) != version and self.is_settled(name, version):
                self.put(name, version)
        for name in self.stored.keys() - found.keys():
            self.remove(name)
        self.seen = found

    def versions(self) -> dict[str, str]:
        """Return the version of each painter's file: its time of change and its size."""
        versions = {}
        for path in sorted(self.folder.glob("[!.]*.pth")):
            match = FILE_NAME.fullmatch(path.name)
            if not match:
                self.tell_ignored(path)
                continue
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                versions[match[1]] = f"{status.st_mtime_ns}-{status.st_size}"
        return versions

    def is_settled(self, name: str, version: str) -> bool:
        """Return whether the file has stopped changing. One that just changed is still written."""
        changed_at = int(version.partition("-")[0]) / 1e9
        return self.seen.get(name) == version or time.time() > changed_at + SETTLED_SECONDS

    def tell_ignored(self, path: Path) -> None:
        if path.name not in self.ignored:
            self.ignored.add(path.name)
            say(
                f"{path} is ignored. Name it style_NAME.pth; NAME may have a-z, 0-9, _ and -, and "
                "32 characters."
            )

    def put(self, name: str, version: str) -> None:
        """Put the file into the bucket, unless a newer painter of this name was trained there."""
        path = self.folder / f"style_{name}.pth"
        try:
            changed_at = path.stat().st_mtime
            body = path.read_bytes()
        except OSError as error:
            say(f"{path} cannot be read: {error.strerror}")
            self.stored[name] = version
            return
        head = self.head(painter_key(name))
        is_from_chat = head is not None and VERSION_METADATA not in head["Metadata"]
        if head and is_from_chat and head["LastModified"].timestamp() > changed_at:
            self.stored[name] = version
            return
        self.s3.put_object(
            Bucket=self.bucket,
            Key=painter_key(name),
            Body=body,
            Metadata={VERSION_METADATA: version},
        )
        self.stored[name] = version
        self.new.add(name)
        self.is_catalog_due = True

    def remove(self, name: str) -> None:
        """Remove a painter whose file is gone, unless another one was trained in its place."""
        head = self.head(painter_key(name))
        if head and VERSION_METADATA in head["Metadata"]:
            self.s3.delete_object(Bucket=self.bucket, Key=painter_key(name))
            say(f"The painter {name} leaves the chat: its file is gone from {self.folder}")
            self.is_catalog_due = True
        del self.stored[name]

    # ---- the catalog

    def request_catalog(self) -> None:
        body = {"catalog_url": f"s3://{self.bucket}/{CATALOG_KEY}"}
        answer = self.runtime.invoke_endpoint_async(
            EndpointName=ENDPOINT, Body=json.dumps(body), ContentType="application/json"
        )
        self.request = CatalogRequest(answer["OutputLocation"], answer["FailureLocation"])
        self.is_catalog_due = False
        self.asked = self.new
        self.new = set()

    def look_for_answer(self, request: CatalogRequest) -> None:
        """Say what came of the new painters, once the request has been answered."""
        output = self.take(request.output)
        failure = None
        if output is None:
            failure = self.take(request.failure)
        if output is None and failure is None:
            return
        self.request = None
        self.has_answer.set()
        if failure is not None:
            reason = failure.decode(errors="replace")[:500]
            say(f"There is no new catalog of the painters: {reason}")
        elif output is not None:
            self.tell(read_styles(output))

    def take(self, url: str) -> bytes | None:
        """Return and delete an object; None where there is none."""
        bucket, _, key = url.removeprefix("s3://").partition("/")
        try:
            data: bytes = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            if not is_missing(error):
                raise
            return None
        self.s3.delete_object(Bucket=bucket, Key=key)
        return data

    def tell(self, styles: list[str]) -> None:
        for name in sorted(self.asked):
            if name in styles:
                say(f"New painter: {name}. The chat offers it in half a minute at most.")
            else:
                say(f"style_{name}.pth cannot be used. The log of cyclegan tells why.")


def is_missing(error: ClientError) -> bool:
    """Return whether S3 says that there is no such object."""
    return bool(error.response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.NOT_FOUND)


def painter_key(name: str) -> str:
    return f"{MODELS_PREFIX}style_{name}.pth"


def read_styles(answer: bytes) -> list[str]:
    """Return the names of the styles in the catalog, as the answer tells them."""
    try:
        styles: list[str] = json.loads(answer)["styles"]
    except (ValueError, KeyError, TypeError):
        return []
    return styles


def sagemaker_client(service: str, environment: Mapping[str, str], url: str) -> Any:  # noqa: ANN401
    """Return a client of SageMaker at `url`. It does not retry.

    service: "sagemaker-runtime" invokes endpoints, "sagemaker" describes them.
    """
    return boto3.client(
        service,
        endpoint_url=url,
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        config=Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 1}),
    )
