"""What several tests need, and how they are shared among the processes of pytest-xdist."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from containers.cyclegan import weights as cyclegan_weights_command
from containers.nst import weights as nst_weights_command
from tests.fakes.names import TOKEN
from tests.fakes.servers import RecordingStore

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

    from tests.fakes.storage import Storage
    from tests.fakes.world import World

# How fast hypothesis makes its examples, and each of them runs, tells of a busy machine, not of the
# code.
settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy machine")

# The Bot API emulator needs Python 3.11.
collect_ignore: list[str] = []
if sys.version_info < (3, 11):
    collect_ignore = ["soak", "system"]


def pytest_report_header() -> str:
    if not collect_ignore:
        return ""
    return f"{', '.join(collect_ignore)} left out: the Bot API emulator needs Python 3.11"


# ---- which tests run in the same process of pytest-xdist ----

# The tests of a file run in one process, because they may share a fixture that is expensive to
# make. These files have none: their tests run wherever a process is free.
INDEPENDENT_FILES = (
    "test_bot_conversation.py",
    "test_bot_weather.py",
    "test_docs.py",
    "test_interrupted.py",
    "test_local_stack.py",
)


def group_of(nodeid: str) -> str:
    """Return the name of the group that the test belongs to; a group runs in one process."""
    file = nodeid.partition("::")[0]
    # One engine builds the images, once, and the last test removes them.
    if file.startswith("tests/images/"):
        return "tests/images"
    if Path(file).name in INDEPENDENT_FILES:
        return nodeid
    return file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Return the scheduler for `--dist loadscope`, with group_of in the place of a test's module.

    The mark xdist_group is not used: with pytest 9.2, pytest-xdist 3.8 does not see it.
    """
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return GroupScheduling(config, log)


# ---- the real weights, fetched once by the project's own commands ----


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock among processes: the file `path`, which is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def nst_weights() -> Path:
    """Return the path of VGG-19's weights."""
    with locked(nst_weights_command.DIRECTORY / ".lock"):
        assert nst_weights_command.main() == 0
    return nst_weights_command.PATH


@pytest.fixture(scope="session")
def cyclegan_weights() -> Path:
    """Return a folder with at least the style vintage."""
    directory = cyclegan_weights_command.DIRECTORY
    with locked(directory / ".lock"):
        if not (directory / "style_vintage.pth").exists():
            assert cyclegan_weights_command.fetch(directory)["vintage"] is None
    return directory


# ---- the services around the tested code ----


@pytest.fixture
def store() -> Iterator[RecordingStore]:
    """An HTTP server in the place of S3, which remembers what was PUT."""
    with RecordingStore() as running:
        yield running
        running.shutdown()


@pytest.fixture(scope="session")
def storage() -> Iterator[Storage]:
    """A SeaweedFS; one for each process of pytest-xdist."""
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
        if world.process and "COVERAGE_PROCESS_CONFIG" in os.environ:
            # A process that is killed writes no coverage data.
            world.terminate()
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
