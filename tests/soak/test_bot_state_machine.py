"""A short form of tests/fakes/state_machine.py, whose command takes as many steps as one likes."""

import pytest

import bot
from tests.fakes.state_machine import BotMachine, run


def test_the_invariants_hold_in_any_order_of_events() -> None:
    run(20)
    assert BotMachine.steps > 100


def test_a_planted_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bot.JobRunner, "deliver", lambda runner, job: None)
    with pytest.raises(AssertionError):
        run(20)
