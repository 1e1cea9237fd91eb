"""One asynchronous request to an endpoint, as the bot sends it, and its answer."""

import json

import msgspec

from aws.account import Account
from aws.bucket import delete_objects
from aws.calls import Answer, find
from aws.messages import DeployError
from bot import INVOCATION_SECONDS

# An endpoint at zero instances takes 5 to 10 minutes until its first answer, by public reports.
ANSWER_SECONDS = 1500
POLL_SECONDS = 3.0


def send_request(
    account: Account,
    endpoint: str,
    folder: str,
    request: Answer,
    purpose: str,
    seconds: int = ANSWER_SECONDS,
) -> Answer:
    """Send a request, wait until the endpoint has answered it, and return the answer.

    `folder` is the place in the bucket for request.json, without a slash at its end; it must be
    unique. `purpose` names what was asked for, such as "the test picture".
    Raises DeployError if the answer is an error or no JSON object, or none comes in `seconds`.
    """
    request_key = f"{folder}/request.json"
    body = json.dumps(request).encode()
    account.s3.put_object(Bucket=account.bucket, Key=request_key, Body=body)
    answer = account.sagemaker_runtime.invoke_endpoint_async(
        EndpointName=endpoint,
        InputLocation=f"s3://{account.bucket}/{request_key}",
        ContentType="application/json",
        RequestTTLSeconds=seconds,
        InvocationTimeoutSeconds=INVOCATION_SECONDS,
    )
    output_key = object_key(answer["OutputLocation"])
    failure_key = object_key(answer["FailureLocation"])
    try:
        wait_for_answer(account, endpoint, output_key, failure_key, purpose, seconds)
        return read_answer(account, endpoint, output_key, purpose)
    finally:
        delete_objects(account, [request_key, output_key, failure_key])


def read_answer(account: Account, endpoint: str, key: str, purpose: str) -> Answer:
    """Return the endpoint's answer. Raises DeployError if it is no JSON object."""
    body = account.s3.get_object(Bucket=account.bucket, Key=key)["Body"].read()
    try:
        answer: Answer = msgspec.json.decode(body, type=dict)
    except msgspec.MsgspecError as error:
        raise DeployError(
            f"{endpoint} is up, but its answer for {purpose} is no JSON object: {body[:200]!r}"
        ) from error
    return answer


def object_key(url: str) -> str:
    """Return the key in s3://BUCKET/KEY."""
    return url.split("/", 3)[3]


def wait_for_answer(
    account: Account,
    endpoint: str,
    output_key: str,
    failure_key: str,
    purpose: str,
    seconds: int,
) -> None:
    """Wait for the endpoint's answer. Raises DeployError if it is an error, or none comes."""
    clock = account.clock
    deadline = clock.monotonic() + seconds
    while clock.monotonic() < deadline:
        if exists(account, failure_key):
            failure = account.s3.get_object(Bucket=account.bucket, Key=failure_key)
            message = failure["Body"].read(2000).decode(errors="replace")
            raise DeployError(f"{endpoint} is up, but {purpose} failed: {message}")
        if exists(account, output_key):
            return
        clock.sleep(POLL_SECONDS)

    raise DeployError(
        f"{endpoint} is up, but gave no result for {purpose} in {seconds // 60} minutes. "
        "`./deploy.py status` shows what it does."
    )


def exists(account: Account, key: str) -> bool:
    return find(account.s3.head_object, Bucket=account.bucket, Key=key) is not None
