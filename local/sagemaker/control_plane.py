"""SageMaker's control plane, for boto3's client `sagemaker`: JSON 1.1, POST / with X-Amz-Target.

Only the training jobs are implemented.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from local.sagemaker.errors import ApiError
from local.sagemaker.shapes import check_value, input_shape, serialization_error
from local.sagemaker.training import TrainingJobs

TARGET_PREFIX = "SageMaker."
CONTENT_TYPE = "application/x-amz-json-1.1"

Call = Callable[[dict[str, Any]], Mapping[str, object]]


def call(jobs: TrainingJobs, target: str, body: bytes) -> Mapping[str, object]:
    """Return the answer to a call. `target` is its X-Amz-Target. Raises ApiError."""
    calls: dict[str, Call] = {
        "CreateTrainingJob": jobs.create,
        "DescribeTrainingJob": jobs.describe,
        "ListTrainingJobs": jobs.list,
        "StopTrainingJob": jobs.stop,
    }
    operation = target.removeprefix(TARGET_PREFIX)
    if operation not in calls:
        message = f"{target or 'A call without X-Amz-Target'} is not implemented here."
        raise ApiError(HTTPStatus.BAD_REQUEST, "UnknownOperationException", message)
    try:
        arguments = read_arguments(body)
        check_value("", arguments, input_shape(operation))
        return calls[operation](arguments)
    except ApiError as error:
        # The runtime calls it ValidationError, the control plane ValidationException.
        if error.code != "ValidationError":
            raise
        raise ApiError(error.status, "ValidationException", str(error)) from None


def read_arguments(body: bytes) -> dict[str, Any]:
    """Return the members of the call, less those that are null. Raises ApiError."""
    try:
        arguments = without_nulls(json.loads(body or b"{}"))
    except (ValueError, RecursionError):
        raise serialization_error("The body is no JSON.") from None
    if not isinstance(arguments, dict):
        raise serialization_error("The body is no JSON object.")
    return arguments


def without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value
