"""What an asynchronous endpoint does with one request, apart from HTTP.

It reads the request from storage, calls `stylize`, and writes the answer or the error. The storage
and `stylize` are parameters, so that any fake of InvokeEndpointAsync can use it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

Request = dict[str, Any]
Answer = dict[str, Any]


class ObjectStorage(Protocol):
    """Objects by their URLs, s3://BUCKET/KEY."""

    def read(self, url: str) -> bytes: ...

    def write(self, url: str, data: bytes) -> None: ...


@dataclass(frozen=True)
class Invocation:
    """One accepted request: where it is, and where its answer or its error goes."""

    input_url: str
    output_url: str
    failure_url: str

    @property
    def headers(self) -> dict[str, str]:
        """Return what InvokeEndpointAsync answers in its headers."""
        return {
            "X-Amzn-SageMaker-OutputLocation": self.output_url,
            "X-Amzn-SageMaker-FailureLocation": self.failure_url,
        }


def work_on(
    invocation: Invocation, storage: ObjectStorage, stylize: Callable[[Request], Answer]
) -> None:
    """Answer one request. An answer that has the key "error" goes to the failure location."""
    request = json.loads(storage.read(invocation.input_url))
    answer = stylize(request)
    url = invocation.output_url
    if "error" in answer:
        url = invocation.failure_url
    storage.write(url, json.dumps(answer).encode())
