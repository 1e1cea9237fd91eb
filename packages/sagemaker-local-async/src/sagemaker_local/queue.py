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
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from functools import partial
from http import HTTPStatus
from typing import IO, Annotated, Any, Literal

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from msgspec import Meta

from sagemaker_local.clock import boot_id, seconds_since_boot
from sagemaker_local.errors import unavailable
from sagemaker_local.s3 import (
    S3Client,
    ensure_bucket,
    list_keys,
    retry_forever,
    split_s3_url,
    status_of,
)
from sagemaker_local.stored import UnreadableError, decode, load_objects

QUEUE_PREFIX = "sagemaker/queue/"
# A stored request with a body of the longest kind, 128,000 bytes, is smaller.
REQUEST_BYTES = 2**20
# A key has at most 1024 bytes.
URL_BYTES = 1024
# Far more than a call may ask for.
LONGEST_SECONDS = 10**6

log = logging.getLogger("sagemaker")


@dataclass
class AsyncRequest:
    """An asynchronous request, as it is stored in the queue. The types are also its schema."""

    # Begins with the time, so that a listing of the queue is in the order of arrival.
    id: str
    # The headers for the model server.
    headers: dict[str, str]
    # s3:// URLs of the answer; only one of the two is written.
    output: str
    failure: str
    # Seconds that the request may wait, and that the model may take.
    ttl: Annotated[int, Meta(ge=0, le=LONGEST_SECONDS)]
    timeout: Annotated[int, Meta(ge=1, le=LONGEST_SECONDS)]
    # Either the s3:// URL of the input, or the input itself in base64.
    input: str = ""
    body: str = ""
    # time.time() when the call came, and the same by the clock that nobody sets.
    accepted: float = field(default_factory=time.time)
    boot: str = field(default_factory=boot_id)
    accepted_since_boot: float = field(default_factory=seconds_since_boot)
    # How often a model server died while it had this request.
    attempts: Annotated[int, Meta(ge=0)] = 0
    # A stored request without a version has version 1.
    version: Literal[1] = 1

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> AsyncRequest:
        """Raises UnreadableError."""
        return decode(data, cls)

    def has_expired(self) -> bool:
        return seconds_since_boot() > self.accepted_since_boot + self.ttl

    def continue_after_boot(self) -> None:
        """Where the machine has been started anew since the call, count on with this boot's clock.

        How long the machine was off only the wall clock knows. If it was set back meanwhile, the
        request has its whole time again.
        """
        if self.boot == boot_id():
            return
        waited = max(0.0, time.time() - self.accepted)
        self.accepted_since_boot = seconds_since_boot() - waited
        self.boot = boot_id()


@dataclass
class Answer:
    """The end of a request. `body` is at its beginning."""

    body: IO[bytes]
    content_type: str
    is_failure: bool
    # Why it is a failure, as a notification tells it.
    reason: str = "The request failed."


class RequestQueue:
    """The stored requests, and their answers. Used by many threads."""

    def __init__(self, s3: S3Client, bucket: str) -> None:
        """`bucket` is where the requests are stored."""
        self.s3 = s3
        self.bucket = bucket

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

    def load(
        self,
        endpoint: str,
        buckets: Collection[str],
        notify: Callable[[AsyncRequest, Answer], None],
    ) -> list[AsyncRequest]:
        """Return what an earlier process accepted and did not finish, in the order of arrival.

        buckets: those in which answers may be. notify: is called for each request that has an
        answer, because the earlier process was killed before it took the request out of the queue.
        """
        parse = partial(self.parse_request, endpoint, buckets)
        prefix = self.key(endpoint, "")
        unfinished = []
        for request in load_objects(self.s3, self.bucket, prefix, parse, REQUEST_BYTES):
            answer = self.find_answer(request)
            if answer:
                with answer.body:
                    notify(request, answer)
                self.remove(endpoint, request)
            else:
                unfinished.append(request)
        return unfinished

    def parse_request(
        self, endpoint: str, buckets: Collection[str], key: str, data: bytes
    ) -> AsyncRequest:
        """Return the request that is stored at `key`. Raises UnreadableError."""
        request = AsyncRequest.from_json(data)
        # Else it would be run, and could not be removed.
        if key != self.key(endpoint, request.id):
            raise UnreadableError("its id is not the end of its key")
        for name, url in (("output", request.output), ("failure", request.failure)):
            bucket, answer_key = split_s3_url(url)
            is_allowed = url.startswith("s3://") and bucket in buckets and answer_key
            # An answer that can never be written would hold up all requests after it.
            if not is_allowed or len(url.encode()) > URL_BYTES:
                raise UnreadableError(f"its {name} is in none of the endpoint's buckets")
        request.continue_after_boot()
        return request

    def find_answer(self, request: AsyncRequest) -> Answer | None:
        """Return the output or the failure if it is there and is this request's.

        Two requests with the same Filename have the same URLs, so each answer carries its request's
        id.
        """
        for url, is_failure in ((request.output, False), (request.failure, True)):
            found = retry_forever(partial(self.read_object, url))
            if not found:
                continue
            if found["Metadata"].get("request") == request.id:
                return Answer(found["Body"], found["ContentType"], is_failure)
            found["Body"].close()
        return None

    def read_object(self, url: str) -> dict[str, Any] | None:
        """Return what S3 says of an object, and its body; None where there is no such object."""
        bucket, key = split_s3_url(url)
        try:
            found: dict[str, Any] = self.s3.get_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if status_of(error) != HTTPStatus.NOT_FOUND:
                raise
            return None
        return found

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
        except ParamValidationError:
            return f"The input {request.input} could not be read: there can be no such bucket"
        except ClientError as error:
            if status_of(error) >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            code = error.response["Error"].get("Code")
            return f"The input {request.input} could not be read: {code}"
        file.seek(0)
        return ""

    def write_answer(self, request: AsyncRequest, answer: Answer) -> None:
        """Write the answer to the request's output or failure location."""
        url = request.output
        if answer.is_failure:
            url = request.failure
        bucket, key = split_s3_url(url)

        def write() -> None:
            answer.body.seek(0)
            self.s3.put_object(
                Bucket=bucket,
                Key=key,
                Body=answer.body,
                ContentType=answer.content_type,
                Metadata={"request": request.id},
            )

        try:
            retry_forever(write, can_pass=is_no_missing_bucket)
        except ClientError as error:
            log.error(
                "The answer of %s is lost: there is no bucket %s: %s", request.id, bucket, error
            )
        answer.body.seek(0)

    def remove_all(self, endpoint: str) -> None:
        """Remove every request of an endpoint."""
        prefix = self.key(endpoint, "")
        for key in retry_forever(lambda: list_keys(self.s3, self.bucket, prefix)):
            retry_forever(partial(self.s3.delete_object, Bucket=self.bucket, Key=key))

    def remove(self, endpoint: str, request: AsyncRequest) -> None:
        key = self.key(endpoint, request.id)
        retry_forever(lambda: self.s3.delete_object(Bucket=self.bucket, Key=key))


def is_no_missing_bucket(error: Exception) -> bool:
    """Return whether a later attempt may do what S3 refused now: any error, but no such bucket."""
    if not isinstance(error, ClientError):
        return True
    return bool(error.response["Error"].get("Code") != "NoSuchBucket")
