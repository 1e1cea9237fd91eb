"""./deploy.py up is killed after each of its changes, and run again.

tests/system/aws kills it after some of them.
"""

import pytest

from tests.system.aws.conftest import deploy, session, url, wire  # noqa: F401 - fixtures
from tests.system.aws.helpers import TOKEN, Deploy, Wire
from tests.system.aws.test_interrupted import kill_up_after_changes
from tests.system.aws.test_release import kill_release_after_changes

pytestmark = pytest.mark.long


@pytest.mark.parametrize("home", ["role", "fargate"])
def test_up_killed_after_any_change_and_run_again_ends_the_same(
    home: str,
    url: str,  # noqa: F811
    deploy: Deploy,  # noqa: F811
    wire: Wire,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TELEGRAM_TOKEN", TOKEN)
    kill_up_after_changes(url, deploy, wire, home, every=1)


@pytest.mark.parametrize("is_bad", [False, True])
def test_a_release_killed_after_any_change_is_finished_or_taken_back(
    is_bad: bool,
    url: str,  # noqa: F811
    deploy: Deploy,  # noqa: F811
    wire: Wire,  # noqa: F811
) -> None:
    kill_release_after_changes(url, deploy, wire, is_bad, every=1)
