"""Commands that are killed after a change, and run again. tests/soak kills `up` after each one."""

import pytest

from tests.fakes import aws as fake
from tests.system.aws.helpers import (
    TOKEN,
    Deploy,
    KilledError,
    Wire,
    clear_and_push_images,
    without_bucket,
)


@pytest.mark.parametrize("home", ["role", "fargate"])
def test_up_killed_after_a_change_and_run_again_ends_the_same(
    home: str, url: str, deploy: Deploy, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELEGRAM_TOKEN", TOKEN)
    kill_up_after_changes(url, deploy, wire, home, every=26)


NOTIFY = ["--notify", "a@example.com", "--budget", "50"]


def kill_up_after_changes(url: str, deploy: Deploy, wire: Wire, home: str, every: int) -> None:
    """Kill `up` after every change whose number is a multiple of `every`, and check the end.

    `home` is where the bot runs, for the option --bot.

    A run killed after a call that only reads leaves what the change before it left.
    """
    clear_and_push_images(url, wire, deploy)
    empty = fake.snapshot()
    up = ["up", "--bot", home, *NOTIFY]
    assert deploy(*up) == 0
    changes = wire.changes_made
    whole = fake.snapshot()
    assert changes > 30

    for run, count in enumerate(range(every, changes, every)):
        clear_and_push_images(url, wire, deploy)
        wire.kill_after = count
        with pytest.raises(KilledError):
            deploy(*up)
        wire.kill_after = None

        if run % 5 == 0:
            assert deploy("down", "--yes") == 0
            left = without_bucket(fake.snapshot())
            assert left == empty, f"killed after {count} changes and taken down"
        assert deploy(*up) == 0
        assert fake.snapshot() == whole, f"killed after {count} changes and run again"

    assert deploy("down", "--yes") == 0
    assert without_bucket(fake.snapshot()) == empty


def test_up_killed_while_aws_refuses_several_instance_types_ends_the_same(
    url: str, deploy: Deploy, wire: Wire
) -> None:
    clear_and_push_images(url, wire, deploy)
    fake.refusing_pools.add("CreateEndpoint")
    assert deploy("up") == 0
    whole = fake.snapshot()
    refused = wire.changes().index("sagemaker:CreateEndpoint")

    for count in (refused + 1, refused + 3):
        clear_and_push_images(url, wire, deploy)
        fake.refusing_pools.add("CreateEndpoint")
        wire.kill_after = count
        with pytest.raises(KilledError):
            deploy("up")
        wire.kill_after = None
        assert deploy("up") == 0
        assert fake.snapshot() == whole, f"killed after {count} changes and run again"


@pytest.mark.parametrize("home", ["user", "fargate"])
def test_down_killed_after_any_change_and_run_again_leaves_nothing(
    home: str, url: str, deploy: Deploy, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELEGRAM_TOKEN", TOKEN)
    empty = fake.snapshot()
    for count in range(1, 100):
        clear_and_push_images(url, wire, deploy)
        assert deploy("up", "--bot", home, *NOTIFY) == 0
        wire.changes_made = 0
        wire.kill_after = 16 * count
        try:
            assert deploy("down", "--purge", "--yes") == 0
            break
        except KilledError:
            wire.kill_after = None
        assert deploy("down", "--purge", "--yes") == 0
        assert fake.snapshot() == empty, f"killed after {16 * count} changes"

    assert count > 2
    assert fake.snapshot() == empty
