"""Endpoints: a model server's health; and, if asynchronous, its queue, workers and scaling."""

from __future__ import annotations

import io
import logging
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypedDict

from local.sagemaker.container import (
    Container,
    ContainerResponse,
    DisconnectedError,
    UnreachableError,
    describe_error,
    find_problem,
)
from local.sagemaker.errors import ApiError, unavailable
from local.sagemaker.queue import AsyncRequest, RequestQueue

ACCOUNT = "000000000000"
# The limit of the body of a real-time call, and of its answer.
PAYLOAD_BYTES = 6291456
REALTIME_SECONDS = 60
# So much of a model's error is in the answer of a real-time call.
MESSAGE_BYTES = 1800
PING_INTERVAL = 1.0
# A new call waits this long for a healthy server.
START_SECONDS = 2.0
# After describe() wanted no instance, nothing is sent to the server for this long.
REST_SECONDS = 5.0
# A model server that dies this often over one request makes the request a failure.
ATTEMPTS = 3

log = logging.getLogger("sagemaker")


class EndpointDescription(TypedDict):
    EndpointStatus: str
    DesiredInstanceCount: int
    ApproximateBacklogSize: int


class Endpoint:
    """A model server, whose health is checked by a thread."""

    def __init__(
        self, name: str, container: Container, ping_interval: float = PING_INTERVAL
    ) -> None:
        self.name = name
        self.container = container
        self.ping_interval = ping_interval
        # Notified when something changes that it guards.
        self.changed = threading.Condition()
        self.in_service = False  # guarded by changed

    def start(self) -> None:
        self.start_thread(self.watch_health)

    def start_thread(self, task: Callable[[], None]) -> None:
        threading.Thread(target=task, daemon=True).start()

    def watch_health(self) -> None:
        while True:
            self.check_health()
            time.sleep(self.ping_interval)

    def check_health(self) -> None:
        is_healthy = self.container.ping()
        with self.changed:
            self.set_in_service(is_healthy)

    def set_in_service(self, in_service: bool) -> None:
        """To be called with `changed` held."""
        if in_service and not self.in_service:
            log.info("%s: in service", self.name)
        if self.in_service and not in_service:
            log.info("%s: out of service: /ping fails", self.name)
        self.in_service = in_service
        self.changed.notify_all()

    def wait_until_in_service(self, seconds: float) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.in_service, seconds)

    def describe(self) -> EndpointDescription:
        with self.changed:
            return self.description(instances=1, backlog=0)

    def description(self, instances: int, backlog: int) -> EndpointDescription:
        """To be called with `changed` held."""
        status = "OutOfService"
        if self.in_service:
            status = "InService"
        return {
            "EndpointStatus": status,
            "DesiredInstanceCount": instances,
            "ApproximateBacklogSize": backlog,
        }


# ------------------------------------------------------------ real-time


@dataclass
class RealtimeAnswer:
    data: bytes
    # The headers of the model server's answer.
    headers: Mapping[str, str]


class RealtimeEndpoint(Endpoint):
    """An endpoint whose caller waits for the answer."""

    def invoke(self, body: bytes, headers: Mapping[str, str]) -> RealtimeAnswer:
        """Return the model's answer.

        Raises ApiError: ServiceUnavailable where no server takes the call, ModelError for all that
        the model does wrong.
        """
        if not self.wait_until_in_service(START_SECONDS):
            raise unavailable(f"Endpoint {self.name} has no instance in service: /ping fails.")
        try:
            response = self.container.invoke(body, headers, REALTIME_SECONDS)
        except UnreachableError:
            raise unavailable(f"Endpoint {self.name} takes no connections.") from None
        except DisconnectedError:
            message = "The container broke off before its response was complete."
            raise self.model_error(0, message) from None
        except TimeoutError:
            message = (
                "Your invocation timed out while waiting for a response from container primary."
            )
            raise self.model_error(0, message) from None

        with response.body:
            data = response.body.read(PAYLOAD_BYTES + 1)
        if response.is_error():
            message = data[:MESSAGE_BYTES].decode(errors="replace")
            raise self.model_error(response.status, message)
        if len(data) > PAYLOAD_BYTES:
            raise self.model_error(0, f"The response has more than {PAYLOAD_BYTES} bytes.")
        return RealtimeAnswer(data, response.headers)

    def model_error(self, status: int, message: str) -> ApiError:
        """`status` is the model's, and 0 where it gave no answer that can be used."""
        log_group = f"/aws/sagemaker/Endpoints/{self.name}"
        return ApiError(
            HTTPStatus.FAILED_DEPENDENCY,
            "ModelError",
            describe_error(status, message),
            OriginalStatusCode=status,
            OriginalMessage=message,
            LogStreamArn=f"arn:aws:logs:local:{ACCOUNT}:log-group:{log_group}",
        )


# ------------------------------------------------------------ asynchronous


@dataclass
class AsyncLimits:
    # The number of requests that the model server gets at the same time.
    workers: int = 1
    # After so long without a request no server is wanted; 0: it is always wanted.
    idle_seconds: float = 0


class AsyncEndpoint(Endpoint):
    """An endpoint with a queue in S3.

    Each of its workers is a thread that runs one request after the other.
    """

    def __init__(
        self,
        name: str,
        container: Container,
        queue: RequestQueue,
        limits: AsyncLimits,
        ping_interval: float = PING_INTERVAL,
    ) -> None:
        """Load the requests that an earlier process did not finish."""
        super().__init__(name, container, ping_interval)
        self.queue = queue
        self.limits = limits
        self.waiting = deque(queue.load(name))  # guarded by changed
        # The number of requests that the model server has.
        self.running = 0  # guarded by changed
        # time.monotonic() when a request last came or ended, and until when nothing is sent.
        self.used_at = time.monotonic()  # guarded by changed
        self.rests_until = 0.0  # guarded by changed
        if self.waiting:
            log.info("%s: %d requests of an earlier run are in the queue", name, len(self.waiting))

    def start(self) -> None:
        super().start()
        for _ in range(self.limits.workers):
            self.start_thread(self.work)

    def check_health(self) -> None:
        is_healthy = self.container.ping()
        with self.changed:
            rests = time.monotonic() <= self.rests_until
            self.set_in_service(is_healthy and not rests)
        self.end_expired_requests()

    def end_expired_requests(self) -> None:
        with self.changed:
            expired = [request for request in self.waiting if request.has_expired()]
            for request in expired:
                self.waiting.remove(request)
        for request in expired:
            reason = f"The request expired: it waited for more than {request.ttl} seconds."
            self.fail(request, reason)

    def describe(self) -> EndpointDescription:
        """Return the state. After it said that no instance is wanted, the server may be stopped."""
        with self.changed:
            backlog = len(self.waiting) + self.running
            if backlog or not self.is_idle():
                return self.description(1, backlog)
            self.rests_until = time.monotonic() + REST_SECONDS
            self.in_service = False
            return self.description(0, backlog)

    def is_idle(self) -> bool:
        """To be called with `changed` held."""
        if not self.limits.idle_seconds:
            return False
        return time.monotonic() > self.used_at + self.limits.idle_seconds

    def accept(self, request: AsyncRequest) -> None:
        """Put the request into the queue. Raises ApiError where S3 fails."""
        self.queue.add(self.name, request)
        with self.changed:
            self.waiting.append(request)
            self.used_at = time.monotonic()
            self.changed.notify_all()

    def work(self) -> None:
        while True:
            self.process(self.next_request())

    def next_request(self) -> AsyncRequest:
        """Wait until there is a request and the model server is healthy. Return the request."""
        with self.changed:
            self.changed.wait_for(lambda: self.in_service and self.waiting)
            self.running += 1
            return self.waiting.popleft()

    def process(self, request: AsyncRequest) -> None:
        """Run the request. If it has to be run again, put it back at the head of the queue."""
        has_ended = False
        try:
            has_ended = self.run(request)
        except Exception:
            # A fault of our own must not stop the worker.
            log.exception("%s: %s", self.name, request.id)
            self.fail(request, "The request failed because of an internal failure.")
            has_ended = True
        finally:
            with self.changed:
                self.running -= 1
                self.used_at = time.monotonic()
                if not has_ended:
                    self.waiting.appendleft(request)
                    # Until the next ping says otherwise.
                    self.in_service = False

    def run(self, request: AsyncRequest) -> bool:
        """Send the request to the model server and store the answer.

        Return False where the server is gone, so that the request has to be sent again once it is
        back.
        """
        with tempfile.TemporaryFile() as body:
            problem = self.queue.read_input(request, body)
            if problem:
                return self.fail(request, problem)

            started = time.monotonic()
            try:
                response = self.container.invoke(body, request.headers, request.timeout)
            except UnreachableError:
                return False
            except DisconnectedError:
                return self.count_attempt(request)
            except TimeoutError:
                reason = f"The model gave no answer within {request.timeout} seconds."
                return self.fail(request, reason)

        seconds = time.monotonic() - started
        log.info("%s: %s %d in %.1f s", self.name, request.id, response.status, seconds)
        with response.body:
            return self.store(request, response)

    def count_attempt(self, request: AsyncRequest) -> bool:
        """Count an attempt over which the server died. Return True where it was the last."""
        request.attempts += 1
        log.warning("%s: the server broke off %s, try %d", self.name, request.id, request.attempts)
        if request.attempts < ATTEMPTS:
            return False
        return self.fail(request, f"The server died {ATTEMPTS} times over it.")

    def store(self, request: AsyncRequest, response: ContainerResponse) -> bool:
        """Write the answer as the request's output or failure. Return True: it has ended."""
        problem = find_problem(response)
        if problem:
            return self.fail(request, problem)
        url = request.output
        if response.is_error():
            url = request.failure
        content_type = response.headers.get("Content-Type", "application/octet-stream")
        self.queue.finish(self.name, request, url, response.body, content_type)
        return True

    def fail(self, request: AsyncRequest, reason: str) -> bool:
        """Write `reason` as the request's failure. Return True: it has ended."""
        log.warning("%s: %s: %s", self.name, request.id, reason)
        body = io.BytesIO(reason.encode())
        self.queue.finish(self.name, request, request.failure, body, "text/plain")
        return True
