"""Requests, read and checked by botocore's own model of the service."""

from __future__ import annotations

import base64
import re
import time
import uuid
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol, TypedDict, cast

import botocore.session

from sagemaker_local.errors import constraint_error, validation_error
from sagemaker_local.queue import AsyncRequest
from sagemaker_local.s3 import split_s3_url

# For requests that do not say how long they may wait.
DEFAULT_TTL_SECONDS = 21600
# For requests that do not say how long the model may take.
DEFAULT_INVOCATION_SECONDS = 900
# The model's patterns are Java's. These parts of them are written differently in Python.
JAVA_PATTERNS = {
    r"[\p{Print}]": "[ -~]",
    r"\p{ASCII}": r"[\x00-\x7f]",
    r"\A": "",
    r"\z": "",
    r"\p{Alnum}": "a-zA-Z0-9",
    r"\p{L}\p{Z}\p{N}_": r"\w\s",
}

# A Shape of botocore, which has no types.
Shape = Any


class Headers(Protocol):
    """HTTP headers, whose names are not case-sensitive."""

    def get(self, name: str, /) -> str | None: ...


class Parameters(TypedDict, total=False):
    """The parameters of InvokeEndpoint and InvokeEndpointAsync that we use, by botocore's names."""

    EndpointName: str
    Body: bytes
    ContentType: str
    Accept: str
    CustomAttributes: str
    InferenceId: str
    TargetVariant: str
    InputLocation: str
    RequestTTLSeconds: int
    InvocationTimeoutSeconds: int
    S3OutputPathExtension: str
    Filename: str


@cache
def input_members(operation: str) -> dict[str, Shape]:
    service = botocore.session.get_session().get_service_model("sagemaker-runtime")
    members: dict[str, Shape] = service.operation_model(operation).input_shape.members
    return members


def read_parameters(operation: str, endpoint: str, headers: Headers, body: bytes) -> Parameters:
    """Return the parameters that a call gives. Raises ApiError ValidationError for a wrong one."""
    parameters: dict[str, str | bytes | int] = {}
    for name, shape in input_members(operation).items():
        value = find_value(shape, endpoint, headers, body)
        if value is not None:
            parameters[name] = check(name, value, shape)
    return cast(Parameters, parameters)


def find_value(shape: Shape, endpoint: str, headers: Headers, body: bytes) -> str | bytes | None:
    """Return the parameter's value, or None where the call does not give it."""
    location = shape.serialization.get("location")
    if location == "uri":
        return endpoint
    if location == "header":
        return headers.get(shape.serialization["name"])
    return body or None


def check(name: str, value: str | bytes, shape: Shape) -> str | bytes | int:
    """Return the value in the shape's type. Raises ApiError where it breaks a constraint."""
    if shape.type_name == "integer":
        return check_integer(name, str(value), shape.metadata)

    shown: str | bytes = value
    if isinstance(value, bytes):
        shown = "(bytes)"
    check_limits(name, shown, len(value), "length", shape.metadata)
    if isinstance(value, str):
        check_pattern(name, value, shape.metadata)
    return value


def check_integer(name: str, value: str, limits: Mapping[str, Any]) -> int:
    if not re.fullmatch(r"[+-]?\d{1,10}", value):
        raise constraint_error(value, name, "be an integer")
    number = int(value)
    check_limits(name, number, number, "value", limits)
    return number


def check_limits(
    name: str, shown: object, number: int, what: str, limits: Mapping[str, Any]
) -> None:
    """Check `number`, which is the "value" or the "length" of what is `shown` in the error."""
    if "max" in limits and number > limits["max"]:
        raise constraint_error(shown, name, f"have {what} less than or equal to {limits['max']}")
    if "min" in limits and number < limits["min"]:
        raise constraint_error(shown, name, f"have {what} greater than or equal to {limits['min']}")


def check_pattern(name: str, value: str, limits: Mapping[str, Any]) -> None:
    if "pattern" not in limits:
        return
    pattern = limits["pattern"]
    for java, python in JAVA_PATTERNS.items():
        pattern = pattern.replace(java, python)
    if not re.fullmatch(pattern, value):
        constraint = f"satisfy regular expression pattern: {limits['pattern']}"
        raise constraint_error(value, name, constraint)


def create_request(parameters: Parameters, output_path: str, failure_path: str) -> AsyncRequest:
    """Return the request that a call of InvokeEndpointAsync asks for.

    Its output and its failure get s3:// URLs below the two paths. Raises ApiError ValidationError.
    """
    location = parameters.get("InputLocation", "")
    if bool(location) == ("Body" in parameters):
        raise validation_error("Provide exactly one of InputLocation and Body.")
    if location:
        check_s3_url("InputLocation", location)

    number = str(uuid.uuid4())
    folder = output_folder(parameters.get("S3OutputPathExtension", ""))
    filename = parameters.get("Filename", f"{number}.out")
    return AsyncRequest(
        id=f"{time.time_ns():020}-{number}",
        headers=container_headers(parameters, number),
        output=f"{output_path}{folder}/{filename}",
        failure=f"{failure_path}{folder}/{filename.removesuffix('.out')}-error.out",
        ttl=parameters.get("RequestTTLSeconds", DEFAULT_TTL_SECONDS),
        timeout=parameters.get("InvocationTimeoutSeconds", DEFAULT_INVOCATION_SECONDS),
        input=location,
        body=base64.b64encode(parameters.get("Body", b"")).decode(),
    )


def check_s3_url(name: str, url: str) -> None:
    error = constraint_error(
        url, name, "be the address of an object in S3, such as s3://bucket/key"
    )
    if not url.startswith("s3://"):
        raise error
    _, key = split_s3_url(url)
    if not key:
        raise error


def output_folder(extension: str) -> str:
    """Return "/a/b" for S3OutputPathExtension "a//b/", and "" for none."""
    parts = [part for part in extension.split("/") if part]
    folder = "".join(f"/{part}" for part in parts)
    if "." in parts or ".." in parts:
        raise constraint_error(folder, "S3OutputPathExtension", "not have . or .. as a part")
    return folder


def container_headers(parameters: Parameters, number: str) -> dict[str, str]:
    """Return the headers for the model server. `number` is the inference id if none is given."""
    headers = {
        "Content-Type": parameters.get("ContentType", "application/octet-stream"),
        "Accept": parameters.get("Accept", "*/*"),
        "X-Amzn-SageMaker-Inference-Id": parameters.get("InferenceId", number),
        "X-Amzn-SageMaker-Custom-Attributes": parameters.get("CustomAttributes", ""),
    }
    return {name: value for name, value in headers.items() if value}
