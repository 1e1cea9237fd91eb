"""Seeded scenarios in which everything around the bot fails: tests/fakes/scenarios.py plays them.

`pytest -s tests/soak/test_scenarios.py --scenarios 200` plays 200 and prints their figures, and
`--scenarios 1 --first-seed 10` one of them again.
"""

from collections.abc import Iterator

import pytest

import bot
from tests.fakes.scenarios import Verdict, play

# Of the requests whose picture came. Telegram cannot be asked whether a message arrived whose
# answer was lost, and here a fifth of them is lost for minutes.
MOST_TWICE = 0.03


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> Iterator[int]:
    first = request.config.getoption("--first-seed")
    return iter(range(first, first + request.config.getoption("--scenarios")))


def test_nothing_is_lost_whatever_fails(seeds: Iterator[int]) -> None:
    everything = Verdict()
    for seed in seeds:
        world, verdict = play(seed)
        print(f"seed {seed}: {verdict} {dict(world.happened)}", flush=True)
        assert not verdict.lost, f"seed {seed}: accepted, and no picture came"
        assert not verdict.failed, f"seed {seed}: accepted, and told to have failed"
        assert not verdict.delivered_after_cancel, f"seed {seed}: cancelled, and a picture came"
        assert not verdict.stuck, f"seed {seed}: chats that do not work in the end"
        everything.accepted += verdict.accepted
        everything.once += verdict.once
        everything.twice += verdict.twice
        everything.cancelled += verdict.cancelled
    print(f"all: {everything}")
    assert everything.accepted
    assert everything.twice <= MOST_TWICE * (everything.once + everything.twice)


def test_the_same_seed_gives_the_same_scenario() -> None:
    [first, second] = [play(3) for _ in range(2)]
    assert first[1] == second[1]
    assert first[0].happened == second[0].happened


def test_a_lost_picture_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bot.JobRunner, "deliver", lambda runner, job: None)
    _, verdict = play(1)
    assert verdict.lost


def test_a_picture_after_a_cancel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    clean_up = bot.JobRunner.clean_up

    def deliver_all_the_same(runner: bot.JobRunner, job: bot.PaintJob) -> None:
        picture = f"painted {job.request.content.file_id}".encode()
        runner.telegram.call("sendPhoto", files={"photo": ("a.jpg", picture)}, chat_id=job.chat)
        clean_up(runner, job)

    monkeypatch.setattr(bot.JobRunner, "clean_up", deliver_all_the_same)
    _, verdict = play(1)
    assert verdict.delivered_after_cancel
