"""Names and waiting that the fakes share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fakes.servers import wait_until

Json = Any  # whatever JSON can hold
ROOT = Path(__file__).parents[2]
TOKEN = "42:secret-of-the-tests"
BUCKET = "stylebot-test"
os.environ.update(
    AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret", AWS_DEFAULT_REGION="eu-west-1"
)


def eventually(check: Callable[[], Any], what: str, seconds: float = 20) -> Json:
    """The first true value of check(); AssertionError naming `what` if there is none in time."""
    return wait_until(check, seconds, f"not within {seconds} s: {what}")
