"""Trainings of painters in the test's own process."""

from collections.abc import Callable

from containers.cyclegan.training.options import Options
from containers.cyclegan.training.painter import read_sources, train_painter


def run(options: Options, is_stopped: Callable[[], bool] = lambda: False) -> bool:
    """Train a painter, and return whether it is finished."""
    sources = read_sources(options)
    return train_painter(options, sources, lambda *_: None, lambda _: None, is_stopped)


def stop_after(steps: int) -> Callable[[], bool]:
    """Return a function that says "stop" when it is asked before step `steps` + 1."""
    asked = 0

    def is_stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > steps

    return is_stopped
