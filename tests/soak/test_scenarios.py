"""Seeded scenarios in which everything around the bot fails: tests/fakes/scenarios.py plays them.

`python -m tests.fakes.scenarios --count 200` plays more of them.
"""

import pytest

import bot
from tests.fakes.scenarios import play, play_all

SCENARIOS = 4
# Of the requests whose picture came. Telegram cannot be asked whether a message arrived whose
# answer was lost, and here a fifth of them is lost for minutes.
MOST_TWICE = 0.03


def test_nothing_is_lost_whatever_fails() -> None:
    verdict = play_all(range(1, 1 + SCENARIOS))
    assert verdict.accepted
    assert not verdict.broken(), verdict
    assert verdict.twice <= MOST_TWICE * (verdict.once + verdict.twice)


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

    def deliver_all_the_same(runner: bot.JobRunner, job: bot.PaintJob, chat: bot.Chat) -> None:
        picture = f"painted {job.request.content.file_id}".encode()
        runner.telegram.call(
            "sendPhoto",
            files={"photo": ("a.jpg", picture)},
            chat_id=job.chat,
            reply_markup=bot.job_buttons("en", job.id, [["retry"]]),
        )
        clean_up(runner, job, chat)

    monkeypatch.setattr(bot.JobRunner, "clean_up", deliver_all_the_same)
    _, verdict = play(1)
    assert verdict.delivered_after_cancel
