"""Notifications of success and of error, in the envelope of SNS, at a URL."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from front_door import FrontDoor, running, wait_until
from model_server import ModelServer

ACCOUNT = "000000000000"
GOOD = f"arn:aws:sns:us-east-1:{ACCOUNT}:good"
BAD = f"arn:aws:sns:us-east-1:{ACCOUNT}:bad"
# What SNS posts, in its documentation of HTTP/HTTPS notification JSON format.
ENVELOPE = {
    "Type",
    "MessageId",
    "TopicArn",
    "Message",
    "Timestamp",
    "SignatureVersion",
    "Signature",
    "SigningCertURL",
    "UnsubscribeURL",
}


class Listener(ThreadingHTTPServer):
    """Keeps what is posted. Answers 500 to as many posts as `faults` says, then 200."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ListenerHandler)
        self.url = f"http://127.0.0.1:{self.server_port}/topic"
        self.lock = threading.Lock()
        self.posts: list[tuple[dict[str, str], dict[str, Any]]] = []  # guarded by lock
        self.faults = 0  # guarded by lock

    def messages(self, inference_id: str) -> list[dict[str, Any]]:
        """Return SageMaker's messages about a request."""
        with self.lock:
            found = [json.loads(envelope["Message"]) for _, envelope in self.posts]
        return [message for message in found if message["inferenceId"] == inference_id]


class ListenerHandler(BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status = 200
        with self.server.lock:
            if self.server.faults:
                self.server.faults -= 1
                status = 500
            else:
                self.server.posts.append((headers, json.loads(body)))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running_listener() -> Iterator[Listener]:
    with Listener() as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield listener
        listener.shutdown()


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    with running_listener() as found:
        yield found


@pytest.fixture(scope="module")
def door(
    model_server: ModelServer, listener: Listener, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FrontDoor]:
    topics = (f"--topic=good={listener.url}", f"--topic=bad={listener.url}")
    with running(tmp_path_factory.mktemp("door"), *topics) as found:
        found.wait_until_started()
        create_endpoint(found, model_server)
        yield found


def create_endpoint(door: FrontDoor, model_server: ModelServer) -> None:
    door.control.create_model(
        ModelName="model",
        PrimaryContainer={"Image": model_server.url},
        ExecutionRoleArn=f"arn:aws:iam::{ACCOUNT}:role/name",
    )
    variant = {
        "VariantName": "only",
        "ModelName": "model",
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
    }
    topics = {
        "SuccessTopic": GOOD,
        "ErrorTopic": BAD,
        "IncludeInferenceResponseIn": ["SUCCESS_NOTIFICATION_TOPIC", "ERROR_NOTIFICATION_TOPIC"],
    }
    output = {"S3OutputPath": "s3://sagemaker-local/noted", "NotificationConfig": topics}
    door.control.create_endpoint_config(
        EndpointConfigName="config",
        ProductionVariants=[variant],
        AsyncInferenceConfig={"OutputConfig": output},
    )
    door.control.create_endpoint(EndpointName="noted", EndpointConfigName="config")
    door.wait_until_serving("noted")


def wait_for_message(listener: Listener, inference_id: str, seconds: float = 30) -> dict[str, Any]:
    return wait_until(
        lambda: listener.messages(inference_id), seconds, f"no notification of {inference_id}"
    )[0]


def test_a_success_is_notified(door: FrontDoor, listener: Listener) -> None:
    accepted = door.ask("noted", {"n": 1}, InferenceId="success")
    message = wait_for_message(listener, "success")
    assert message["invocationStatus"] == "Completed"
    assert (message["eventSource"], message["eventName"]) == ("aws:sagemaker", "InferenceResult")
    assert message["awsRegion"] == "us-east-1"
    assert message["requestParameters"]["endpointName"] == "noted"
    assert message["responseParameters"]["outputLocation"] == accepted["OutputLocation"]
    # The answer is there when the notification comes.
    assert door.read(accepted["OutputLocation"]) == b'{"n": 1}'


def test_a_failure_is_notified(door: FrontDoor, listener: Listener) -> None:
    accepted = door.ask("noted", {"status": 400}, InferenceId="failure")
    message = wait_for_message(listener, "failure")
    assert message["invocationStatus"] == "Failed"
    assert message["failureReason"]
    assert door.read(accepted["FailureLocation"]) == b'{"status": 400}'


def test_the_envelope_is_that_of_sns(door: FrontDoor, listener: Listener) -> None:
    door.ask("noted", {}, InferenceId="envelope")
    wait_for_message(listener, "envelope")
    with listener.lock:
        headers, envelope = next(
            post for post in listener.posts if '"envelope"' in post[1]["Message"]
        )
    assert set(envelope) >= ENVELOPE
    assert (envelope["Type"], envelope["TopicArn"]) == ("Notification", GOOD)
    assert headers["x-amz-sns-message-type"] == "Notification"
    assert headers["x-amz-sns-message-id"] == envelope["MessageId"]
    assert headers["x-amz-sns-topic-arn"] == GOOD


def test_a_listener_that_fails_once_is_told_again(door: FrontDoor, listener: Listener) -> None:
    with listener.lock:
        listener.faults = 1
    door.ask("noted", {}, InferenceId="again")
    # SNS waits 20 seconds before it tries again.
    wait_for_message(listener, "again", seconds=60)


def test_every_request_is_notified_once(door: FrontDoor, listener: Listener) -> None:
    names = [f"many-{number}" for number in range(20)]
    for name in names:
        door.ask("noted", {}, InferenceId=name)
    for name in names:
        wait_for_message(listener, name)
    assert [len(listener.messages(name)) for name in names] == [1] * 20
