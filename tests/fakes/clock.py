"""A clock for aws/ that does not wait."""

import threading

from aws.clock import Clock


class Ticks(threading.local):
    """Seconds that pass only while somebody sleeps; each thread has its own."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def fake_clock() -> Clock:
    ticks = Ticks()
    return Clock(monotonic=ticks.monotonic, sleep=ticks.sleep)
