"""S3, as the queue of requests and the training jobs use it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
)

LONGEST_PAUSE_SECONDS = 10.0

T = TypeVar("T")
# A client of boto3, which has no types. Threads may share it.
S3Client = Any

log = logging.getLogger("sagemaker")


def split_s3_url(url: str) -> tuple[str, str]:
    """Return bucket and key of an s3:// URL; the key is "" where there is none."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def always(_: Exception) -> bool:
    return True


def retry_forever(
    call: Callable[[], T],
    sleep: Callable[[float], None] = time.sleep,
    can_pass: Callable[[Exception], bool] = always,
) -> T:
    """Return what `call` returns; repeat it until S3 answers.

    An accepted request is not given up for a fault of S3.
    Raises NoCredentialsError and ParamValidationError, which no retry would help, and the errors of
    which `can_pass` says so.
    """
    attempt = 0
    while True:
        try:
            return call()
        except (NoCredentialsError, ParamValidationError):
            raise
        except (BotoCoreError, ClientError) as error:
            if not can_pass(error):
                raise
            log.warning("S3: %s; trying again", error)
        sleep(min(LONGEST_PAUSE_SECONDS, 0.2 * 2 ** min(attempt, 10)))
        attempt += 1


def create_s3_client() -> S3Client:
    config = Config(connect_timeout=5, read_timeout=20, max_pool_connections=50)
    return boto3.client("s3", config=config)


def ensure_bucket(s3: S3Client, bucket: str) -> None:
    names = [found["Name"] for found in s3.list_buckets()["Buckets"]]
    if bucket not in names:
        s3.create_bucket(Bucket=bucket)


def list_keys(s3: S3Client, bucket: str, prefix: str) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", ())]


def status_of(error: ClientError) -> int:
    metadata: dict[str, Any] = error.response["ResponseMetadata"]
    return int(metadata["HTTPStatusCode"])
