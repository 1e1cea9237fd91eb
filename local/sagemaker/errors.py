"""Errors as boto3 reads them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

MESSAGE_CHARACTERS = 2048


class ApiError(Exception):
    """An error of the SageMaker runtime."""

    def __init__(self, status: int, code: str, message: str, **members: Any) -> None:  # noqa: ANN401
        """`code` is the exception's name in botocore's model of the service.

        `members` are its other members, such as OriginalStatusCode.
        """
        super().__init__(message)
        self.status = status
        self.code = code
        self.body: dict[str, Any] = {"Message": message[:MESSAGE_CHARACTERS], **members}


def validation_error(message: str) -> ApiError:
    return ApiError(HTTPStatus.BAD_REQUEST, "ValidationError", message)


def constraint_error(value: object, parameter: str, constraint: str) -> ApiError:
    """Return the error for a parameter that is outside of what the service's model allows.

    `constraint` completes "Member must ...".
    """
    name = parameter[0].lower() + parameter[1:]
    return validation_error(
        f"1 validation error detected: Value '{value}' at '{name}' failed to satisfy constraint: "
        f"Member must {constraint}"
    )


def unavailable(message: str) -> ApiError:
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
