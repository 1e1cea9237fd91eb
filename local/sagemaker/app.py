"""The HTTP API that boto3 calls, and GET /endpoints for whoever runs the model servers.

boto3 has two clients: `sagemaker-runtime` for the endpoints, `sagemaker` for training jobs.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping
from http import HTTPStatus

from botocore.credentials import ReadOnlyCredentials
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from local.sagemaker import control_plane
from local.sagemaker.endpoint import (
    ACCOUNT,
    PAYLOAD_BYTES,
    AsyncEndpoint,
    Endpoint,
    EndpointDescription,
    RealtimeEndpoint,
)
from local.sagemaker.errors import ApiError, constraint_error, validation_error
from local.sagemaker.signature import is_signed
from local.sagemaker.training import TrainingJobs
from local.sagemaker.validation import Headers, Parameters, create_request, read_parameters

VARIANT = "AllTraffic"
# The names by which callers on this machine know this server.
OWN_HOSTS = ("127.0.0.1", "localhost")
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
    jobs: TrainingJobs | None = None,
    credentials: ReadOnlyCredentials | None = None,
) -> Flask:
    """Return the WSGI application.

    `endpoints`, by their names, may be filled later, and `jobs` be started later. Without `jobs`
    there are no training jobs. With `credentials` each call must be signed by them.
    """
    app = Flask("sagemaker")
    app.config["MAX_CONTENT_LENGTH"] = PAYLOAD_BYTES

    @app.post("/endpoints/<name>/invocations")
    def invoke_endpoint(name: str) -> Response:
        validate(name, "InvokeEndpoint")
        endpoint = find_endpoint(endpoints, name)
        if not isinstance(endpoint, RealtimeEndpoint):
            raise wrong_call(name, "asynchronous", "InvokeEndpointAsync")
        answer = endpoint.invoke(request.get_data(), select(request.headers, REQUEST_HEADERS))
        headers = select(answer.headers, RESPONSE_HEADERS)
        headers["x-Amzn-Invoked-Production-Variant"] = VARIANT
        return Response(answer.data, headers=headers)

    @app.post("/endpoints/<name>/async-invocations")
    def invoke_endpoint_async(name: str) -> Response:
        parameters = validate(name, "InvokeEndpointAsync")
        endpoint = find_endpoint(endpoints, name)
        if not isinstance(endpoint, AsyncEndpoint):
            raise wrong_call(name, "real-time", "InvokeEndpoint")
        queue = endpoint.queue
        accepted = create_request(parameters, queue.output_path, queue.failure_path)
        endpoint.accept(accepted)
        body = {"InferenceId": accepted.headers["X-Amzn-SageMaker-Inference-Id"]}
        response = json_response(body, HTTPStatus.ACCEPTED)
        response.headers["X-Amzn-SageMaker-OutputLocation"] = accepted.output
        response.headers["X-Amzn-SageMaker-FailureLocation"] = accepted.failure
        return response

    @app.post("/")
    def control_plane_call() -> Response:
        if not jobs:
            message = "Training jobs need the option --training of local.sagemaker."
            raise ApiError(HTTPStatus.BAD_REQUEST, "UnknownOperationException", message)
        target = request.headers.get("X-Amz-Target", "")
        answer = control_plane.call(jobs, target, request.get_data())
        return Response(json.dumps(answer), content_type=control_plane.CONTENT_TYPE)

    @app.get("/endpoints")
    def describe_endpoints() -> dict[str, EndpointDescription]:
        return {name: endpoint.describe() for name, endpoint in endpoints.items()}

    @app.before_request
    def check_caller() -> None:
        refuse_web_pages()
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


def refuse_web_pages() -> None:
    """Raise ApiError for the call of a web page, also by a name that leads to this machine."""
    # A browser sends Origin with what could do harm. boto3 does not.
    if "Origin" in request.headers:
        message = "Web pages may not call this."
        raise ApiError(HTTPStatus.FORBIDDEN, "AccessDeniedException", message)
    host = request.host.partition(":")[0]
    if host not in OWN_HOSTS:
        message = f"This server is called {' or '.join(OWN_HOSTS)}, not {host[:100]}."
        raise ApiError(HTTPStatus.MISDIRECTED_REQUEST, "AccessDeniedException", message)


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
        raise validation_error(f"Endpoint {name} of account {ACCOUNT} not found.")
    return endpoint


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
    if isinstance(error, HTTPException):
        message = f"There is no {request.method} {request.path} here."
        return ApiError(error.code or 500, "UnknownOperationException", message)
    log.exception("%s %s", request.method, request.path, exc_info=error)
    message = "This is a fault of local.sagemaker; its log tells more."
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalFailure", message)
