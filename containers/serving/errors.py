"""The one error that a request can end in."""


class RequestError(Exception):
    """A request that cannot be carried out, told to the person who sent it.

    status: the HTTP status; code: a stable word for programs; message: what is wrong and what to do.
    """

    def __init__(
        self, status: int, code: str, message: str, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after

    def body(self) -> dict[str, dict[str, str]]:
        return {"error": {"code": self.code, "message": self.message}}


def bad_request(message: str) -> RequestError:
    return RequestError(400, "bad_request", message)
