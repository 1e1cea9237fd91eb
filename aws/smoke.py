"""The smoke test: one small picture through S3 and an endpoint, as the bot would send it."""

import json
import time
from typing import Any

from aws.account import ROOT, Account
from aws.bucket import delete_objects
from aws.calls import find
from aws.endpoint_settings import EndpointSettings
from aws.messages import DeployError, say
from bot import ASYNC_PREFIX, INVOCATION_SECONDS

# An endpoint at zero instances takes two to five minutes until its first answer.
SMOKE_SECONDS = 900
POLL_SECONDS = 3.0
# Pictures of the repository
CONTENT = ROOT / "examples/photos/chelsea.jpg"
STYLE = ROOT / "examples/styles/waves.jpg"


def run_smoke_test(account: Account, settings: EndpointSettings) -> None:
    """Send a test picture to the endpoint. Raises DeployError if no result comes back."""
    # Not under the prefix of jobs, where a running bot would delete it.
    folder = f"{ASYNC_PREFIX}smoke/{settings.model}-{time.time_ns()}"
    upload_request(account, settings.model, folder)
    say(
        f"{settings.name}: sending a test picture; if the endpoint is at zero instances, it takes "
        "some minutes to start one"
    )

    start = account.clock.monotonic()
    answer = account.sagemaker_runtime.invoke_endpoint_async(
        EndpointName=settings.name,
        InputLocation=f"s3://{account.bucket}/{folder}/request.json",
        ContentType="application/json",
        RequestTTLSeconds=SMOKE_SECONDS,
        InvocationTimeoutSeconds=INVOCATION_SECONDS,
    )
    output_key = object_key(answer["OutputLocation"])
    failure_key = object_key(answer["FailureLocation"])
    result_key = f"{folder}/result.jpg"
    try:
        wait_for_result(account, settings.name, output_key, failure_key, result_key)
        seconds = account.clock.monotonic() - start
        say(f"{settings.name}: stylized the test picture in {seconds:.0f} s")
    finally:
        names = ("content.jpg", "style.jpg", "request.json", "result.jpg")
        keys = [f"{folder}/{name}" for name in names]
        delete_objects(account, [*keys, output_key, failure_key])


def upload_request(account: Account, model: str, folder: str) -> None:
    """Put the pictures and the request into the bucket."""
    url = f"s3://{account.bucket}/{folder}"
    request: dict[str, Any] = {
        "content_url": f"{url}/content.jpg",
        "result_url": f"{url}/result.jpg",
        "size": 256,
    }
    if model == "nst":
        request["style_url"] = f"{url}/style.jpg"
        request["max_epochs"] = 2
    else:
        request["style_name"] = "vintage"

    s3 = account.s3
    s3.put_object(Bucket=account.bucket, Key=f"{folder}/content.jpg", Body=CONTENT.read_bytes())
    s3.put_object(Bucket=account.bucket, Key=f"{folder}/style.jpg", Body=STYLE.read_bytes())
    body = json.dumps(request).encode()
    s3.put_object(Bucket=account.bucket, Key=f"{folder}/request.json", Body=body)


def object_key(url: str) -> str:
    """Return the key in s3://BUCKET/KEY."""
    return url.split("/", 3)[3]


def wait_for_result(
    account: Account, endpoint: str, output_key: str, failure_key: str, result_key: str
) -> None:
    """Wait for the endpoint's answer. Raises DeployError if it is an error, or none comes."""
    clock = account.clock
    deadline = clock.monotonic() + SMOKE_SECONDS
    while clock.monotonic() < deadline:
        if exists(account, failure_key):
            failure = account.s3.get_object(Bucket=account.bucket, Key=failure_key)
            message = failure["Body"].read(2000).decode(errors="replace")
            raise DeployError(f"{endpoint} is up, but the test picture failed: {message}")
        if exists(account, output_key):
            if exists(account, result_key):
                return
            raise DeployError(
                f"{endpoint} answered without a picture. `./deploy.py status` shows its log."
            )
        clock.sleep(POLL_SECONDS)

    raise DeployError(
        f"{endpoint} is up, but gave no result for the test picture in {SMOKE_SECONDS // 60} "
        "minutes. `./deploy.py status` shows what it does."
    )


def exists(account: Account, key: str) -> bool:
    return find(account.s3.head_object, Bucket=account.bucket, Key=key) is not None
