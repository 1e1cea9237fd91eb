"""Secrets that are easy to recognize go in everywhere, and come out nowhere.

They are in the token and the keys, in what people write, in the EXIF tags of a photograph, and in
the addresses that a model server reads and writes.
"""

from __future__ import annotations

import base64
import io
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from PIL import Image

from local.demo import PHOTO
from local.seaweedfs import s3_client
from local.stack import BUCKET
from tests.fakes.servers import LOCAL, RecordingStore, gunicorn
from tests.system.test_local_stack import Stack, running

GPS = 0x8825
AREA = 28
DESCRIPTION = 0x010E
# What the user has sent, for as long as a job needs it
OWN_PICTURES = ("/content", "/style")


def canary(kind: str) -> str:
    return f"canary-{kind}-{secrets.token_hex(8)}"


def find_leaks(places: Mapping[str, bytes], canaries: Mapping[str, str]) -> list[str]:
    """Return which canary is where, in any of the forms in which programs write text."""
    leaks = []
    for kind, text in canaries.items():
        plain = text.encode()
        forms = {plain, plain.hex().encode(), quote(text, safe="").encode()}
        forms |= {text.encode("utf-16-le"), base64.b64encode(plain).rstrip(b"=")[:-1]}
        for place, data in places.items():
            if any(form in data for form in forms):
                leaks.append(f"{kind} in {place}")
    return leaks


def photograph_with_tags(text: str, file: Path) -> Path:
    """Write a photograph whose EXIF tags, those about the place too, have `text`."""
    exif = Image.Exif()
    exif[DESCRIPTION] = text
    exif.get_ifd(GPS)[AREA] = b"ASCII\0\0\0" + text.encode()
    Image.open(PHOTO).save(file, exif=exif)
    assert text.encode() in file.read_bytes()
    return file


# --- the whole on one machine ---


def test_nothing_tells_a_secret(tmp_path: Path) -> None:
    canaries = {"text": canary("text"), "tags": canary("tags")}
    photograph = photograph_with_tags(canaries["tags"], tmp_path / "photo.jpg")
    places: dict[str, bytes] = {}
    with running(tmp_path, FAKE_STEPS="20") as stack:
        canaries |= own_secrets(stack)
        user = stack.user(7)
        for words in (canaries["text"], f"/teach {canaries['text']}"):
            answer = user.session.post(f"{user.url}/message", data={"text": words}, timeout=30)
            answer.raise_for_status()
        user.send_picture(photograph)
        question, negative = user.wait_for_button("style:negative")
        user.press(question, negative)
        for _ in user.listen(1.5):
            pass
        places |= stored(stack, "while it is painted")
        assert any("job.json" in place for place in places), places.keys()
        painted = user.wait_for_picture("painted")
        places["the picture"] = painted
        assert not Image.open(io.BytesIO(painted)).getexif()

        places |= stored(stack, "in the end")
        for number, command in stack.processes().items():
            places[f"the command line of {number}"] = command.encode()
    for log in (stack.data / "logs").iterdir():
        places[log.name] = log.read_bytes()
    assert {"bot.log", "nst.log", "sagemaker.log"} <= places.keys()
    # The address of the chat, which has the page's key, is told to the person who started it
    places["what it said"] = stack.said.read_bytes().replace(stack.address.encode(), b"")
    assert find_leaks(places, canaries) == []

    planted = {**places, "bot.log": places["bot.log"] + canaries["text"].encode()}
    assert find_leaks(planted, canaries) == ["text in bot.log"]


def own_secrets(stack: Stack) -> dict[str, str]:
    """Return the token and the keys that the parts have in their environment."""
    names = ("TELEGRAM_TOKEN", "CHAT_KEY", "AWS_SECRET_ACCESS_KEY")
    found = {}
    for number in stack.processes():
        environment = Path(f"/proc/{number}/environ").read_bytes().decode()
        for line in environment.split("\0"):
            name, _, value = line.partition("=")
            if name in names:
                found[name] = value
    assert set(found) == set(names)
    return found


def stored(stack: Stack, when: str) -> dict[str, bytes]:
    """Return every object in S3 but the pictures that a user has sent."""
    environ = Path(f"/proc/{stack.part('bot')}/environ").read_text().split("\0")
    s3 = s3_client(dict(line.partition("=")[::2] for line in environ if line))
    found: dict[str, bytes] = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for item in page.get("Contents", ()):
            key: str = item["Key"]
            if not key.endswith(OWN_PICTURES):
                found[f"{key} {when}"] = key.encode() + read_object(s3, key)
    return found


def read_object(s3: Any, key: str) -> bytes:  # noqa: ANN401 - boto3's client
    try:
        data: bytes = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    except s3.exceptions.NoSuchKey:  # its job has ended meanwhile
        return b""
    return data


# --- the addresses that a model server is given ---


@pytest.mark.parametrize(
    "address",
    [
        "{store}/photo?X-Amz-Signature={canary}",
        "{store}/missing?X-Amz-Signature={canary}",
        "{store}/note?X-Amz-Signature={canary}",
        "http://user:{canary}@127.0.0.1:1/photo",
        "http://127.0.0.1:1/photo?token={canary}",
        "http://127.0.0.1:99999/photo?token={canary}",
        "http://nobody.invalid/photo?token={canary}#{canary}",
        "ftp://user:{canary}@example.com/photo",
        "s3://user:{canary}@bucket/key",
        "https://[{canary}/photo",
    ],
)
def test_no_address_is_told(
    model_server: str, model_log: Path, store: RecordingStore, address: str
) -> None:
    text = canary("link")
    buffer = io.BytesIO()
    Image.new("RGB", (24, 18), "teal").save(buffer, "PNG")
    store.objects |= {"photo": buffer.getvalue(), "note": b"no picture"}
    secret = address.format(store=store.url("").rstrip("/"), canary=text)
    photo, made = store.url("photo"), store.url("made.png")
    bodies = (
        {"content_url": secret, "style_url": photo, "result_url": made},
        {"content_url": photo, "style_url": secret, "result_url": made},
        {"content_url": photo, "style_url": photo, "result_url": secret},
        {"content_url": photo, "style_url": photo, "result_url": made, "progress_url": secret},
    )
    places = {}
    for number, body in enumerate(bodies):
        answer = requests.post(f"{model_server}/invocations", json=body, timeout=60)
        assert answer.status_code < 500, answer.text
        places[f"answer {number}"] = answer.content + str(answer.headers).encode()
    places["the log"] = model_log.read_bytes()
    places |= {f"object {key}": data for key, data in store.objects.items()}
    assert find_leaks(places, {"link": text}) == []


@pytest.fixture(scope="module")
def model_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model") / "server.log"


@pytest.fixture(scope="module")
def model_server(model_log: Path) -> Any:  # noqa: ANN401 - pytest makes a value of the generator
    with gunicorn("tests.fakes.model:nst()", model_log.parent, environment=LOCAL) as server:
        yield server.url


# --- the search itself ---


@pytest.mark.parametrize(
    "leak",
    [
        b'{"message": "canary-x-1"}',
        b"GET /?key=canary-x-1 HTTP/1.1",
        "canary-x-1".encode("utf-16"),
        base64.b64encode(b"canary-x-1"),
        b"canary-x-1".hex().encode(),
    ],
)
def test_a_planted_leak_is_found(leak: bytes) -> None:
    assert find_leaks({"a": leak, "b": b"canary"}, {"token": "canary-x-1"}) == ["token in a"]
