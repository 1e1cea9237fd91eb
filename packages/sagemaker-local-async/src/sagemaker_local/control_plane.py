"""SageMaker's control plane, for boto3's client `sagemaker`: JSON 1.1, POST / with X-Amz-Target."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from sagemaker_local.errors import ApiError
from sagemaker_local.hosting import Hosting
from sagemaker_local.shapes import check_value, input_shape, serialization_error
from sagemaker_local.supported import check_supported
from sagemaker_local.training import TrainingJobs

TARGET_PREFIX = "SageMaker."
CONTENT_TYPE = "application/x-amz-json-1.1"
TRAINING_OPERATIONS = (
    "CreateTrainingJob",
    "DescribeTrainingJob",
    "ListTrainingJobs",
    "StopTrainingJob",
)

Call = Callable[[dict[str, Any]], Mapping[str, object]]


def list_calls(hosting: Hosting, jobs: TrainingJobs | None) -> dict[str, Call]:
    """Return what answers each operation, by the operation's name."""
    calls: dict[str, Call] = {
        "CreateModel": hosting.create_model,
        "DescribeModel": hosting.describe_model,
        "ListModels": hosting.list_models,
        "DeleteModel": hosting.delete_model,
        "CreateEndpointConfig": hosting.create_endpoint_config,
        "DescribeEndpointConfig": hosting.describe_endpoint_config,
        "ListEndpointConfigs": hosting.list_endpoint_configs,
        "DeleteEndpointConfig": hosting.delete_endpoint_config,
        "CreateEndpoint": hosting.create_endpoint,
        "DescribeEndpoint": hosting.describe_endpoint,
        "ListEndpoints": hosting.list_endpoints,
        "UpdateEndpoint": hosting.update_endpoint,
        "DeleteEndpoint": hosting.delete_endpoint,
        "AddTags": hosting.add_tags,
        "ListTags": hosting.list_tags,
        "DeleteTags": hosting.delete_tags,
    }
    if jobs:
        answers = (jobs.create, jobs.describe, jobs.list, jobs.stop)
        calls |= dict(zip(TRAINING_OPERATIONS, answers, strict=True))
    return calls


def answer_call(calls: Mapping[str, Call], target: str, body: bytes) -> Mapping[str, object]:
    """Return the answer to a call. `target` is its X-Amz-Target. Raises ApiError."""
    operation = target.removeprefix(TARGET_PREFIX)
    if operation not in calls:
        raise unknown_operation(operation)
    try:
        arguments = read_arguments(body)
        check_value("", arguments, input_shape(operation))
        check_supported(operation, arguments)
        return calls[operation](arguments)
    except ApiError as error:
        # The runtime calls it ValidationError, the control plane ValidationException.
        if error.code != "ValidationError":
            raise
        raise ApiError(error.status, "ValidationException", str(error)) from None


def unknown_operation(operation: str) -> ApiError:
    message = f"{operation[:100] or 'A call without X-Amz-Target'} is not supported."
    if operation in TRAINING_OPERATIONS:
        message = "Training jobs need the option --training of sagemaker-local."
    return ApiError(HTTPStatus.BAD_REQUEST, "UnknownOperationException", message)


def read_arguments(body: bytes) -> dict[str, Any]:
    """Return the members of the call, less those that are null. Raises ApiError."""
    try:
        arguments = without_nulls(json.loads(body or b"{}", parse_constant=refuse_constant))
    except (ValueError, RecursionError):
        raise serialization_error("The body is no JSON.") from None
    if not isinstance(arguments, dict):
        raise serialization_error("The body is no JSON object.")
    return arguments


def refuse_constant(name: str) -> None:
    """Raise ValueError for NaN and Infinity, which Python reads and JSON does not have."""
    raise ValueError(name)


def without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value
