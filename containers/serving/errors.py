"""Errors as the HTTP contract tells them: a code, a message for people, and a status.

This is the only place that maps error codes to HTTP.
"""

import traceback

from containers.common.errors import ErrorCode, StylizeError

from .limits import MAX_BODY_MEGABYTES

STATUS = {
    ErrorCode.BAD_REQUEST: 400,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: 415,
    ErrorCode.BODY_TOO_LARGE: 413,
    ErrorCode.IMAGE_UNREADABLE: 422,
    ErrorCode.IMAGE_TOO_SMALL: 422,
    ErrorCode.IMAGE_TOO_LARGE: 413,
    ErrorCode.OBJECT_NOT_FOUND: 404,
    ErrorCode.FILE_TOO_LARGE: 413,
    ErrorCode.ACCESS_DENIED: 400,
    ErrorCode.PRIVATE_ADDRESS: 400,
    ErrorCode.STORAGE_FAILED: 400,
    ErrorCode.UNKNOWN_STYLE: 404,
    ErrorCode.DIVERGED: 400,
    ErrorCode.OUT_OF_MEMORY: 503,
    ErrorCode.CANCELLED: 409,
    ErrorCode.LOADING: 503,
    ErrorCode.QUEUE_FULL: 503,
    ErrorCode.STOPPING: 503,
    ErrorCode.BROKEN: 503,
    ErrorCode.INTERNAL: 500,
}

# Werkzeug's own errors, by their status. Other errors of the client are bad requests.
HTTP_ERROR_CODES = {
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    413: ErrorCode.BODY_TOO_LARGE,
}


class ApiError(StylizeError):
    """An error that a request is answered with."""

    def __init__(self, code: ErrorCode, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        return STATUS[self.code]

    def body(self) -> dict[str, dict[str, str]]:
        return {"error": {"code": self.code.value, "message": self.message}}


class ClientGoneError(Exception):
    """The client has closed its connection: nobody waits for the answer any more."""


def bad_request(message: str) -> ApiError:
    return ApiError(ErrorCode.BAD_REQUEST, message)


def body_too_large(limit: int) -> ApiError:
    """Return the error for a body of more than `limit` bytes."""
    shown = f"{limit >> 20} MB"
    if limit < 1 << 20:
        shown = f"{limit >> 10} KB"
    return ApiError(
        ErrorCode.BODY_TOO_LARGE,
        f"The body has more than {shown}, the limit for its content type. Send a smaller one.",
    )


def as_api_error(error: Exception) -> ApiError:
    """Return what the client is told about `error`.

    For an unexpected error that is a general sentence; the details are printed to the log.
    """
    # Imported here, as the decoder's processes need only ApiError
    from werkzeug.exceptions import HTTPException

    if isinstance(error, ApiError):
        return error
    if isinstance(error, StylizeError):
        return ApiError(error.code, str(error), error.retry_after)
    if isinstance(error, HTTPException):
        status = error.code or 500
        if status == 413:
            return body_too_large(MAX_BODY_MEGABYTES << 20)
        if 400 <= status < 500:
            code = HTTP_ERROR_CODES.get(status, ErrorCode.BAD_REQUEST)
            return ApiError(code, error.description or error.name)

    traceback.print_exception(error)
    return ApiError(
        ErrorCode.INTERNAL,
        "The picture could not be made because of a fault on our side. Try again.",
    )
