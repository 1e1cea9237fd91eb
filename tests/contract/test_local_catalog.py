"""How local.painters brings the bucket and the catalog up to date with a folder of painters."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from bot import CATALOG_KEY, TRAINING_TEMPLATE_KEY
from local.painters import Painters, painter_key, write_training_template
from local.telegram.button_pictures import picture_path, read_painters
from local.thumbnails import Thumbnails
from sagemaker_local.shapes import check_value, input_shape
from sagemaker_local.training import check_request
from tests.fakes.names import BUCKET
from tests.fakes.storage import Storage

Json = dict[str, Any]
OUTPUT = f"s3://{BUCKET}/async/output/catalog.out"
FAILURE = f"s3://{BUCKET}/async/failure/catalog-error.out"


class Runtime:
    """SageMaker's runtime, which keeps the requests until `answer` is called."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.requests: list[Json] = []

    def invoke_endpoint_async(self, **call: str) -> Json:
        assert (call["EndpointName"], call["ContentType"]) == ("cyclegan", "application/json")
        self.requests.append(json.loads(call["Body"]))
        return {"OutputLocation": OUTPUT, "FailureLocation": FAILURE}

    def answer(self, *styles: str) -> None:
        self.put(OUTPUT, json.dumps({"styles": ["negative", *styles]}).encode())

    def fail(self, reason: bytes) -> None:
        self.put(FAILURE, reason)

    def put(self, url: str, body: bytes) -> None:
        key = url.removeprefix(f"s3://{BUCKET}/")
        self.storage.client.put_object(Bucket=BUCKET, Key=key, Body=body)


@pytest.fixture
def runtime(storage: Storage) -> Runtime:
    storage.empty()
    return Runtime(storage)


def start(runtime: Runtime, folder: Path) -> Painters:
    """Return the painters of a new start, without the thread that calls `step`."""
    painters = Painters(folder, BUCKET, storage_environment(runtime), "http://127.0.0.1:1")
    painters.runtime = runtime
    return painters


def storage_environment(runtime: Runtime) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{runtime.storage.port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }


def drop(folder: Path, name: str, content: bytes) -> Path:
    path = folder / f"style_{name}.pth"
    path.write_bytes(content)
    return path


def steps(painters: Painters, count: int = 3) -> None:
    for _ in range(count):
        painters.step()


def test_each_start_asks_for_a_catalog(runtime: Runtime, tmp_path: Path) -> None:
    painters = start(runtime, tmp_path)
    assert not painters.has_catalog()
    steps(painters)
    assert runtime.requests == [{"catalog_url": f"s3://{BUCKET}/{CATALOG_KEY}"}]
    assert not painters.has_answer.is_set()

    runtime.answer()
    steps(painters)
    assert painters.has_answer.is_set()
    assert len(runtime.requests) == 1
    assert runtime.storage.list_keys("async/") == [], "the answer is left behind"


def test_a_file_is_put_into_the_bucket_once_it_has_stopped_changing(
    runtime: Runtime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    painters = start(runtime, tmp_path)
    steps(painters)
    runtime.answer()
    steps(painters)

    drop(tmp_path, "klimt", b"half")
    painters.step()
    drop(tmp_path, "klimt", b"half and half")
    painters.step()
    assert runtime.storage.list_keys("models/") == [], "it was put there unfinished"
    painters.step()
    assert runtime.storage.read(painter_key("klimt")) == b"half and half"
    assert len(runtime.requests) == 2
    runtime.answer("klimt")
    steps(painters)
    assert "New painter: klimt. The chat offers it" in capsys.readouterr().out
    assert len(runtime.requests) == 2, "it was asked for again, though nothing changed"


def test_a_file_of_an_earlier_day_is_in_the_first_catalog(runtime: Runtime, tmp_path: Path) -> None:
    os.utime(drop(tmp_path, "klimt", b"painter"), (0, 0))
    painters = start(runtime, tmp_path)
    painters.step()
    assert painters.asked == {"klimt"}
    assert runtime.storage.read(painter_key("klimt")) == b"painter"


def test_what_comes_while_a_catalog_is_made_gets_the_next_one(
    runtime: Runtime, tmp_path: Path
) -> None:
    painters = start(runtime, tmp_path)
    steps(painters)
    drop(tmp_path, "klimt", b"painter")
    steps(painters)
    assert len(runtime.requests) == 1
    runtime.answer()
    steps(painters)
    assert len(runtime.requests) == 2


def test_a_file_that_cannot_be_used_and_a_catalog_that_fails_are_told(
    runtime: Runtime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drop(tmp_path, "broken", b"no checkpoint")
    drop(tmp_path, "Klimt 2", b"a name with a capital and a space")
    painters = start(runtime, tmp_path)
    steps(painters)
    runtime.fail(b"no style can be used")
    steps(painters)
    drop(tmp_path, "broken", b"no checkpoint either")
    steps(painters)
    runtime.answer()
    steps(painters)

    said = capsys.readouterr().out
    assert "There is no new catalog of the painters: no style can be used" in said
    assert "style_broken.pth cannot be used. The log of cyclegan tells why." in said
    assert said.count("style_Klimt 2.pth is ignored. Name it style_NAME.pth") == 1
    assert painters.has_answer.is_set(), "the start would wait for ever"


def test_a_painter_of_an_earlier_start_is_not_put_again_but_a_changed_one_is(
    runtime: Runtime, tmp_path: Path
) -> None:
    drop(tmp_path, "klimt", b"painter")
    drop(tmp_path, "kahlo", b"painter")
    steps(start(runtime, tmp_path))
    head = runtime.storage.client.head_object
    before = head(Bucket=BUCKET, Key=painter_key("klimt"))["LastModified"]
    time.sleep(1.1)  # S3 tells whole seconds

    drop(tmp_path, "kahlo", b"another painter")
    steps(start(runtime, tmp_path))
    assert head(Bucket=BUCKET, Key=painter_key("klimt"))["LastModified"] == before
    assert runtime.storage.read(painter_key("kahlo")) == b"another painter"


@pytest.mark.parametrize("restart", [False, True])
def test_a_painter_leaves_with_its_file(runtime: Runtime, tmp_path: Path, restart: bool) -> None:
    path = drop(tmp_path, "klimt", b"painter")
    painters = start(runtime, tmp_path)
    steps(painters)
    for _ in range(2):  # that of the start, and that with the painter
        runtime.answer("klimt")
        steps(painters)
    path.unlink()
    if restart:
        painters = start(runtime, tmp_path)
    asked = len(runtime.requests)
    steps(painters)
    assert runtime.storage.list_keys("models/") == []
    assert len(runtime.requests) == asked + 1


def test_a_painter_that_the_chat_has_trained_stays(runtime: Runtime, tmp_path: Path) -> None:
    s3 = runtime.storage.client
    s3.put_object(Bucket=BUCKET, Key=painter_key("taught"), Body=b"taught")
    old = drop(tmp_path, "klimt", b"old")
    os.utime(old, (0, 0))
    painters = start(runtime, tmp_path)
    steps(painters)
    # Trained in the chat under a name that has a file too.
    s3.put_object(Bucket=BUCKET, Key=painter_key("klimt"), Body=b"taught later")

    painters = start(runtime, tmp_path)
    steps(painters)
    assert runtime.storage.read(painter_key("klimt")) == b"taught later"
    old.unlink()
    steps(painters)
    assert runtime.storage.read(painter_key("klimt")) == b"taught later"
    assert runtime.storage.read(painter_key("taught")) == b"taught"

    drop(tmp_path, "klimt", b"newer")
    steps(painters)
    assert runtime.storage.read(painter_key("klimt")) == b"newer"


def test_the_template_with_a_painters_arguments_is_a_training_job(runtime: Runtime) -> None:
    write_training_template(runtime.storage.client, BUCKET)
    template = runtime.storage.json(TRAINING_TEMPLATE_KEY)
    assert template["version"] == 1
    arguments = {
        **template["arguments"],
        "TrainingJobName": f"{template['name_prefix']}klimt-7",
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/training/"},
    }
    check_value("", arguments, input_shape("CreateTrainingJob"))
    check_request(arguments)


# ---- the thumbnails


def write_catalog(runtime: Runtime, *names: str) -> None:
    styles = [{"name": name, "thumbnail": f"thumbnails/{name}.jpg"} for name in names]
    catalog = json.dumps({"version": 1, "styles": styles}).encode()
    runtime.put(f"s3://{BUCKET}/{CATALOG_KEY}", catalog)


def test_the_thumbnails_follow_the_catalog(runtime: Runtime, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    thumbnails = Thumbnails(folder, BUCKET, storage_environment(runtime))
    thumbnails.step()
    for name in ("monet", "klimt"):
        runtime.put(f"s3://{BUCKET}/models/thumbnails/{name}.jpg", name.encode())
    write_catalog(runtime, "monet", "without-a-picture")
    thumbnails.step()
    assert [path.read_bytes() for path in folder.glob("*.jpg")] == [b"monet"]
    assert picture_path(folder, "style:monet").exists()
    monet, other = read_painters(folder)
    assert (monet["text"], monet["callback_data"]) == ("Monet", "style:monet")
    assert monet["picture"]
    assert (other["text"], other["picture"]) == ("Without-A-Picture", "")

    write_catalog(runtime, "klimt")
    thumbnails.step()
    assert list(folder.glob("*.jpg")) == [picture_path(folder, "style:klimt")]
    assert [painter["text"] for painter in read_painters(folder)] == ["Klimt"]


@pytest.mark.parametrize("catalog", [b"", b"no JSON", b"[]", b'{"styles": [{"name": "monet"}]}'])
def test_what_is_no_catalog_has_no_thumbnails(
    runtime: Runtime, tmp_path: Path, catalog: bytes
) -> None:
    runtime.put(f"s3://{BUCKET}/{CATALOG_KEY}", catalog)
    Thumbnails(tmp_path, BUCKET, storage_environment(runtime)).step()
    assert list(tmp_path.iterdir()) == []
