"""Test pictures: real photographs through S3 and an endpoint, as the bot would send them."""

import time

from aws.account import ROOT, Account
from aws.bucket import delete_objects
from aws.calls import Answer, find
from aws.endpoint_settings import EndpointSettings
from aws.invocations import ANSWER_SECONDS, send_request
from aws.messages import DeployError, say
from bot import ASYNC_PREFIX

# Pictures of the repository
CONTENT = ROOT / "examples/photos/chelsea.jpg"
STYLE = ROOT / "examples/styles/waves.jpg"
# The longer sides of the results, in pixels. The photograph is larger.
SIZE = 256
PROOF_SIZES = (256, 384)


def run_smoke_test(account: Account, settings: EndpointSettings) -> None:
    """Send a test picture to the endpoint. Raises DeployError if no such picture comes back."""
    say(
        f"{settings.name}: sending a test picture; if the endpoint is at zero instances, it takes "
        "5 to 10 minutes to start one"
    )
    paint(account, settings.name, settings.model, SIZE, ANSWER_SECONDS)


def paint_proof(
    account: Account, endpoint: str, model: str, seconds: int, started_after: float = 0.0
) -> None:
    """Send the test pictures that a release has to paint, each in that time.

    `started_after`, in seconds since 1970: the pictures must come from a server that was started
    later. Servers of older images do not tell when they were started; then it is not checked.
    Raises DeployError if one does not come back as it should.
    """
    for size in PROOF_SIZES:
        answer = paint(account, endpoint, model, size, seconds)
        started = answer.get("server_started")
        if isinstance(started, (int, float)) and started < started_after:
            raise DeployError(
                f"{endpoint}: an old instance has painted the test picture, not a new one."
            )


def paint(account: Account, endpoint: str, model: str, size: int, seconds: int) -> Answer:
    """Send a test picture and return the endpoint's answer. Raises DeployError if it is wrong."""
    # Not under the prefix of jobs, where a running bot would delete it.
    folder = f"{ASYNC_PREFIX}smoke/{model}-{time.time_ns()}"
    upload_pictures(account, folder)
    start = account.clock.monotonic()
    request = describe_request(account, model, folder, size)
    try:
        answer = send_request(account, endpoint, folder, request, "the test picture", seconds)
        check_picture(account, endpoint, f"{folder}/result.jpg", size)
        seconds_taken = account.clock.monotonic() - start
        say(f"{endpoint}: stylized the test picture in {seconds_taken:.0f} s")
        return answer
    finally:
        names = ("content.jpg", "style.jpg", "result.jpg")
        delete_objects(account, [f"{folder}/{name}" for name in names])


def check_picture(account: Account, endpoint: str, key: str, size: int) -> None:
    """Raise DeployError if there is no JPEG whose longer side is `size` pixels."""
    found = find(account.s3.get_object, Bucket=account.bucket, Key=key)
    if found is None:
        raise DeployError(
            f"{endpoint} answered without a picture. `./deploy.py status` shows its log."
        )
    found_size = jpeg_size(found["Body"].read())
    if found_size is None:
        raise DeployError(f"{endpoint} answered with something that is no JPEG.")
    if max(found_size) != size:
        width, height = found_size
        raise DeployError(
            f"{endpoint} answered with a picture of {width}x{height} pixels; its longer side "
            f"should be {size}."
        )


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels, or None if the data are no JPEG (ITU-T T.81, B.2)."""
    if not data.startswith(b"\xff\xd8"):
        return None
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        # A frame header: SOF0 to SOF15 without DHT, JPG and DAC, which are among them.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(data[position + 5 : position + 7], "big")
            width = int.from_bytes(data[position + 7 : position + 9], "big")
            return width, height
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        position += 2 + length
    return None


def upload_pictures(account: Account, folder: str) -> None:
    s3 = account.s3
    s3.put_object(Bucket=account.bucket, Key=f"{folder}/content.jpg", Body=CONTENT.read_bytes())
    s3.put_object(Bucket=account.bucket, Key=f"{folder}/style.jpg", Body=STYLE.read_bytes())


def describe_request(account: Account, model: str, folder: str, size: int) -> Answer:
    """Return the request for a test picture, whose pictures are in that folder of the bucket."""
    url = f"s3://{account.bucket}/{folder}"
    request: Answer = {
        "content_url": f"{url}/content.jpg",
        "result_url": f"{url}/result.jpg",
        "size": size,
    }
    if model == "nst":
        request["style_url"] = f"{url}/style.jpg"
        request["max_epochs"] = 2
    else:
        request["style_name"] = "vintage"
    return request
