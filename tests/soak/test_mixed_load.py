"""What a model server holds at rest does not grow with the requests that it has answered.

`python -m tests.fakes.load --minutes 120` is the longer form.
"""

from tests.fakes import load

SECONDS = 24.0
ROUNDS = 3
# Freed memory stays with the allocator for the next requests, up to a bound
MORE_MEGABYTES = 40
# The pools of threads may still begin some
MORE_THREADS = 24
MORE_FILES = 10
EXPECTED = {"200", "bad_request", "object_not_found", "image_unreadable", "queue_full"}
EXPECTED |= {"unsupported_media_type"}


def test_memory_threads_and_files_stay_the_same() -> None:
    held, statuses = load.measure(SECONDS, ROUNDS)
    first, last = held[0], held[-1]
    assert last.memory <= first.memory + MORE_MEGABYTES, held
    assert last.threads <= first.threads + MORE_THREADS, held
    assert last.files <= first.files + MORE_FILES, held
    assert set(statuses) <= EXPECTED, statuses
    assert statuses["200"] > 10, statuses
