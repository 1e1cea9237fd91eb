"""S3 as a dictionary: boto3's client as far as bot.py calls it, in no time and without a server."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from datetime import datetime, timezone
from email.utils import format_datetime
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

Json = Any  # whatever JSON can hold
PAGE_LENGTH = 1000


class NoSuchKey(ClientError):  # type: ignore[misc, unused-ignore] # noqa: N818 - boto3's name
    """What get_object raises where there is no object."""


class Exceptions:
    NoSuchKey = NoSuchKey


class Entry(NamedTuple):
    data: bytes
    etag: str
    modified: datetime


def error(kind: type[ClientError], code: str, status: int, operation: str) -> ClientError:
    metadata = {"HTTPStatusCode": status}
    response: Json = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": metadata}
    return kind(response, operation)


class MemoryS3:
    """One bucket. Writes may be conditional, as in S3."""

    exceptions = Exceptions

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.objects: dict[str, Entry] = {}
        self.now = now

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.now(), timezone.utc).replace(microsecond=0)

    def _answer(self, **values: Json) -> Json:
        headers = {"date": format_datetime(self._now(), usegmt=True)}
        return {"ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": headers}, **values}

    def _find(self, key: str, operation: str) -> Entry:
        if key not in self.objects:
            raise error(NoSuchKey, "NoSuchKey", 404, operation)
        return self.objects[key]

    def _check(self, key: str, match: str | None, none_match: str | None, operation: str) -> None:
        entry = self.objects.get(key)
        is_stale = match is not None and (entry is None or entry.etag != match)
        if is_stale or (none_match == "*" and entry is not None):
            raise error(ClientError, "PreconditionFailed", 412, operation)

    def get_object(self, *, Bucket: str, Key: str, IfNoneMatch: str = "") -> Json:  # noqa: N803
        entry = self._find(Key, "GetObject")
        if entry.etag == IfNoneMatch:
            raise error(ClientError, "304", 304, "GetObject")
        body = io.BytesIO(entry.data)
        return self._answer(Body=body, ETag=entry.etag, LastModified=entry.modified)

    def head_object(self, *, Bucket: str, Key: str) -> Json:  # noqa: N803
        entry = self._find(Key, "HeadObject")
        return self._answer(ETag=entry.etag, LastModified=entry.modified)

    def put_object(
        self,
        *,
        Bucket: str,  # noqa: N803
        Key: str,  # noqa: N803
        Body: bytes,  # noqa: N803
        IfMatch: str | None = None,  # noqa: N803
        IfNoneMatch: str | None = None,  # noqa: N803
    ) -> Json:
        self._check(Key, IfMatch, IfNoneMatch, "PutObject")
        etag = f'"{hashlib.md5(Body).hexdigest()}"'
        self.objects[Key] = Entry(Body, etag, self._now())
        return self._answer(ETag=etag)

    def copy_object(
        self,
        *,
        Bucket: str,  # noqa: N803
        Key: str,  # noqa: N803
        CopySource: dict[str, str],  # noqa: N803
        CopySourceIfMatch: str | None = None,  # noqa: N803
    ) -> Json:
        source = CopySource["Key"]
        self._check(source, CopySourceIfMatch, None, "CopyObject")
        entry = self._find(source, "CopyObject")
        self.objects[Key] = entry._replace(modified=self._now())
        return self._answer()

    def delete_object(self, *, Bucket: str, Key: str, IfMatch: str | None = None) -> Json:  # noqa: N803
        self._check(Key, IfMatch, None, "DeleteObject")
        self.objects.pop(Key, None)
        return self._answer()

    def delete_objects(self, *, Bucket: str, Delete: Json) -> Json:  # noqa: N803
        for item in Delete["Objects"]:
            self.objects.pop(item["Key"], None)
        return self._answer()

    def list_objects_v2(self, *, Bucket: str, Prefix: str, StartAfter: str = "") -> Json:  # noqa: N803
        keys = sorted(key for key in list(self.objects) if key.startswith(Prefix))
        later = [key for key in keys if key > StartAfter]
        contents = []
        for key in later[:PAGE_LENGTH]:
            contents.append({"Key": key, "LastModified": self.objects[key].modified})
        return self._answer(Contents=contents, IsTruncated=len(later) > PAGE_LENGTH)
