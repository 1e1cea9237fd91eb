"""Errors as the Bot API tells them."""

from http import HTTPStatus


class ApiError(Exception):
    """An error of the Bot API. Its code is the HTTP status of the answer."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.description = description


def bad_request(reason: str) -> ApiError:
    return ApiError(HTTPStatus.BAD_REQUEST, f"Bad Request: {reason}")
