"""The queue in front of the model, without HTTP and without waiting."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from containers.common.errors import ErrorCode, FatalError
from containers.serving.errors import ApiError, ClientGoneError
from containers.serving.job_queue import JobQueue
from tests.fakes.servers import wait_until

# The client of these jobs waits for the result.
STAYS = threading.Event()


def test_one_more_than_the_limit_is_admitted_and_the_next_is_told_when_to_come() -> None:
    queue = JobQueue(limit=2)
    with ExitStack() as places:
        for _ in range(3):
            places.enter_context(queue.admission(seconds_each=7.0))
        with pytest.raises(ApiError) as refused, queue.admission(seconds_each=7.0):
            pass
        assert refused.value.code is ErrorCode.QUEUE_FULL
        assert refused.value.retry_after == 21
        assert "3 pictures" in refused.value.message
    with queue.admission(seconds_each=7.0):
        assert queue.admitted == 1
    assert queue.admitted == 0


def test_a_place_is_given_back_after_an_error() -> None:
    queue = JobQueue(limit=0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), queue.admission(1.0):
            queue.run(lambda: 1 // 0, STAYS)
    assert queue.admitted == 0


def test_jobs_run_in_order_in_one_thread() -> None:
    queue = JobQueue(limit=8)
    threads = {queue.run(threading.get_ident, STAYS) for _ in range(5)}
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_a_stop_lets_the_running_job_end_and_sends_the_others_away() -> None:
    queue = JobQueue(limit=8)
    running = threading.Event()
    may_end = threading.Event()

    def work_until_stopped() -> str:
        running.set()
        assert queue.stopping.wait(30)
        assert may_end.wait(30)
        return "the best picture so far"

    with ThreadPoolExecutor(2) as clients:
        first = clients.submit(queue.run, work_until_stopped, STAYS)
        assert running.wait(30)
        # The only worker is taken, so this one waits in the queue
        waiting = queue.worker.submit(lambda: "never")
        queue.stop()
        wait_until(waiting.cancelled, 30, "the waiting job was not cancelled")
        may_end.set()
        assert first.result(30) == "the best picture so far"

    with pytest.raises(ApiError) as refused, queue.admission(1.0):
        pass
    assert refused.value.code is ErrorCode.STOPPING
    with pytest.raises(ApiError) as refused:
        queue.run(lambda: "too late", STAYS)
    assert refused.value.code is ErrorCode.STOPPING


def test_a_job_whose_client_leaves_gives_up_its_place_and_the_others_keep_theirs() -> None:
    queue = JobQueue(limit=8)
    first_may_end = threading.Event()
    leaves = threading.Event()
    done: list[str] = []

    with ThreadPoolExecutor(3) as clients:
        first = clients.submit(queue.run, lambda: first_may_end.wait(30), STAYS)
        wait_until(first.running, 30, "it did not begin")
        impatient = clients.submit(queue.run, lambda: done.append("impatient"), leaves)
        patient = clients.submit(queue.run, lambda: done.append("patient"), STAYS)
        leaves.set()
        assert isinstance(impatient.exception(30), ClientGoneError)
        assert not patient.done()
        first_may_end.set()
        assert first.result(30)
        patient.result(30)
    assert done == ["patient"]


def test_the_result_of_a_running_job_whose_client_leaves_is_dropped() -> None:
    queue = JobQueue(limit=8)
    leaves = threading.Event()

    def work() -> str:
        leaves.set()
        return "the best picture so far"

    with pytest.raises(ClientGoneError):
        queue.run(work, leaves)
    assert queue.run(lambda: "the next", STAYS) == "the next"


def test_an_error_of_a_job_is_told_even_if_its_client_has_left() -> None:
    queue = JobQueue(limit=8)
    leaves = threading.Event()

    def work() -> None:
        leaves.set()
        raise FatalError("CUDA error")

    with pytest.raises(FatalError):
        queue.run(work, leaves)
