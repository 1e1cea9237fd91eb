"""Errors as boto3 reads them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from sagemaker_local.names import ACCOUNT

MESSAGE_CHARACTERS = 2048
# So much of a wrong value is shown.
VALUE_CHARACTERS = 256


class ApiError(Exception):
    """An error of the SageMaker runtime, or of its control plane."""

    def __init__(self, status: int, code: str, message: str, **members: Any) -> None:  # noqa: ANN401
        """`code` is the exception's name in botocore's model of the service.

        `members` are its other members, such as OriginalStatusCode.
        """
        super().__init__(message)
        self.status = status
        self.code = code
        # The runtime's protocol has the code in a header, the control plane's in __type.
        self.body: dict[str, Any] = {
            "__type": code,
            "Message": message[:MESSAGE_CHARACTERS],
            **members,
        }


def validation_error(message: str) -> ApiError:
    return ApiError(HTTPStatus.BAD_REQUEST, "ValidationError", message)


def constraint_error(value: object, parameter: str, constraint: str) -> ApiError:
    """Return the error for a parameter that is outside of what the service's model allows.

    `constraint` completes "Member must ...".
    """
    name = parameter[0].lower() + parameter[1:]
    shown = str(value)
    if len(shown) > VALUE_CHARACTERS:
        shown = f"{shown[:VALUE_CHARACTERS]}..."
    return validation_error(
        f"1 validation error detected: Value '{shown}' at '{name}' failed to satisfy constraint: "
        f"Member must {constraint}"
    )


def unavailable(message: str) -> ApiError:
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailable", message)


def not_found(endpoint: str) -> ApiError:
    """Return the runtime's error for an endpoint that is not there, or not in service yet."""
    return validation_error(f"Endpoint {endpoint} of account {ACCOUNT} not found.")


def not_supported(path: str, reason: str = "") -> ApiError:
    """Return the error for a member, such as "ProductionVariants.1.InstancePools"."""
    message = f"{path} is not supported by sagemaker-local."
    if reason:
        message = f"{message} {reason}"
    return validation_error(message)
