"""What several tests need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model_server import ModelServer, running_model_server


@pytest.fixture(scope="module")
def model_server() -> Iterator[ModelServer]:
    with running_model_server() as server:
        yield server
