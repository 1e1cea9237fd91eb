"""What can go wrong with a request: the codes, and the errors that models raise.

Nothing here knows HTTP. The status of each code stands in containers/serving/errors.py.
"""

from enum import Enum


class ErrorCode(str, Enum):
    """Every code that a container answers with. Clients rely on these words.

    docs/contract.md explains each of them.
    """

    # The request
    BAD_REQUEST = "bad_request"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    BODY_TOO_LARGE = "body_too_large"

    # The images
    IMAGE_UNREADABLE = "image_unreadable"
    IMAGE_TOO_SMALL = "image_too_small"
    IMAGE_TOO_LARGE = "image_too_large"

    # The URLs
    OBJECT_NOT_FOUND = "object_not_found"
    FILE_TOO_LARGE = "file_too_large"
    ACCESS_DENIED = "access_denied"
    PRIVATE_ADDRESS = "private_address"
    STORAGE_FAILED = "storage_failed"

    # The model
    UNKNOWN_STYLE = "unknown_style"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"

    # The person who asked for the picture
    CANCELLED = "cancelled"

    # The server
    LOADING = "loading"
    QUEUE_FULL = "queue_full"
    STOPPING = "stopping"
    BROKEN = "broken"
    INTERNAL = "internal"


class StylizeError(Exception):
    """A picture cannot be made. The message is written for the person who sent the photo.

    code: the kind of error, for programs.
    retry_after: the number of seconds after which the same request may succeed; None if it will
        not.
    """

    code = ErrorCode.INTERNAL
    retry_after: int | None = None


class InvalidParameterError(StylizeError):
    """A parameter is unknown or its value is not allowed."""

    code = ErrorCode.BAD_REQUEST


class UnknownStyleError(StylizeError):
    """The model has no style of this name."""

    code = ErrorCode.UNKNOWN_STYLE


class DivergedError(StylizeError):
    """The optimization or the network gave no finite picture."""

    code = ErrorCode.DIVERGED


class OutOfMemoryError(StylizeError):
    """The GPU's memory is too small even for a smaller picture."""

    code = ErrorCode.OUT_OF_MEMORY
    retry_after = 30


class FatalError(Exception):
    """The model is broken until it is loaded again, for example after a CUDA error."""
