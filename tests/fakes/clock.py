"""A clock for aws/ that does not wait."""

import threading

from aws.clock import Clock


class Ticks:
    """Seconds that pass only while somebody sleeps."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        # Guarded by lock
        self.seconds = 0.0

    def monotonic(self) -> float:
        with self.lock:
            return self.seconds

    def sleep(self, seconds: float) -> None:
        with self.lock:
            self.seconds += seconds


def fake_clock() -> Clock:
    ticks = Ticks()
    return Clock(monotonic=ticks.monotonic, sleep=ticks.sleep)
