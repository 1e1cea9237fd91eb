"""What the tests of ./deploy.py share."""

import contextlib
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import boto3
from botocore.awsrequest import AWSResponse

from aws.registry import IMAGES
from tests.fakes import aws as fake
from tests.fakes.servers import ROOT

# Whatever boto3 returns
Json = Any
BUCKET = fake.BUCKET
# A picture for a painter to learn from
STYLE = str(ROOT / "examples/styles/waves.jpg")
# What a token of @BotFather looks like
TOKEN = "123456789:AAE_not-a-real-token-but-like-one-1"
READING_OPERATIONS = ("Describe", "List", "Get", "Head", "BatchGet", "FilterLogEvents")


class Deploy(Protocol):
    """Runs ./deploy.py with these arguments in this process, and returns its exit code."""

    def __call__(self, *arguments: str) -> int: ...


class KilledError(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class Refusal(AWSResponse):  # type: ignore[misc]  # it has no types
    """What AWS answers in JSON to a call that is not permitted."""

    def __init__(self, operation: str) -> None:
        super().__init__("", 400, {}, None)
        error = {"__type": "AccessDeniedException", "message": refusal(operation)}
        self._content = json.dumps(error).encode()


def refusal(operation: str) -> str:
    user = f"arn:aws:iam::{fake.ACCOUNT}:user/me"
    return f"User: {user} is not authorized to perform: {operation}"


@dataclass
class Wire:
    """Sees every call that boto3 makes, and can make calls fail.

    After `kill_after` changes no call begins or ends any more, as in a program that was killed.
    """

    # In order, as in "s3:PutObject"
    calls: list[str] = field(default_factory=list)
    kill_after: int | None = None
    # The operation before which the program is killed
    kill_at: str | None = None
    # The operation that AWS does not permit: it is not made, or only its answer is replaced
    denied_before: str | None = None
    denied_operation: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    # How many changes were made. Guarded by lock
    changes_made: int = 0

    def before_call(self, model: Json, **_: Json) -> None:
        self.die_if_killed()
        if model.name == self.kill_at:
            # No other thread goes on either.
            self.kill_after = 0
            raise KilledError
        self.calls.append(f"{model.service_model.service_name}:{model.name}")

    def before_send(self, event_name: str, **_: Json) -> AWSResponse | None:
        """Answer in the place of AWS if the call is not permitted."""
        operation = event_name.rpartition(".")[2]
        if operation != self.denied_before:
            return None
        return Refusal(operation)

    def after_call(self, http_response: Json, parsed: Json, model: Json, **_: Json) -> None:
        if is_change(model.name):
            with self.lock:
                self.changes_made += 1
        self.die_if_killed()
        if model.name == self.denied_operation:
            http_response.status_code = 400
            parsed["Error"] = {"Code": "AccessDeniedException", "Message": refusal(model.name)}

    def die_if_killed(self) -> None:
        if self.kill_after is not None and self.changes_made >= self.kill_after:
            raise KilledError

    def changes(self) -> list[str]:
        """Return the calls that change something."""
        return [call for call in self.calls if is_change(call.split(":")[1])]


def is_change(operation: str) -> bool:
    return not operation.startswith(READING_OPERATIONS)


def push_images(tag: str = "abc", prefix: str = "stylebot") -> None:
    """Put all three images into ECR, whose repositories exist."""
    for image in IMAGES:
        fake.push(image, tag, prefix=prefix)


def clear_and_push_images(url: str, wire: Wire, deploy: Deploy) -> None:
    """Make the account empty but for the images, and the wire's records too."""
    fake.clear(url)
    wire.kill_after = None
    assert deploy("repositories", "abc") == 0
    push_images()
    wire.changes_made = 0
    wire.calls.clear()


def describe_endpoint(model: str) -> Json:
    return boto3.client("sagemaker").describe_endpoint(EndpointName=f"stylebot-{model}")


def describe_config(model: str) -> Json:
    """Return the configuration that the endpoint has."""
    name = describe_endpoint(model)["EndpointConfigName"]
    return boto3.client("sagemaker").describe_endpoint_config(EndpointConfigName=name)


def write_log(endpoint: str, *lines: str) -> None:
    """Write an endpoint's log, as its container does."""
    logs = boto3.client("logs")
    group = f"/aws/sagemaker/Endpoints/{endpoint}"
    with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="AllTraffic/i-1")
    # In milliseconds
    now = int(time.time() * 1000)
    events = [{"timestamp": now + number, "message": line} for number, line in enumerate(lines)]
    logs.put_log_events(logGroupName=group, logStreamName="AllTraffic/i-1", logEvents=events)


def put_list(name: str, text: str) -> str:
    """Put a list for the command batch into the bucket and return its URL."""
    boto3.client("s3").put_object(Bucket=BUCKET, Key=f"batch/{name}", Body=text.encode())
    return f"s3://{BUCKET}/batch/{name}"


def list_training_jobs() -> list[Json]:
    """Return the names of all training jobs."""
    jobs = boto3.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
    return [job["TrainingJobName"] for job in jobs]


def list_keys(prefix: str) -> list[str]:
    found = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=prefix)
    return [item["Key"] for item in found.get("Contents", [])]


def without_bucket(account: dict[str, Json]) -> dict[str, Json]:
    """Return a snapshot without the bucket, which `down` keeps."""
    return {name: value for name, value in account.items() if name != BUCKET}
