"""The smoke test: one small picture through S3 and an endpoint, as the bot would send it."""

import time

from aws.account import ROOT, Account
from aws.bucket import delete_objects
from aws.calls import Answer
from aws.endpoint_settings import EndpointSettings
from aws.invocations import exists, send_request
from aws.messages import DeployError, say
from bot import ASYNC_PREFIX

# Pictures of the repository
CONTENT = ROOT / "examples/photos/chelsea.jpg"
STYLE = ROOT / "examples/styles/waves.jpg"


def run_smoke_test(account: Account, settings: EndpointSettings) -> None:
    """Send a test picture to the endpoint. Raises DeployError if no result comes back."""
    # Not under the prefix of jobs, where a running bot would delete it.
    folder = f"{ASYNC_PREFIX}smoke/{settings.model}-{time.time_ns()}"
    upload_pictures(account, folder)
    say(
        f"{settings.name}: sending a test picture; if the endpoint is at zero instances, it takes "
        "5 to 10 minutes to start one"
    )

    start = account.clock.monotonic()
    request = describe_request(account, settings.model, folder)
    result_key = f"{folder}/result.jpg"
    try:
        send_request(account, settings.name, folder, request, "the test picture")
        if not exists(account, result_key):
            raise DeployError(
                f"{settings.name} answered without a picture. `./deploy.py status` shows its log."
            )
        seconds = account.clock.monotonic() - start
        say(f"{settings.name}: stylized the test picture in {seconds:.0f} s")
    finally:
        names = ("content.jpg", "style.jpg", "result.jpg")
        delete_objects(account, [f"{folder}/{name}" for name in names])


def upload_pictures(account: Account, folder: str) -> None:
    s3 = account.s3
    s3.put_object(Bucket=account.bucket, Key=f"{folder}/content.jpg", Body=CONTENT.read_bytes())
    s3.put_object(Bucket=account.bucket, Key=f"{folder}/style.jpg", Body=STYLE.read_bytes())


def describe_request(account: Account, model: str, folder: str) -> Answer:
    """Return the request for the test picture, whose pictures are in that folder of the bucket."""
    url = f"s3://{account.bucket}/{folder}"
    request: Answer = {
        "content_url": f"{url}/content.jpg",
        "result_url": f"{url}/result.jpg",
        "size": 256,
    }
    if model == "nst":
        request["style_url"] = f"{url}/style.jpg"
        request["max_epochs"] = 2
    else:
        request["style_name"] = "vintage"
    return request
