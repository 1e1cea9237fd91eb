"""The HTTP API that boto3 calls, and GET /endpoints for whoever runs the model servers.

boto3 has two clients: `sagemaker-runtime` invokes endpoints, `sagemaker` makes them.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from ipaddress import ip_address

from botocore.credentials import ReadOnlyCredentials
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from sagemaker_local import control_plane
from sagemaker_local.control_plane import Call
from sagemaker_local.endpoint import (
    PAYLOAD_BYTES,
    AsyncEndpoint,
    Endpoint,
    EndpointDescription,
    RealtimeEndpoint,
)
from sagemaker_local.errors import (
    ApiError,
    constraint_error,
    not_found,
    not_supported,
    validation_error,
)
from sagemaker_local.names import ACCOUNT
from sagemaker_local.signature import is_signed
from sagemaker_local.validation import Headers, Parameters, create_request, read_parameters

# The names by which callers on this machine know this server.
OWN_HOSTS = ("127.0.0.1", "localhost")
# The parameters of InvokeEndpoint that ask for something which is not here.
NOT_SUPPORTED = (
    "TargetModel",
    "TargetContainerHostname",
    "EnableExplanations",
    "InferenceComponentName",
    "SessionId",
    "PrefixAwareId",
)
# The headers of a real-time call that the model server gets.
REQUEST_HEADERS = (
    "Content-Type",
    "Accept",
    "X-Amzn-SageMaker-Custom-Attributes",
    "X-Amzn-SageMaker-Inference-Id",
)
# The headers of its answer that the caller gets.
RESPONSE_HEADERS = ("Content-Type", "X-Amzn-SageMaker-Custom-Attributes")

log = logging.getLogger("sagemaker")


def create_app(
    endpoints: Mapping[str, Endpoint],
    calls: Mapping[str, Call],
    credentials: ReadOnlyCredentials | None = None,
    host: str = OWN_HOSTS[0],
) -> Flask:
    """Return the WSGI application.

    endpoints: what answers, by its name; it may be filled later. calls: what answers each operation
    of the control plane. With `credentials` each call must be signed by them. host: the address
    that the server listens at.
    """
    app = Flask("sagemaker")
    app.config["MAX_CONTENT_LENGTH"] = PAYLOAD_BYTES

    @app.post("/endpoints/<name>/invocations")
    def invoke_endpoint(name: str) -> Response:
        parameters = validate(name, "InvokeEndpoint")
        refuse_unsupported(parameters)
        endpoint = find_endpoint(endpoints, name)
        if not isinstance(endpoint, RealtimeEndpoint):
            raise wrong_call(name, "asynchronous", "InvokeEndpointAsync")
        answer = endpoint.invoke(
            request.get_data(),
            select(request.headers, REQUEST_HEADERS),
            parameters.get("TargetVariant"),
        )
        headers = select(answer.headers, RESPONSE_HEADERS)
        headers["x-Amzn-Invoked-Production-Variant"] = answer.variant
        return Response(answer.data, headers=headers)

    @app.post("/endpoints/<name>/async-invocations")
    def invoke_endpoint_async(name: str) -> Response:
        parameters = validate(name, "InvokeEndpointAsync")
        endpoint = find_endpoint(endpoints, name)
        if not isinstance(endpoint, AsyncEndpoint):
            raise wrong_call(name, "real-time", "InvokeEndpoint")
        settings = endpoint.settings
        accepted = create_request(parameters, settings.output_path, settings.failure_path)
        endpoint.accept(accepted)
        body = {"InferenceId": accepted.headers["X-Amzn-SageMaker-Inference-Id"]}
        response = json_response(body, HTTPStatus.ACCEPTED)
        response.headers["X-Amzn-SageMaker-OutputLocation"] = accepted.output
        response.headers["X-Amzn-SageMaker-FailureLocation"] = accepted.failure
        return response

    @app.post("/")
    def control_plane_call() -> Response:
        target = request.headers.get("X-Amz-Target", "")
        answer = control_plane.answer_call(calls, target, request.get_data())
        return Response(json.dumps(answer), content_type=control_plane.CONTENT_TYPE)

    @app.get("/endpoints")
    def describe_endpoints() -> dict[str, EndpointDescription]:
        return {name: endpoint.describe() for name, endpoint in list(endpoints.items())}

    @app.before_request
    def check_caller() -> None:
        refuse_web_pages(host)
        refuse_chunks()
        if credentials:
            check_signature(credentials)

    @app.after_request
    def add_request_id(response: Response) -> Response:
        response.headers["x-amzn-RequestId"] = str(uuid.uuid4())
        return response

    @app.errorhandler(Exception)
    def answer_error(error: Exception) -> Response:
        api_error = to_api_error(error)
        response = json_response(api_error.body, api_error.status)
        response.headers["x-amzn-ErrorType"] = api_error.code
        return response

    return app


def refuse_web_pages(own_host: str) -> None:
    """Raise ApiError for the call of a web page, also by a name that leads to this machine."""
    # A browser sends Origin with what could do harm. boto3 does not.
    if "Origin" in request.headers:
        message = "Web pages may not call this."
        raise ApiError(HTTPStatus.FORBIDDEN, "AccessDeniedException", message)
    host = host_name(request.host)
    if not is_own_host(host, own_host):
        message = f"This server is not called {host[:100]}: use {own_host}."
        raise ApiError(HTTPStatus.MISDIRECTED_REQUEST, "AccessDeniedException", message)


def host_name(host: str) -> str:
    """Return the header Host without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def is_own_host(host: str, own_host: str) -> bool:
    """Return whether a caller may call this server `host`, where it listens at `own_host`.

    A web page could be served from a name that leads to this machine. Such a name has a dot, so a
    server for other machines takes addresses, and names without one, as containers have.
    """
    if host in (own_host, *OWN_HOSTS):
        return True
    if own_host in OWN_HOSTS:
        return False
    return "." not in host or is_address(host)


def is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def refuse_chunks() -> None:
    """Raise ApiError for a body without a length, which boto3 never sends."""
    if "Transfer-Encoding" in request.headers:
        message = "Send the body with Content-Length."
        raise ApiError(HTTPStatus.LENGTH_REQUIRED, "ValidationError", message)


def check_signature(credentials: ReadOnlyCredentials) -> None:
    """Raise ApiError unless the call is signed by these credentials."""
    if not is_signed(request.method, request.url, request.headers, request.get_data(), credentials):
        message = "The request is not signed by the credentials of this server."
        raise ApiError(HTTPStatus.FORBIDDEN, "InvalidSignatureException", message)


def validate(name: str, operation: str) -> Parameters:
    """Return the call's parameters. Raises ApiError ValidationError for a wrong one."""
    return read_parameters(operation, name, request.headers, request.get_data())


def find_endpoint(endpoints: Mapping[str, Endpoint], name: str) -> Endpoint:
    endpoint = endpoints.get(name)
    if not endpoint:
        raise not_found(name)
    return endpoint


def refuse_unsupported(parameters: Parameters) -> None:
    for name in NOT_SUPPORTED:
        if name in parameters:
            raise not_supported(name)


def wrong_call(name: str, kind: str, operation: str) -> ApiError:
    return validation_error(f"Endpoint {name} of account {ACCOUNT} is {kind}: call {operation}.")


def select(headers: Headers, names: tuple[str, ...]) -> dict[str, str]:
    """Return those of the headers that are there and not empty."""
    selected = {}
    for name in names:
        if value := headers.get(name):
            selected[name] = value
    return selected


def json_response(body: Mapping[str, object], status: int) -> Response:
    return Response(json.dumps(body), status, content_type="application/json")


def to_api_error(error: Exception) -> ApiError:
    """Return what the caller is told. The log is told more of a fault of our own."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException) and error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return constraint_error(
            "(bytes)", "Body", f"have length less than or equal to {PAYLOAD_BYTES}"
        )
    if isinstance(error, TimeoutError):
        message = "The request did not arrive in time."
        return ApiError(HTTPStatus.REQUEST_TIMEOUT, "ValidationError", message)
    if isinstance(error, HTTPException):
        message = f"There is no {request.method} {request.path} here."
        return ApiError(error.code or 500, "UnknownOperationException", message)
    log.exception("%s %s", request.method, request.path, exc_info=error)
    message = "This is a fault of sagemaker-local; its log tells more."
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalFailure", message)
