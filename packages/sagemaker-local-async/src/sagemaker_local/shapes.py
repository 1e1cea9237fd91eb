"""Values of SageMaker's control plane, checked by botocore's own model of the service."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from typing import Any

import botocore.session

from sagemaker_local.errors import ApiError, constraint_error
from sagemaker_local.validation import Shape, check_limits, check_pattern

JSON_TYPES: dict[str, tuple[type, ...]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "timestamp": (int, float),
}


@cache
def input_shape(operation: str) -> Shape:
    service = botocore.session.get_session().get_service_model("sagemaker")
    return service.operation_model(operation).input_shape


def serialization_error(message: str) -> ApiError:
    return ApiError(HTTPStatus.BAD_REQUEST, "SerializationException", message)


def check_value(path: str, value: Any, shape: Shape) -> None:  # noqa: ANN401 - any JSON
    """Raise ApiError where `value`, at `path` such as "stoppingCondition", is not what it must be.

    Members that the model does not know are ignored, as SageMaker does.
    """
    check_type(path, value, shape)
    kind = shape.type_name
    if kind in ("string", "list", "map"):
        check_limits(path, value, len(value), "length", shape.metadata)
    if kind in ("integer", "long", "float", "double"):
        check_limits(path, value, value, "value", shape.metadata)

    if kind == "structure":
        check_members(path, value, shape)
    elif kind == "list":
        for number, item in enumerate(value, start=1):
            check_value(f"{path}.{number}.member", item, shape.member)
    elif kind == "map":
        for key, item in value.items():
            check_value(f"{path}.key", key, shape.key)
            check_value(f"{path}.{key}.member", item, shape.value)
    elif kind == "string":
        check_pattern(path, value, shape.metadata)
        if shape.enum and value not in shape.enum:
            allowed = ", ".join(shape.enum)
            raise constraint_error(value, path, f"satisfy enum value set: [{allowed}]")


def check_type(path: str, value: object, shape: Shape) -> None:
    expected = JSON_TYPES[shape.type_name]
    # In Python, true is an integer too.
    is_boolean = isinstance(value, bool) and shape.type_name != "boolean"
    if is_boolean or not isinstance(value, expected):
        raise serialization_error(f"The value at '{path}' must be of type {shape.type_name}.")


def check_members(path: str, value: Mapping[str, object], shape: Shape) -> None:
    for name in shape.required_members:
        if name not in value:
            raise constraint_error("null", member_path(path, name), "not be null")
    for name, member in shape.members.items():
        if name in value:
            check_value(member_path(path, name), value[name], member)


def member_path(path: str, name: str) -> str:
    """Return the path as SageMaker shows it, such as "stoppingCondition.maxRuntimeInSeconds"."""
    shown = name[0].lower() + name[1:]
    if not path:
        return shown
    return f"{path}.{shown}"
