"""Calls to AWS: reading what exists, changing it, and comparing it with what is wanted.

AWS is eventually consistent, and answers get lost. Both are dealt with here, for every call:

- `perform` runs whatever creates or changes something. If the answer to a request is lost, boto3
  sends the request again, and AWS then says that the resource exists already: that is success. If
  AWS does not know yet what was created a moment ago, the call is repeated.
- `delete_if_present` runs whatever deletes something. What is gone already is success.
- `find` reads. `find_created` reads what was created a moment ago, which may not be shown at once.
"""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from aws.clock import Clock

# boto3 creates its clients, and the dictionaries that they return, at run time: they have no types.
Client = Any
Answer = dict[str, Any]
Found = TypeVar("Found")

# How long AWS may take until every part of it knows what was created or changed.
LAG_SECONDS = 60
LAG_POLL_SECONDS = 5

# The patterns are for "OPERATION CODE: MESSAGE".
# AWS says so when the same request comes a second time.
MADE_ALREADY = re.compile(
    # S3's BucketAlreadyExists means somebody else's bucket.
    r"(?<!Bucket)AlreadyExists|AlreadyOwnedByYou|already existing|DuplicateRecord"
    r"|Create\w+ ResourceInUse"
    r"|(Update|Delete)Endpoint .*in-progress|Stop\w+ .*in status Stopp"
    # An instance profile holds one role, and holds it already.
    r"|AddRoleToInstanceProfile LimitExceeded"
    # A security group, a service of ECS, a service-linked role
    r"|InvalidGroup\.Duplicate|Creation of service was not idempotent"
    r"|has been taken in this account"
)
# AWS says so of what was changed a moment ago.
CONFLICT = re.compile(
    r"ConcurrentUpdate|ConcurrentModification|OperationAborted|TemporarilyUnmodifiable"
    r"|DeleteConflict|BucketNotEmpty"
    r"|UpdateEndpoint .*(scaling target|deregistered as scalable target)"
    # A service of ECS whose tasks still stop, a cluster with tasks, a security group in use
    r"|still Draining|ClusterContains|UpdateInProgress|DependencyViolation"
    # ECS cannot use a role for some seconds after its creation.
    r"|Unable to assume the service linked role|unable to assume the role"
    # Nor can CodeBuild.
    r"|CreateProject .*not authorized to perform: sts:AssumeRole"
)
# SageMaker cannot assume a role, or pull with it, for some seconds after its creation. The error
# codes vary, but every message has the word "role". A missing permission is another error.
ROLE_UNKNOWN = re.compile(
    r"^Create(Model|TrainingJob|TransformJob) (?!.*(PassRole|is not authorized)).*\brole\b"
)


def find(call: Callable[..., Any], **arguments: object) -> Answer | None:
    """Return the answer of a describe or get call, or None if the resource does not exist."""
    try:
        answer: Answer = call(**arguments)
    except ClientError as error:
        if is_absent(error):
            return None
        raise
    return answer


def find_created(clock: Clock, look: Callable[[], Found | None]) -> Found | None:
    """Return what was created a moment ago, or None if AWS does not show it within a minute."""
    deadline = clock.monotonic() + LAG_SECONDS
    while True:
        found = look()
        if found is not None or clock.monotonic() >= deadline:
            return found
        clock.sleep(LAG_POLL_SECONDS)


def perform(clock: Clock, call: Callable[..., Any], **arguments: object) -> Answer:
    """Run a call that creates or changes something, and return its answer.

    The answer is empty if AWS says that the change was made before. A call that AWS may refuse
    only because it does not know yet what was created before is repeated for a minute.
    """
    deadline = clock.monotonic() + LAG_SECONDS
    while True:
        try:
            answer: Answer = call(**arguments)
            return answer
        except ClientError as error:
            if MADE_ALREADY.search(describe_error(error)):
                return {}
            if not may_pass(error) or clock.monotonic() >= deadline:
                raise
        clock.sleep(LAG_POLL_SECONDS)


def delete_if_present(clock: Clock, call: Callable[..., Any], **arguments: object) -> None:
    """Run a delete call; a resource that is already gone is not an error."""

    def delete() -> Answer:
        return find(call, **arguments) or {}

    perform(clock, delete)


def describe_error(error: ClientError) -> str:
    """Return "OPERATION CODE: MESSAGE"."""
    details = error.response["Error"]
    return f"{error.operation_name} {details['Code']}: {details.get('Message', '')}"


def may_pass(error: ClientError) -> bool:
    """Return whether the error may be gone when AWS has caught up with the last changes."""
    text = describe_error(error)
    return bool(is_absent(error) or CONFLICT.search(text) or ROLE_UNKNOWN.search(text))


def is_absent(error: ClientError) -> bool:
    """Return whether the error says that the resource does not exist."""
    code = error.response["Error"]["Code"]
    if re.search("NoSuch|NotFound|^404$", code):
        return True
    message = error.response["Error"].get("Message", "")
    # SageMaker has no code of its own for this, and words it differently for each resource. Nor has
    # ECS for a task definition.
    if code == "ClientException":
        return bool(re.match("Unable to describe task definition", message))
    return bool(
        code == "ValidationException" and re.search("not find|not found|^No .* found", message)
    )


def is_subset(wanted: object, current: object) -> bool:
    """Return whether `current` contains everything in `wanted`.

    AWS adds defaults to what it stores and returns lists in any order. So dictionaries may have
    more keys, and lists are compared without regard to order.
    """
    if isinstance(wanted, dict):
        if not isinstance(current, dict):
            return False
        return all(is_subset(value, current.get(key)) for key, value in wanted.items())

    if isinstance(wanted, list):
        if not isinstance(current, list) or len(current) != len(wanted):
            return False
        return all(any(is_subset(item, other) for other in current) for item in wanted)

    return wanted == current
