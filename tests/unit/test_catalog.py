"""A request for a catalog: what is written, in which order, and what ends it."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from containers.common.errors import (
    ErrorCode,
    OutOfMemoryError,
    StylizeError,
    UnknownStyleError,
)
from containers.common.parameters import Parameter, ParameterValues
from containers.serving import catalog, storage
from containers.serving.app import create_app
from containers.serving.catalog import Sample, draw_sheet
from containers.serving.errors import ApiError
from containers.serving.model import Inputs, Picture, Report, Service, StyleLabel
from tests.fakes.servers import wait_until

URL = "s3://bucket/models/catalog.json"
FOLDER = "s3://bucket/models/"
COLORS = {"monet": "green", "vangogh": "yellow", "vintage": "brown"}
PARAMETERS = (Parameter("style_name", str, "its color"),)


class Painters:
    """Each style is a color. errors: what preparing a style raises, by its name."""

    def __init__(self) -> None:
        self.errors: dict[str, StylizeError] = {}
        self.prepared: list[str] = []
        self.between: Callable[[], None] = lambda: None

    def styles(self) -> list[str]:
        return list(COLORS)

    def look_for_styles(self) -> list[StyleLabel]:
        return [StyleLabel(name, name.title()) for name in COLORS]

    def prepare(self, style_name: str) -> None:
        self.prepared.append(style_name)
        self.between()
        if style_name in self.errors:
            raise self.errors[style_name]

    def sample_photograph(self) -> Image.Image:
        return Image.new("RGB", (360, 240), "white")

    def stylize(
        self,
        inputs: Inputs,
        options: ParameterValues,
        report: Report,
    ) -> Picture:
        return Picture(Image.new("RGB", inputs.content.size, COLORS[options["style_name"]]))


@pytest.fixture
def model() -> Painters:
    return Painters()


def loaded(service: Service) -> FlaskClient:
    client = create_app(service).test_client()
    wait_until(lambda: client.get("/ping").status_code == 200, 30, "the model was not loaded")
    return client


@pytest.fixture
def client(model: Painters) -> FlaskClient:
    service = Service("cyclegan", "s", False, PARAMETERS, (), lambda: model, has_catalog=True)
    return loaded(service)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What was put where, in this order."""
    objects: dict[str, bytes] = {}

    def write(url: str, data: bytes, content_type: str, name: str) -> None:
        assert name == "catalog_url"
        objects[url] = data

    monkeypatch.setattr(storage, "write", write)
    return objects


def ask(client: FlaskClient, **fields: object) -> TestResponse:
    return client.post("/invocations", json={"catalog_url": URL, **fields})


def error_of(answer: TestResponse) -> tuple[int, str, str]:
    body: Any = answer.get_json()
    return answer.status_code, body["error"]["code"], body["error"]["message"]


def color_of(data: bytes) -> tuple[int, ...]:
    with Image.open(io.BytesIO(data)) as image:
        color = image.getpixel((image.width // 2, image.height // 2))
    assert isinstance(color, tuple)
    return color


def test_a_catalog_has_a_picture_of_each_style_and_comes_last(
    client: FlaskClient, written: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    answer = ask(client)
    body: Any = answer.get_json()
    assert answer.status_code == 200
    assert body["catalog_url"] == URL
    assert body["styles"] == ["monet", "vangogh", "vintage"]
    assert body["seconds"] >= 0

    assert list(written)[-1] == URL, "a reader could miss a picture that the catalog names"
    told = json.loads(written[URL])
    assert told["version"] == 1
    assert [style["name"] for style in told["styles"]] == ["monet", "vangogh", "vintage"]
    assert [style["label"] for style in told["styles"]] == ["Monet", "Vangogh", "Vintage"]
    paths = [style["thumbnail"] for style in told["styles"]] + [told["sheet"]]
    assert {FOLDER + path for path in paths} == set(written) - {URL}

    green, yellow, _ = (color_of(written[FOLDER + path]) for path in paths[:3])
    assert green[1] > green[0] + 50
    assert min(yellow[:2]) > 200 > yellow[2]
    with Image.open(io.BytesIO(written[FOLDER + paths[0]])) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (240, 160))
    assert '"catalog": ["monet", "vangogh", "vintage"]' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"style_name": "monet"}, "no other field"),
        ({"content_url": "s3://bucket/photo"}, "no other field"),
        ({"catalog_url": None}, "must be an address"),
        ({"catalog_url": ["s3://bucket/a.json"]}, "must be an address"),
        ({"catalog_url": "file:///etc/a.json"}, "must begin with s3://"),
        ({"catalog_url": "s3://bucket/models/"}, "must end in .json"),
        ({"catalog_url": "s3://bucket/models/catalog.jpg"}, "must end in .json"),
        ({"catalog_url": "https://bucket.example/a.json?signature=1"}, "must not have a query"),
    ],
)
def test_what_is_no_request_for_a_catalog_is_told(
    client: FlaskClient, written: dict[str, bytes], fields: dict[str, object], said: str
) -> None:
    status, code, message = error_of(ask(client, **fields))
    assert (status, code) == (400, "bad_request")
    assert said in message
    assert not written


def test_a_model_without_a_catalog_does_not_know_the_field(
    model: Painters, written: dict[str, bytes]
) -> None:
    nst = loaded(Service("nst", "s", True, PARAMETERS, (), lambda: model))
    status, code, _ = error_of(ask(nst))
    assert (status, code) == (400, "bad_request")
    assert "catalog" not in nst.get("/").text


def test_a_row_of_a_batch_is_no_request_for_a_catalog(
    client: FlaskClient, written: dict[str, bytes]
) -> None:
    body = json.dumps({"catalog_url": URL})
    answer = client.post("/invocations", data=body, content_type="application/jsonlines")
    assert json.loads(answer.text)["error"]["code"] == "bad_request"
    assert not written


@pytest.mark.parametrize(
    "error",
    [
        UnknownStyleError("Its checkpoint is damaged."),
        ApiError(ErrorCode.STORAGE_FAILED, "S3 answered 500."),
    ],
)
def test_a_style_that_cannot_be_used_is_left_out_and_the_log_says_why(
    client: FlaskClient,
    model: Painters,
    written: dict[str, bytes],
    error: StylizeError,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model.errors["vangogh"] = error
    body: Any = ask(client).get_json()
    assert body["styles"] == ["monet", "vintage"]
    assert [style["name"] for style in json.loads(written[URL])["styles"]] == body["styles"]
    log = capsys.readouterr().out
    assert '"style": "vangogh"' in log
    assert str(error) in log


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        (dict.fromkeys(COLORS, UnknownStyleError("It is damaged.")), (404, "unknown_style")),
        ({"vintage": OutOfMemoryError("Too small.")}, (503, "out_of_memory")),
        ({"vintage": ApiError(ErrorCode.STOPPING, "It stops.")}, (503, "stopping")),
    ],
)
def test_a_catalog_with_too_little_in_it_is_not_written(
    client: FlaskClient,
    model: Painters,
    written: dict[str, bytes],
    errors: dict[str, StylizeError],
    expected: tuple[int, str],
) -> None:
    model.errors = errors
    assert error_of(ask(client))[:2] == expected
    assert not written


def test_no_catalog_names_a_picture_that_could_not_be_written(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def write(url: str, data: bytes, content_type: str, name: str) -> None:
        if url.endswith("vangogh.jpg"):
            raise ApiError(ErrorCode.ACCESS_DENIED, "S3 denies access.")
        written.append(url)

    monkeypatch.setattr(storage, "write", write)
    assert error_of(ask(client))[:2] == (400, "access_denied")
    assert URL not in written


def test_pictures_that_people_wait_for_come_between_those_of_a_catalog(
    client: FlaskClient, model: Painters, written: dict[str, bytes]
) -> None:
    statuses = []

    def picture() -> None:
        model.between = lambda: None
        photo = io.BytesIO()
        Image.new("RGB", (32, 32)).save(photo, "PNG")
        answer = client.application.test_client().post(
            "/invocations?style=monet", data=photo.getvalue(), content_type="image/png"
        )
        statuses.append(answer.status_code)

    model.between = picture
    assert ask(client).status_code == 200
    assert statuses == [200]
    assert model.prepared == ["monet", "monet", "vangogh", "vintage"]


def test_a_style_is_prepared_before_its_picture(
    client: FlaskClient, model: Painters, written: dict[str, bytes]
) -> None:
    model.errors["monet"] = ApiError(ErrorCode.STORAGE_FAILED, "S3 answered 500.")
    photo = io.BytesIO()
    Image.new("RGB", (32, 32)).save(photo, "PNG")
    for style, status in (("monet", 400), ("vintage", 200)):
        answer = client.post(
            f"/invocations?style={style}", data=photo.getvalue(), content_type="image/png"
        )
        assert answer.status_code == status


def test_more_styles_than_a_chat_can_show_are_left_out(
    client: FlaskClient, written: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("containers.serving.server.MAX_STYLES", 2)
    body: Any = ask(client).get_json()
    assert body["styles"] == ["monet", "vangogh"]


def test_telegram_takes_the_largest_sheet() -> None:
    image = Image.new("RGB", (360, 240))
    samples = [Sample(str(number), "Label", image) for number in range(catalog.MAX_STYLES)]
    assert sum(draw_sheet(samples).size) <= 10_000


def test_the_sheet_shows_two_a_row_above_their_labels() -> None:
    colors = ["red", "lime", "blue"]
    samples = [Sample(c, c.title(), Image.new("RGB", (60, 40), c)) for c in colors]
    sheet = draw_sheet(samples)
    step_right, step_down = 60 + catalog.GAP, 40 + catalog.LABEL_HEIGHT
    left, top = catalog.GAP + 30, catalog.GAP + 20
    assert sheet.getpixel((left, top)) == (255, 0, 0)
    assert sheet.getpixel((left + step_right, top)) == (0, 255, 0)
    assert sheet.getpixel((left, top + step_down)) == (0, 0, 255)
    assert sheet.getpixel((left + step_right, top + step_down)) == (255, 255, 255)

    label = (catalog.GAP, catalog.GAP + 40, catalog.GAP + 60, catalog.GAP + step_down)
    darkest, _ = sheet.convert("L").crop(label).getextrema()
    assert isinstance(darkest, int | float)
    assert darkest < 100, "the label is not there"


def test_the_index_tells_how_to_make_a_catalog(client: FlaskClient) -> None:
    assert '"catalog_url": "s3://bucket/models/catalog.json"' in client.get("/").text
