"""Endpoints: a model server's health; and, if asynchronous, its queue, workers and scaling."""

from __future__ import annotations

import io
import json
import logging
import random
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypedDict

from sagemaker_local.container import (
    ContainerResponse,
    DisconnectedError,
    UnreachableError,
    describe_error,
    describe_model_error,
    find_problem,
)
from sagemaker_local.errors import ApiError, not_found, unavailable, validation_error
from sagemaker_local.instances import Instance, InstanceError
from sagemaker_local.names import ACCOUNT, REGION
from sagemaker_local.notifications import (
    ERROR,
    RESPONSE_BYTES,
    SUCCESS,
    Notification,
    NotificationSettings,
    Notifier,
    decode_response,
    timestamp,
)
from sagemaker_local.queue import Answer, AsyncRequest, RequestQueue

# The limit of the body of a real-time call, and of its answer.
PAYLOAD_BYTES = 6291456
REALTIME_SECONDS = 60
# So much of a model's error is in the answer of a real-time call.
MESSAGE_BYTES = 1800
PING_INTERVAL = 1.0
# A new call waits this long for a healthy server.
START_SECONDS = 2.0
# A model server that dies this often over one request makes the request a failure.
ATTEMPTS = 3

log = logging.getLogger("sagemaker")


class EndpointDescription(TypedDict):
    EndpointStatus: str
    DesiredInstanceCount: int
    ApproximateBacklogSize: int


class Variant:
    """A production variant: one instance, and whether it is healthy."""

    def __init__(self, name: str, instance: Instance, weight: float = 1.0) -> None:
        self.name = name
        self.instance = instance
        # Its share of the calls, beside those of the other variants.
        self.weight = weight
        # The next three are guarded by the endpoint's `changed`.
        self.in_service = False
        self.problem = "GET /ping was not asked yet"
        # The number of requests that the instance has.
        self.running = 0
        # False while the instance is not meant to run.
        self.is_started = False

    def start(self) -> None:
        """Start the instance. Raises InstanceError."""
        self.instance.start()
        self.is_started = True

    def stop(self) -> None:
        """Stop the instance."""
        self.is_started = False
        self.instance.stop()


class Endpoint:
    """One or more variants, whose health is checked by a thread."""

    def __init__(
        self, name: str, variants: Sequence[Variant], ping_interval: float = PING_INTERVAL
    ) -> None:
        self.name = name
        self.ping_interval = ping_interval
        # Notified when something changes that it guards.
        self.changed = threading.Condition()
        self.variants = list(variants)  # guarded by changed
        self.closed = False  # guarded by changed

    def start(self) -> None:
        """Start the threads. The instances have been started."""
        self.start_thread(self.watch_health)

    def start_thread(self, task: Callable[[], None]) -> None:
        threading.Thread(target=task, daemon=True).start()

    def close(self) -> None:
        """End the threads. The instances are not stopped."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def replace_variants(self, variants: Sequence[Variant]) -> list[Variant]:
        """Send the next requests to other variants. Return those that were there before."""
        with self.changed:
            before = self.variants
            self.variants = list(variants)
            self.changed.notify_all()
        return before

    def watch_health(self) -> None:
        while not self.closed:
            self.check_health()
            time.sleep(self.ping_interval)

    def check_health(self) -> None:
        with self.changed:
            variants = self.variants
        for variant in variants:
            self.check_variant(variant)

    def check_variant(self, variant: Variant) -> None:
        problem = variant.instance.container.find_ping_problem()
        with self.changed:
            self.set_health(variant, problem)
        if problem and variant.is_started and variant.instance.has_exited():
            log.warning(
                "%s: the container of %s has ended, and is started again. Its last lines:\n%s",
                self.name,
                variant.name,
                variant.instance.last_lines(),
            )
            self.restart(variant)

    def restart(self, variant: Variant) -> None:
        """Start the instance of a variant again, which has ended or was stopped."""
        try:
            variant.start()
        except InstanceError as error:
            log.warning("%s: %s", self.name, error)
            with self.changed:
                variant.problem = str(error)

    def set_health(self, variant: Variant, problem: str) -> None:
        """To be called with `changed` held."""
        if variant.in_service and problem:
            log.info("%s: %s is out of service: %s", self.name, variant.name, problem)
        if not variant.in_service and not problem:
            log.info("%s: %s is in service", self.name, variant.name)
        variant.in_service = not problem
        variant.problem = problem
        self.changed.notify_all()

    @property
    def in_service(self) -> bool:
        """Whether each variant is healthy. To be read with `changed` held."""
        return all(variant.in_service for variant in self.variants)

    def wait_until_idle(self, variants: Sequence[Variant], seconds: float) -> None:
        """Wait until these variants have no requests any more, but no longer than `seconds`."""

        def is_idle() -> bool:
            return not any(variant.running for variant in variants)

        with self.changed:
            self.changed.wait_for(is_idle, seconds)

    def describe(self) -> EndpointDescription:
        with self.changed:
            status = "OutOfService"
            if self.in_service:
                status = "InService"
            return {
                "EndpointStatus": status,
                "DesiredInstanceCount": self.desired_instances(),
                "ApproximateBacklogSize": self.backlog(),
            }

    def desired_instances(self) -> int:
        """Return the number of instances of each variant. To be called with `changed` held."""
        return 1

    def backlog(self) -> int:
        """Return the number of requests that have not ended. To be called with `changed` held."""
        return 0


# ------------------------------------------------------------ real-time


@dataclass
class RealtimeAnswer:
    data: bytes
    # The headers of the model server's answer.
    headers: Mapping[str, str]
    # The name of the variant that gave it.
    variant: str


class RealtimeEndpoint(Endpoint):
    """An endpoint whose caller waits for the answer."""

    def invoke(
        self, body: bytes, headers: Mapping[str, str], target: str | None = None
    ) -> RealtimeAnswer:
        """Return the model's answer.

        target: the name of the variant that shall answer; None: one by the weights.
        Raises ApiError: ValidationError where there is no such variant, ServiceUnavailable where no
        server takes the call, ModelError for all that the model does wrong.
        """
        variant = self.take_variant(target)
        try:
            return self.invoke_variant(variant, body, headers)
        finally:
            with self.changed:
                variant.running -= 1
                self.changed.notify_all()

    def take_variant(self, target: str | None) -> Variant:
        """Return the variant for one call, which is counted. Raises ApiError."""
        with self.changed:
            self.changed.wait_for(lambda: self.find_candidates(target), START_SECONDS)
            candidates = self.find_candidates(target)
            if not candidates:
                raise unavailable(f"Endpoint {self.name} has no instance in service: /ping fails.")
            weights = [variant.weight for variant in candidates]
            if target or not any(weights):
                weights = [1.0] * len(candidates)
            variant = random.choices(candidates, weights)[0]
            variant.running += 1
            return variant

    def find_candidates(self, target: str | None) -> list[Variant]:
        """Return the healthy variants that may answer. To be called with `changed` held."""
        names = [variant.name for variant in self.variants]
        if target and target not in names:
            raise validation_error(f"Endpoint {self.name} has no variant {target}.")
        healthy = [variant for variant in self.variants if variant.in_service]
        if target:
            return [variant for variant in healthy if variant.name == target]
        return healthy

    def invoke_variant(
        self, variant: Variant, body: bytes, headers: Mapping[str, str]
    ) -> RealtimeAnswer:
        try:
            response = variant.instance.container.invoke(body, headers, REALTIME_SECONDS)
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
        return RealtimeAnswer(data, response.headers, variant.name)

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


@dataclass(frozen=True)
class AsyncSettings:
    """What an endpoint configuration says of asynchronous inference.

    output_path, failure_path: s3:// URLs. workers: the number of requests that the instance gets at
    the same time. idle_seconds: after so long without a request no instance is wanted; 0: one is
    always wanted.
    """

    output_path: str
    failure_path: str
    workers: int = 1
    idle_seconds: float = 0
    notifications: NotificationSettings = field(default_factory=NotificationSettings)


class AsyncEndpoint(Endpoint):
    """An endpoint with one variant and a queue in S3.

    Each of its workers is a thread that runs one request after the other.
    """

    def __init__(
        self,
        name: str,
        variant: Variant,
        queue: RequestQueue,
        notifier: Notifier,
        settings: AsyncSettings,
        ping_interval: float = PING_INTERVAL,
    ) -> None:
        super().__init__(name, [variant], ping_interval)
        self.queue = queue
        self.notifier = notifier
        self.settings = settings  # guarded by changed
        self.waiting: deque[AsyncRequest] = deque()  # guarded by changed
        # The number of requests that instances have, and that of workers.
        self.running = 0  # guarded by changed
        self.workers = 0  # guarded by changed
        # False while the endpoint is scaled to zero.
        self.is_awake = True  # guarded by changed
        # time.monotonic() when a request last came or ended, and until when nothing is sent.
        self.used_at = time.monotonic()  # guarded by changed
        self.rests_until = 0.0  # guarded by changed

    def load(self, buckets: Collection[str]) -> None:
        """Load the requests that an earlier process did not finish.

        buckets: those in which their answers may be.
        """
        unfinished = self.queue.load(self.name, buckets, self.notify)
        if unfinished:
            log.info("%s: %d requests of an earlier run wait", self.name, len(unfinished))
        with self.changed:
            self.waiting.extendleft(reversed(unfinished))
            self.changed.notify_all()

    def start(self) -> None:
        super().start()
        self.start_workers()

    def start_workers(self) -> None:
        with self.changed:
            missing = self.settings.workers - self.workers
            self.workers += max(0, missing)
        for _ in range(missing):
            self.start_thread(self.work)

    def change(self, settings: AsyncSettings) -> None:
        """Go on with other settings, and with the instance that was just started."""
        with self.changed:
            self.settings = settings
            self.is_awake = True
            self.used_at = time.monotonic()
            self.changed.notify_all()
        self.start_workers()

    def check_health(self) -> None:
        self.scale()
        with self.changed:
            is_wanted = self.is_awake and time.monotonic() > self.rests_until
        if is_wanted:
            super().check_health()
        self.end_expired_requests()

    def scale(self) -> None:
        """Stop the instance where it has been idle for too long. Start it where there is work."""
        with self.changed:
            shall_be_awake = not self.is_idle()
            if shall_be_awake == self.is_awake:
                return
            self.is_awake = shall_be_awake
            variant = self.variants[0]
            variant.in_service = False
            variant.problem = "The instance is not started yet."
            if shall_be_awake:
                self.rests_until = time.monotonic() + variant.instance.rest_seconds
        if not shall_be_awake:
            log.info("%s: idle, and scaled to zero instances", self.name)
            variant.stop()
            return
        log.info("%s: woken by a request", self.name)
        self.restart(variant)

    def desired_instances(self) -> int:
        if self.is_awake or self.backlog():
            return 1
        return 0

    def backlog(self) -> int:
        return len(self.waiting) + self.running

    def end_expired_requests(self) -> None:
        with self.changed:
            expired = [request for request in self.waiting if request.has_expired()]
            for request in expired:
                self.waiting.remove(request)
        for request in expired:
            reason = f"The request expired: it waited for more than {request.ttl} seconds."
            self.fail(request, reason)

    def is_idle(self) -> bool:
        """To be called with `changed` held."""
        if not self.settings.idle_seconds or self.backlog():
            return False
        return time.monotonic() > self.used_at + self.settings.idle_seconds

    def accept(self, request: AsyncRequest) -> None:
        """Put the request into the queue. Raises ApiError where S3 fails."""
        self.queue.add(self.name, request)
        with self.changed:
            is_deleted = self.closed
            if not is_deleted:
                self.waiting.append(request)
                self.used_at = time.monotonic()
                self.changed.notify_all()
        if is_deleted:
            self.queue.remove(self.name, request)
            raise not_found(self.name)

    def work(self) -> None:
        while taken := self.next_request():
            self.process(*taken)

    def next_request(self) -> tuple[Variant, AsyncRequest] | None:
        """Wait for a request and a healthy instance, and return both. Return None in the end."""
        with self.changed:
            self.changed.wait_for(self.can_go_on)
            if self.closed:
                return None
            self.running += 1
            variant = self.variants[0]
            variant.running += 1
            return variant, self.waiting.popleft()

    def can_go_on(self) -> bool:
        """To be called with `changed` held."""
        if self.closed:
            return True
        has_room = self.running < self.settings.workers
        return bool(self.waiting) and self.in_service and has_room

    def process(self, variant: Variant, request: AsyncRequest) -> None:
        """Run the request. If it has to be run again, put it back at the head of the queue."""
        has_ended = False
        try:
            has_ended = self.run(variant, request)
        except Exception:
            # A fault of our own must not stop the worker.
            log.exception("%s: %s", self.name, request.id)
            self.fail(request, "The request failed because of an internal failure.")
            has_ended = True
        finally:
            with self.changed:
                self.running -= 1
                variant.running -= 1
                self.used_at = time.monotonic()
                if not has_ended:
                    self.waiting.appendleft(request)
                    # Until the next ping says otherwise.
                    variant.in_service = False
                self.changed.notify_all()

    def run(self, variant: Variant, request: AsyncRequest) -> bool:
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
                response = variant.instance.container.invoke(body, request.headers, request.timeout)
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
        content_type = response.headers.get("Content-Type", "application/octet-stream")
        answer = Answer(response.body, content_type, response.is_error())
        if response.is_error():
            answer.reason = describe_model_error(response.status)
        self.finish(request, answer)
        return True

    def fail(self, request: AsyncRequest, reason: str) -> bool:
        """Write `reason` as the request's failure. Return True: it has ended."""
        log.warning("%s: %s: %s", self.name, request.id, reason)
        self.finish(request, Answer(io.BytesIO(reason.encode()), "text/plain", True, reason))
        return True

    def finish(self, request: AsyncRequest, answer: Answer) -> None:
        """Write the answer, tell who wants to know, and take the request out of the queue."""
        with self.changed:
            is_deleted = self.closed
        if is_deleted:
            return
        self.queue.write_answer(request, answer)
        self.notify(request, answer)
        self.queue.remove(self.name, request)

    def notify(self, request: AsyncRequest, answer: Answer) -> None:
        """Tell the topic of the endpoint's configuration, if it has one, that a request ended."""
        with self.changed:
            settings = self.settings.notifications
        topic = settings.success_topic
        kind = SUCCESS
        if answer.is_failure:
            topic = settings.error_topic
            kind = ERROR
        if not topic:
            return
        message = create_message(self.name, request, answer)
        if kind in settings.with_response:
            data = answer.body.read(RESPONSE_BYTES + 1)
            if len(data) <= RESPONSE_BYTES:
                message["responseBody"] = {"content": decode_response(data)}
        self.notifier.add(Notification(request.id, topic, json.dumps(message)))


def create_message(endpoint: str, request: AsyncRequest, answer: Answer) -> dict[str, object]:
    """Return SageMaker's notification of the end of a request."""
    parameters = {"endpointName": endpoint}
    for name, value in (
        ("accept", request.headers.get("Accept", "")),
        ("contentType", request.headers.get("Content-Type", "")),
        ("inputLocation", request.input),
    ):
        if value:
            parameters[name] = value
    message: dict[str, object] = {
        "awsRegion": REGION,
        "eventTime": timestamp(time.time()),
        "receivedTime": timestamp(request.accepted),
        "invocationStatus": "Completed",
        "requestParameters": parameters,
        "responseParameters": {
            "contentType": answer.content_type,
            "outputLocation": request.output,
        },
        "inferenceId": request.headers.get("X-Amzn-SageMaker-Inference-Id", request.id),
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }
    if answer.is_failure:
        message["invocationStatus"] = "Failed"
        message["failureReason"] = answer.reason
        message["responseParameters"] = {
            "contentType": answer.content_type,
            "outputLocation": request.failure,
        }
    return message
