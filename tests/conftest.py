"""What several tests need: the real weights, fetched once by the project's own commands."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from containers.cyclegan import weights as cyclegan_weights_command
from containers.nst import weights as nst_weights_command
from tests.fakes.names import TOKEN
from tests.fakes.servers import RecordingStore

if TYPE_CHECKING:
    from tests.fakes.storage import Storage
    from tests.fakes.world import World

collect_ignore = [] if sys.version_info >= (3, 11) else ["soak", "system"]


def pytest_report_header() -> str:
    return (
        f"{', '.join(collect_ignore)} left out: the Bot API emulator needs Python 3.11"
        if collect_ignore
        else ""
    )


@pytest.fixture(scope="session")
def nst_weights() -> Path:
    assert nst_weights_command.main() == 0
    return nst_weights_command.PATH


@pytest.fixture(scope="session")
def cyclegan_weights() -> Path:
    """A folder with at least the style vintage."""
    directory = cyclegan_weights_command.DIRECTORY
    if not (directory / "style_vintage.pth").exists():
        assert cyclegan_weights_command.fetch(directory)["vintage"] is None
    return directory


@pytest.fixture
def store() -> Iterator[RecordingStore]:
    """Stands where S3 would, by http."""
    with RecordingStore() as running:
        yield running
        running.shutdown()


@pytest.fixture(scope="session")
def storage() -> Iterator[Storage]:
    from tests.fakes.storage import Storage

    storage = Storage()
    yield storage
    storage.close()


@pytest.fixture
def world(storage: Storage) -> Iterator[World]:
    """A world whose bot is not started; whatever happened in it, no secret may have left it."""
    from tests.fakes.world import World

    world = World(storage)
    try:
        yield world
        world.kill()
        time.sleep(0.2)  # what the endpoint still writes
        kept = b"".join(storage.read(key) for key in storage.list_keys())
        for secret in (TOKEN, "Secret"):
            assert secret not in world.logged(), f"{secret!r} is in the bot's log"
            assert secret.encode() not in kept, f"{secret!r} is in S3"
            assert secret not in str(world.endpoint.requests), f"{secret!r} went to the model"
    finally:
        print(world.logged())  # shown by pytest where the test fails
        world.close()
