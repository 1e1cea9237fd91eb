"""Errors as the Bot API tells them."""

from http import HTTPStatus


class ApiError(Exception):
    """An error of the Bot API. Its code is the HTTP status of the answer.

    reason: a word that says what is wrong with a file, for the page. The Bot API has none.
    """

    def __init__(self, code: int, description: str, reason: str = "") -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.reason = reason


def bad_request(words: str, reason: str = "") -> ApiError:
    return ApiError(HTTPStatus.BAD_REQUEST, f"Bad Request: {words}", reason)
