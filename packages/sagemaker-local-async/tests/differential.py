"""Calls of SageMaker's operations, right and wrong, and what botocore's model says of the answers.

`problems` sends the cases of an operation to any program that answers as SageMaker.
"""

from __future__ import annotations

import io
import itertools
import json
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import botocore.session
import requests
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from cases import (
    Case,
    Json,
    Path,
    Request,
    Shape,
    answer_problems,
    cases,
    last_name,
    missing_members,
    replaced,
    show,
    smallest_value,
)

ROLE = "arn:aws:iam::000000000000:role/name"
TAGS = [{"Key": "project", "Value": "paint"}]
# By the service of a signature other programs know whose call it is. Nobody checks this one.
AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/sagemaker/aws4_request, "
    "SignedHeaders=host, Signature=0"
)
numbers = itertools.count(1)
# What botocore has no types for.
Untyped = Any


@cache
def service_model(service: str) -> Untyped:
    return botocore.session.get_session().get_service_model(service)


class Caller:
    """Sends one operation as botocore would, also what botocore would not send."""

    def __init__(self, url: str, service: str, operation: str) -> None:
        self.url = url
        model = service_model(service)
        self.operation = model.operation_model(operation)
        self.serializer = create_serializer(model.metadata["protocol"], include_validation=False)
        self.parser = create_parser(model.metadata["protocol"])
        self.input: Shape = self.operation.input_shape
        self.output: Shape = self.operation.output_shape
        self.is_control_plane = service == "sagemaker"
        self.session = requests.Session()
        self.session.headers["Authorization"] = AUTHORIZATION

    def call(self, request: Request) -> dict[str, Json]:
        """Return the answer, or the error, as botocore parses it."""
        response = self.send(request)
        body: bytes | io.BytesIO = response.content
        if response.ok and self.operation.has_streaming_output:
            body = io.BytesIO(response.content)
        raw = {"status_code": response.status_code, "headers": response.headers, "body": body}
        parsed: dict[str, Json] = self.parser.parse(raw, self.output)
        return parsed

    def send(self, request: Request) -> requests.Response:
        if self.is_control_plane:
            target = f"SageMaker.{self.operation.name}"
            headers = {"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1"}
            return self.session.post(self.url, json.dumps(request), headers=headers, timeout=30)
        wire = self.serializer.serialize_to_request(request, self.operation)
        # http.client encodes text as Latin-1, which not every text can be.
        encoded = {name: str(value).encode() for name, value in wire["headers"].items()}
        url = f"{self.url}{wire['url_path']}"
        return self.session.post(url, wire["body"], headers=encoded, timeout=30)


# ------------------------------------------------------------ right requests


def model_request(image: str) -> Request:
    return {
        "ModelName": "model",
        "PrimaryContainer": {
            "Image": image,
            "Environment": {"COLOR": "blue"},
        },
        "ExecutionRoleArn": ROLE,
        "Tags": TAGS,
    }


def config_request() -> Request:
    return {
        "EndpointConfigName": "config",
        "ProductionVariants": [
            {
                "VariantName": "only",
                "ModelName": "model",
                "InitialInstanceCount": 1,
                "InstanceType": "ml.m5.large",
                "ContainerStartupHealthCheckTimeoutInSeconds": 60,
            }
        ],
        "AsyncInferenceConfig": {
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2},
            "OutputConfig": {
                "S3OutputPath": "s3://sagemaker-local/created/output",
                "S3FailurePath": "s3://sagemaker-local/created/failure",
                "NotificationConfig": {
                    "SuccessTopic": "arn:aws:sns:us-east-1:000000000000:good",
                    "ErrorTopic": "arn:aws:sns:us-east-1:000000000000:bad",
                    "IncludeInferenceResponseIn": ["SUCCESS_NOTIFICATION_TOPIC"],
                },
            },
        },
        "Tags": TAGS,
    }


def endpoint_request() -> Request:
    return {"EndpointName": "endpoint", "EndpointConfigName": "config", "Tags": TAGS}


def list_request(sort_by: str = "Name") -> Request:
    return {
        "SortBy": sort_by,
        "SortOrder": "Ascending",
        "MaxResults": 10,
        "NameContains": "a",
        "CreationTimeAfter": 1.0,
        "CreationTimeBefore": 4e9,
    }


def invocation_request() -> Request:
    return {
        "EndpointName": "live",
        "Body": b"{}",
        "ContentType": "application/json",
        "Accept": "application/json",
        "CustomAttributes": "a=b",
        "TargetVariant": "AllTraffic",
        "InferenceId": "one",
    }


def async_request() -> Request:
    return {
        "EndpointName": "queued",
        "Body": b"{}",
        "ContentType": "application/json",
        "Accept": "application/json",
        "CustomAttributes": "a=b",
        "InferenceId": "one",
        "S3OutputPathExtension": "folder",
        "Filename": "file.out",
        "RequestTTLSeconds": 60,
        "InvocationTimeoutSeconds": 60,
    }


def base_request(operation: str, image: str) -> Request:
    """Return a request with every member that the program supports."""
    requests_: dict[str, Request] = {
        "CreateModel": model_request(image),
        "CreateEndpointConfig": config_request(),
        "CreateEndpoint": endpoint_request(),
        "UpdateEndpoint": {"EndpointName": "endpoint", "EndpointConfigName": "config"},
        "ListModels": list_request(),
        "ListEndpointConfigs": list_request(),
        "ListEndpoints": list_request()
        | {
            "StatusEquals": "InService",
            "LastModifiedTimeAfter": 1.0,
            "LastModifiedTimeBefore": 4e9,
        },
        "InvokeEndpoint": invocation_request(),
        "InvokeEndpointAsync": async_request(),
    }
    for kind in ("Model", "EndpointConfig", "Endpoint"):
        for verb in ("Describe", "Delete"):
            requests_[f"{verb}{kind}"] = {f"{kind}Name": "nobody"}
    return requests_[operation]


CREATED = {
    "CreateModel": "ModelName",
    "CreateEndpointConfig": "EndpointConfigName",
    "CreateEndpoint": "EndpointName",
}
CONTROL_PLANE = (
    *CREATED,
    "UpdateEndpoint",
    "DescribeModel",
    "DescribeEndpointConfig",
    "DescribeEndpoint",
    "ListModels",
    "ListEndpointConfigs",
    "ListEndpoints",
    "DeleteModel",
    "DeleteEndpointConfig",
    "DeleteEndpoint",
)
RUNTIME = ("InvokeEndpoint", "InvokeEndpointAsync")


def create_existing(control: Untyped, image: str) -> None:
    """Create the model, the endpoint configuration and the endpoint that requests name.

    control: a client of boto3.
    """
    control.create_model(**model_request(image))
    control.create_endpoint_config(**config_request())
    control.create_endpoint(**endpoint_request())
    waiter = control.get_waiter("endpoint_in_service")
    waiter.wait(EndpointName="endpoint", WaiterConfig={"Delay": 1, "MaxAttempts": 60})


# ------------------------------------------------------------ the comparison


def problems(
    url: str, operation: str, image: str, most: int | None = None
) -> tuple[int, list[str]]:
    """Send the cases of the operation. Return their number, and what is wrong with the answers.

    url: of the program. image: of the models that are created, a Docker image or a URL. most: send
    so many of the cases, from all of their kinds.
    """
    service = "sagemaker"
    if operation in RUNTIME:
        service = "sagemaker-runtime"
    caller = Caller(url, service, operation)
    base = base_request(operation, image)
    found = list(distinct(cases(caller.input, base)))
    if operation in RUNTIME:
        found = [case for case in found if can_be_sent(case)]
    if most and len(found) > most:
        found = [found[number * len(found) // most] for number in range(most)]
    wrong = []
    for case in found:
        request = with_own_name(operation, case.request, base)
        if operation == "UpdateEndpoint":
            wait_for_update(url)
        problem = problem_of(caller, case, caller.call(request))
        if problem:
            wrong.append(f"{case.name}: {problem}")
    return len(found), wrong


def wait_for_update(url: str) -> None:
    """Wait until the endpoint is not being updated: it refuses another update as long as it is."""
    describer = Caller(url, "sagemaker", "DescribeEndpoint")
    request = {"EndpointName": endpoint_request()["EndpointName"]}
    for _ in range(300):
        if describer.call(request).get("EndpointStatus") != "Updating":
            return
        time.sleep(0.1)


def silent_members(url: str, operation: str, image: str) -> list[str]:
    """Return the members of a Create... call that are neither described again nor refused.

    A member that is not supported has to be refused by its name.
    """
    caller = Caller(url, "sagemaker", operation)
    describer = Caller(url, "sagemaker", operation.replace("Create", "Describe"))
    base = base_request(operation, image)
    name = CREATED[operation]
    silent = []
    for path, shape in missing_members(caller.input, base):
        value = smallest_value(shape)
        request = with_own_name(operation, replaced(base, path, value), base)
        answer = caller.call(request)
        if error := answer.get("Error"):
            if not is_refused_by_name(error, path):
                silent.append(f"{show(path)}: {error}")
            continue
        described = value_at(describer.call({name: request[name]}), path)
        if described != value:
            silent.append(f"{show(path)} is {value!r}, and described as {described!r}")
    return silent


def is_refused_by_name(error: dict[str, str], path: Path) -> bool:
    is_named = last_name(path).lower() in error["Message"].lower()
    return is_named and error["Code"] in ("ValidationException", "ValidationError")


# ------------------------------------------------------------ what is expected


def distinct(found: Iterator[Case]) -> Iterator[Case]:
    """Yield one of all cases with the same request."""
    seen = set()
    for case in found:
        text = repr(case.request)
        if text not in seen:
            seen.add(text)
            yield case


def with_own_name(operation: str, request: Request, base: Request) -> Request:
    """Return the request with a name that nothing has yet, unless the case is about the name."""
    name = CREATED.get(operation, "")
    if not name or request.get(name) != base[name]:
        return request
    return request | {name: f"{operation}-{next(numbers)}"}


def can_be_sent(case: Case) -> bool:
    """Return whether HTTP can tell the case from others: a header has a text and no other type."""
    if case.is_wrong_type:
        return case.name in (
            "RequestTTLSeconds is a string",
            "InvocationTimeoutSeconds is a string",
        )
    # A name with a slash makes the path of another call.
    if "/" in case.request.get("EndpointName", "/"):
        return False
    if case.wrong is None:
        # How other characters stand in a header is not agreed on.
        return repr(case.request).isascii()
    return bool(case.request.get(case.wrong))


def problem_of(caller: Caller, case: Case, answer: dict[str, Json]) -> str | None:
    """Return what is wrong with the answer, and None where it is as the model says."""
    error = answer.get("Error")
    if case.wrong is None:
        if error and not is_about_others(error):
            return f"refused: {error}"
        if error or not caller.output:
            return None
        return "; ".join(answer_problems(caller.output, answer)) or None
    if not error:
        return "accepted"
    return refusal_problem(caller, case, answer)


def is_about_others(error: dict[str, str]) -> bool:
    """Return whether the model allows the request, and the error gives another reason.

    It names what does not exist, or what only SageMaker itself has.
    """
    reasons = (
        "ould not find",
        "not found",
        "has no variant",
        "is asynchronous",
        "is real-time",
        "there is no topic",
        "must be an s3:// URL",
    )
    return any(reason in error["Message"] for reason in reasons)


def refusal_problem(caller: Caller, case: Case, answer: dict[str, Json]) -> str | None:
    assert case.wrong
    error = answer["Error"]
    code = "ValidationError"
    if caller.is_control_plane:
        code = "ValidationException"
    allowed = {code}
    if case.is_wrong_type:
        allowed.add("SerializationException")
    if error["Code"] not in allowed:
        return f"refused as {error}"
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    if status != 400:
        return f"refused with status {status}"
    if error["Code"] == code and case.wrong.lower() not in error["Message"].lower():
        return f"refused without its name: {error}"
    return None


def value_at(answer: Json, path: Path) -> Json:
    """Return what the answer has at the path, and None where it has nothing."""
    for step in path:
        try:
            answer = answer[step]
        except (KeyError, IndexError, TypeError):
            return None
    return answer
