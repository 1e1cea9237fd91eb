"""The bot's invariants as a state machine: hypothesis does anything in any order, and shrinks it.

`python -m tests.fakes.state_machine --steps 100000` takes so many steps.
"""

from __future__ import annotations

import argparse
import logging
import time
from contextlib import ExitStack

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.fakes.scenarios import FAULTS, User, World, judge, simulated_time

PEOPLE = 3
STEPS_A_RUN = 50
# At the end of a run, in which everything accepted must arrive. A bot finds what another one with
# its token has left when it lists all jobs again, minutes later.
CALM_SECONDS = 900.0

people = st.integers(0, PEOPLE - 1)


class BotMachine(RuleBasedStateMachine):
    """People, faults and time, in any order. The end of each run is peaceful."""

    steps = 0  # over all runs

    def __init__(self) -> None:
        super().__init__()
        self.resources = ExitStack()

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.world = World(seed)
        self.world.users = self.world.users[:PEOPLE]
        self.resources.enter_context(simulated_time(self.world))
        self.world.start_bot()
        self.world.own.at(0.5, self.world.work)

    def user(self, number: int) -> User:
        BotMachine.steps += 1
        return self.world.users[number]

    @rule(number=people)
    def send_photo(self, number: int) -> None:
        self.user(number).send_photo()

    @rule(number=people, which=st.integers(0, 3))
    def press(self, number: int, which: int) -> None:
        """Press one of the newest buttons, which may be that of an old message."""
        user = self.user(number)
        user.note()
        buttons = [data for shown in user.chat() for data in shown.buttons]
        verbs = ("style:", "paint:", "another:")
        pressable = [data for data in buttons if data.startswith(verbs)]
        if pressable:
            user.press(pressable[-1 - which % len(pressable)])

    @rule(number=people)
    def cancel(self, number: int) -> None:
        user = self.user(number)
        user.note()
        if user.cancelling:
            return
        buttons = [data for shown in user.chat() for data in shown.buttons]
        cancels = [data for data in buttons if data.startswith("cancel:")]
        if cancels:
            user.cancelling = cancels[-1].removeprefix("cancel:")
            user.press(cancels[-1])

    @rule(fault=st.sampled_from(sorted(FAULTS)))
    def strike(self, fault: str) -> None:
        BotMachine.steps += 1
        self.world.strike(fault)

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 20.0, 60.0]))
    def let_time_pass(self, seconds: float) -> None:
        BotMachine.steps += 1
        self.world.run(self.world.clock.now + seconds)
        for user in self.world.users:
            user.note()

    @precondition(lambda self: len(self.world.processes) > 1)
    @rule()
    def kill_one_of_two(self) -> None:
        BotMachine.steps += 1
        self.world.stop_second(self.world.processes[0])

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        with self.resources:
            self.world.end_faults()
            self.world.run(self.world.clock.now + CALM_SECONDS)
            for user in self.world.users:
                user.note()
                user.write("/cancel")  # a photograph that waits for its style
            self.world.run(self.world.clock.now + 10)
            for user in self.world.users:
                user.send_photo()
            self.world.run(self.world.clock.now + 10)
            for user in self.world.users:
                user.press_style()
            self.world.run(self.world.clock.now + 10)
            for user in self.world.users:
                if user.state == "styles sent":
                    user.press_paint()
            self.world.run(self.world.clock.now + 100)
            verdict = judge(self.world)
        assert not verdict.broken(), verdict


def run(runs: int) -> None:
    """Let hypothesis take up to `runs` times STEPS_A_RUN steps. Raises what a run raises."""
    chosen = settings(
        max_examples=runs,
        stateful_step_count=STEPS_A_RUN,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(BotMachine, settings=chosen)  # type: ignore[no-untyped-call]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.state_machine")
    parser.add_argument("--steps", type=int, default=100_000, help="how many steps to take")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    started = time.monotonic()
    while BotMachine.steps < arguments.steps:
        run(20)
        seconds = time.monotonic() - started
        print(f"{BotMachine.steps} steps in {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
