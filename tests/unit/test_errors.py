"""How errors become answers, and what GPU errors mean."""

import pytest
import torch
from werkzeug.exceptions import (
    ImATeapot,
    InternalServerError,
    NotFound,
    RequestEntityTooLarge,
    RequestTimeout,
)

from containers.common.device import gpu_errors
from containers.common.errors import (
    DivergedError,
    ErrorCode,
    FatalError,
    InvalidParameterError,
    OutOfMemoryError,
    StylizeError,
    UnknownStyleError,
)
from containers.serving.errors import STATUS, ApiError, as_api_error


def test_every_code_has_a_status() -> None:
    assert set(STATUS) == set(ErrorCode)


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (InvalidParameterError("m"), 400, "bad_request", None),
        (UnknownStyleError("m"), 404, "unknown_style", None),
        (DivergedError("m"), 400, "diverged", None),
        (OutOfMemoryError("m"), 503, "out_of_memory", 30),
        (StylizeError("m"), 500, "internal", None),
        (ApiError(ErrorCode.QUEUE_FULL, "m", 7), 503, "queue_full", 7),
    ],
)
def test_domain_errors_keep_their_code_and_message(
    error: StylizeError, status: int, code: str, retry_after: int | None
) -> None:
    answer = as_api_error(error)
    assert answer.status == status
    assert answer.body() == {"error": {"code": code, "message": "m"}}
    assert answer.retry_after == retry_after


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotFound(), 404, "not_found"),
        (RequestEntityTooLarge(), 413, "body_too_large"),
        (RequestTimeout(), 400, "bad_request"),
        (ImATeapot(), 400, "bad_request"),
        (InternalServerError(), 500, "internal"),
        (FatalError("CUDA error: secret"), 500, "internal"),
        (KeyError("secret"), 500, "internal"),
    ],
)
def test_other_errors_are_told_without_details(error: Exception, status: int, code: str) -> None:
    answer = as_api_error(error)
    assert (answer.status, answer.code.value) == (status, code)
    assert "secret" not in answer.message


def test_out_of_memory_can_be_tried_again() -> None:
    with pytest.raises(OutOfMemoryError, match="smaller size") as caught, gpu_errors():
        raise torch.OutOfMemoryError("CUDA out of memory.")
    assert caught.value.retry_after == 30


def test_a_cuda_error_is_fatal_and_others_pass() -> None:
    with pytest.raises(FatalError, match="illegal memory access"), gpu_errors():
        raise RuntimeError("CUDA error: an illegal memory access\nmore lines")
    with pytest.raises(RuntimeError, match="shapes"), gpu_errors():
        raise RuntimeError("shapes do not match")
