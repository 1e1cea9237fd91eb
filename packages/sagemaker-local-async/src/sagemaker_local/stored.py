"""What the program finds in S3 when it starts: checked, and moved aside where it is unreadable.

An object that does not fit its schema is moved below quarantine/ in its bucket. It stops nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import TypeVar

import msgspec
from botocore.exceptions import ClientError

from sagemaker_local.s3 import S3Client, list_keys, retry_forever, status_of

QUARANTINE_PREFIX = "quarantine/"

T = TypeVar("T")

log = logging.getLogger("sagemaker")


class UnreadableError(Exception):
    """A stored object is not what it must be. The message says why."""


def decode(data: bytes, schema: type[T]) -> T:
    """Return the object that the JSON holds. Raises UnreadableError."""
    try:
        return msgspec.json.decode(data, type=schema)
    except RecursionError:
        raise UnreadableError("it is nested too deeply") from None
    except ValueError as error:
        raise UnreadableError(str(error)) from None


def load_objects(
    s3: S3Client, bucket: str, prefix: str, parse: Callable[[str, bytes], T], most_bytes: int
) -> list[T]:
    """Return each object below the prefix, as `parse` makes it of its key and content.

    They are in the order of their keys. Where `parse` raises UnreadableError, or the object has
    more than `most_bytes`, it is moved aside.
    """
    found = []
    unreadable = 0
    for key in retry_forever(lambda: list_keys(s3, bucket, prefix)):
        if key.endswith("/"):
            continue  # a folder, as some tools make one
        try:
            data = retry_forever(partial(read_object, s3, bucket, key, most_bytes))
            if data is not None:
                found.append(parse(key, data))
        except UnreadableError as error:
            unreadable += 1
            retry_forever(partial(move_aside, s3, bucket, key, str(error)))
    if unreadable:
        log.warning(
            "%d unreadable objects below s3://%s/%s; look below s3://%s/%s",
            unreadable,
            bucket,
            prefix,
            bucket,
            QUARANTINE_PREFIX,
        )
    return found


def read_object(s3: S3Client, bucket: str, key: str, most_bytes: int) -> bytes | None:
    """Return the content; None where there is no such object any more.

    Raises UnreadableError, and the errors of S3 that may pass.
    """
    try:
        answer = s3.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if status_of(error) == HTTPStatus.NOT_FOUND:
            return None
        raise
    with answer["Body"] as body:
        if answer["ContentLength"] > most_bytes:
            raise UnreadableError(f"it has {answer['ContentLength']} bytes")
        data: bytes = body.read()
    return data


def move_aside(s3: S3Client, bucket: str, key: str, reason: str) -> None:
    """Move the object below quarantine/. Raises the errors of S3 that may pass."""
    # With quotes: a key may have line ends in it.
    log.warning("%r cannot be read: %s", f"s3://{bucket}/{key}", reason)
    source = {"Bucket": bucket, "Key": key}
    try:
        s3.copy_object(Bucket=bucket, Key=f"{QUARANTINE_PREFIX}{key}", CopySource=source)
        s3.delete_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if status_of(error) >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        log.warning("It stays where it is, and is passed over: %s", error)
