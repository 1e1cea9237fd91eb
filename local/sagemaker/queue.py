"""The queue of asynchronous requests, and their answers, in S3.

A request is an object below sagemaker/queue/<endpoint>/. It is accepted once that object is
written, and the object is deleted once the request's output or failure is written. So a kill at any
moment loses no accepted request.
"""

from __future__ import annotations

import base64
import json
import logging
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from http import HTTPStatus
from typing import IO

from botocore.exceptions import BotoCoreError, ClientError

from local.sagemaker.errors import unavailable
from local.sagemaker.s3 import (
    S3Client,
    ensure_bucket,
    list_keys,
    retry_forever,
    split_s3_url,
    status_of,
)

QUEUE_PREFIX = "sagemaker/queue/"
# The version of AsyncRequest's schema. A stored request without a version has version 1.
VERSION = 1

log = logging.getLogger("sagemaker")


@dataclass
class AsyncRequest:
    """An asynchronous request, as it is stored in the queue."""

    # Begins with the time, so that a listing of the queue is in the order of arrival.
    id: str
    # The headers for the model server.
    headers: dict[str, str]
    # s3:// URLs of the answer; only one of the two is written.
    output: str
    failure: str
    # Seconds that the request may wait, and that the model may take.
    ttl: int
    timeout: int
    # Either the s3:// URL of the input, or the input itself in base64.
    input: str = ""
    body: str = ""
    # time.time() when the call came.
    accepted: float = field(default_factory=time.time)
    # How often a model server died while it had this request.
    attempts: int = 0
    version: int = VERSION

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> AsyncRequest:
        return cls(**json.loads(data))

    def has_expired(self) -> bool:
        return time.time() > self.accepted + self.ttl


class RequestQueue:
    """The stored requests, and where their answers go. Used by many threads."""

    def __init__(self, s3: S3Client, output_path: str, failure_path: str) -> None:
        """The paths are s3:// URLs. The queue is in the bucket of `output_path`."""
        self.output_path = output_path.rstrip("/")
        self.failure_path = failure_path.rstrip("/")
        self.bucket, _ = split_s3_url(output_path)
        self.s3 = s3

    def wait_for_bucket(self) -> None:
        """Wait until S3 answers, and create the bucket where there is none."""
        retry_forever(lambda: ensure_bucket(self.s3, self.bucket))

    def key(self, endpoint: str, request_id: str) -> str:
        return f"{QUEUE_PREFIX}{endpoint}/{request_id}"

    def add(self, endpoint: str, request: AsyncRequest) -> None:
        """Store the request: it is accepted. Raises ApiError ServiceUnavailable if S3 fails."""
        key = self.key(endpoint, request.id)
        try:
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=request.to_json())
        except (BotoCoreError, ClientError) as error:
            log.warning("S3: %s; a request was not accepted", error)
            raise unavailable("The queue cannot be written to. Try again.") from None

    def load(self, endpoint: str) -> list[AsyncRequest]:
        """Return what an earlier process accepted and did not finish, in the order of arrival."""
        unfinished = []
        for key in retry_forever(lambda: list_keys(self.s3, self.bucket, self.key(endpoint, ""))):
            request = self.read_request(key)
            if self.has_answer(request):
                # The earlier process was killed between the answer and the deletion.
                self.remove(endpoint, request)
            else:
                unfinished.append(request)
        return unfinished

    def read_request(self, key: str) -> AsyncRequest:
        def read() -> bytes:
            data: bytes = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            return data

        return AsyncRequest.from_json(retry_forever(read))

    def has_answer(self, request: AsyncRequest) -> bool:
        """Return whether the output or the failure is there, and is this request's.

        Two requests with the same Filename have the same URLs, so each answer carries its request's
        id.
        """
        for url in (request.output, request.failure):
            metadata = retry_forever(partial(self.read_metadata, url))
            if metadata.get("request") == request.id:
                return True
        return False

    def read_metadata(self, url: str) -> dict[str, str]:
        """Return the metadata of an object; {} where there is no such object."""
        bucket, key = split_s3_url(url)
        try:
            metadata: dict[str, str] = self.s3.head_object(Bucket=bucket, Key=key)["Metadata"]
        except ClientError as error:
            if status_of(error) != HTTPStatus.NOT_FOUND:
                raise
            return {}
        return metadata

    def read_input(self, request: AsyncRequest, file: IO[bytes]) -> str:
        """Write the input into `file`, and return "". Where it cannot be read, return why."""
        return retry_forever(lambda: self.download_input(request, file))

    def download_input(self, request: AsyncRequest, file: IO[bytes]) -> str:
        # An attempt before this one may have written a part.
        file.seek(0)
        file.truncate()
        if not request.input:
            file.write(base64.b64decode(request.body))
            file.seek(0)
            return ""

        bucket, key = split_s3_url(request.input)
        try:
            self.s3.download_fileobj(Bucket=bucket, Key=key, Fileobj=file)
        except ClientError as error:
            if status_of(error) >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            code = error.response["Error"].get("Code")
            return f"The input {request.input} could not be read: {code}"
        file.seek(0)
        return ""

    def finish(
        self, endpoint: str, request: AsyncRequest, url: str, body: IO[bytes], content_type: str
    ) -> None:
        """Write the answer of a request to `url`, then take the request out of the queue."""
        bucket, key = split_s3_url(url)

        def write() -> None:
            body.seek(0)
            self.s3.put_object(
                Bucket=bucket,
                Key=key,
                Body=body,
                ContentType=content_type,
                Metadata={"request": request.id},
            )

        retry_forever(write)
        self.remove(endpoint, request)

    def remove(self, endpoint: str, request: AsyncRequest) -> None:
        key = self.key(endpoint, request.id)
        retry_forever(lambda: self.s3.delete_object(Bucket=self.bucket, Key=key))
