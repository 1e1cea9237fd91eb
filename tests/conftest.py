"""What several tests need: the real weights, fetched once by the project's own commands."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.cyclegan import weights as cyclegan_weights_command
from containers.nst import weights as nst_weights_command
from tests.servers import RecordingStore

collect_ignore = [] if sys.version_info >= (3, 11) else ["bot", "test_chat_browser.py"]


def pytest_report_header() -> str:
    return f"{', '.join(collect_ignore)} left out: the Bot API emulator needs Python 3.11" if collect_ignore else ""


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
