import time
from collections.abc import Iterator

import pytest
from bot_world import TOKEN, Storage, World


@pytest.fixture(scope="session")
def storage() -> Iterator[Storage]:
    storage = Storage()
    yield storage
    storage.close()


@pytest.fixture
def world(storage: Storage) -> Iterator[World]:
    """A world whose bot is not started; whatever happened in it, no secret may have left it."""
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
