"""The routes and the parsing of requests, in this process: no gunicorn, no network, no GPU."""

import gc
import io
import itertools
import json
import threading
import time
import weakref
from functools import partial
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.datastructures import MultiDict
from werkzeug.test import TestResponse, create_environ, run_wsgi_app

from containers.common.errors import DivergedError, ErrorCode, FatalError, InvalidParameterError
from containers.common.parameters import Parameter, ParameterValues
from containers.serving import storage
from containers.serving.app import create_app, header_value, result_type
from containers.serving.errors import ApiError
from containers.serving.film import MAX_FRAMES, Film
from containers.serving.limits import SOURCES_SECONDS
from containers.serving.model import Inputs, Picture, Progress, Report, Service
from tests.fakes.servers import wait_until

PARAMETERS = (
    Parameter("size", int, "ignored", 16, 2048),
    Parameter("style_weights", list, "ignored", 0, 10),
    Parameter("style_name", str, "ignored"),
)


def png(width: int = 32, height: int = 24) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    return buffer.getvalue()


class Recorder:
    """A model that returns the photograph and remembers its arguments, or raises `error`."""

    def __init__(self) -> None:
        self.styles_seen: list[int] = []
        self.options_seen: list[ParameterValues] = []
        self.error: Exception | None = None

    def styles(self) -> list[str]:
        return []

    def stylize(
        self,
        inputs: Inputs,
        options: ParameterValues,
        report: Report,
    ) -> Picture:
        if self.error:
            raise self.error
        report(Progress(1, 1, 1.0, picture=lambda: inputs.content))
        self.styles_seen.append(len(inputs.styles))
        self.options_seen.append(options)
        return Picture(inputs.content, {"steps": 1}, ["ä note"])


def loaded(application: Flask) -> FlaskClient:
    client = application.test_client()
    wait_until(lambda: client.get("/ping").status_code == 200, 30, "the model was not loaded")
    return client


@pytest.fixture
def model() -> Recorder:
    return Recorder()


@pytest.fixture
def nst(model: Recorder) -> FlaskClient:
    """A server whose requests bring images of the style."""
    return loaded(create_app(Service("nst", "s", True, PARAMETERS, ("size",), lambda: model)))


@pytest.fixture
def cyclegan(model: Recorder) -> FlaskClient:
    """A server whose requests name a style."""
    return loaded(create_app(Service("cyclegan", "s", False, PARAMETERS, ("size",), lambda: model)))


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What is at which URL, in place of S3."""
    held = {"s3://bucket/photo": png(), "s3://bucket/style": png(20, 20)}

    def write(
        url: str, data: bytes, content_type: str, name: str, seconds: float | None = None
    ) -> None:
        held[url] = data

    monkeypatch.setattr(storage, "read", lambda url, name, seconds=None: held[url])
    monkeypatch.setattr(storage, "write", write)
    return held


def code(answer: TestResponse) -> tuple[int, str]:
    body: Any = answer.get_json()
    return answer.status_code, body["error"]["code"]


def test_two_styles_arrive_with_their_weights(
    nst: FlaskClient, model: Recorder, objects: dict[str, bytes]
) -> None:
    body: dict[str, object] = {"content_url": "s3://bucket/photo"}
    body |= {"style_url": ["s3://bucket/style"] * 2, "style_weights": [2, 1], "size": 32}
    answer = nst.post("/invocations", json=body)
    assert answer.status_code == 200
    assert model.styles_seen == [2]
    assert model.options_seen == [{"style_weights": [2.0, 1.0], "size": 32}]


def test_masks_arrive_with_their_styles_and_are_checked_before_the_model_works(
    model: Recorder, objects: dict[str, bytes]
) -> None:
    counts: list[tuple[int, int]] = []

    def check_options(options: ParameterValues, style_count: int, mask_count: int) -> None:
        counts.append((style_count, mask_count))

    def check_inputs(inputs: Inputs) -> None:
        if [mask.size for mask in inputs.masks] != [inputs.content.size]:
            raise InvalidParameterError("The mask has another shape.")

    service = Service(
        "nst",
        "s",
        True,
        PARAMETERS,
        ("size",),
        lambda: model,
        check_options=check_options,
        check_inputs=check_inputs,
    )
    client = loaded(create_app(service))
    body = {"content_url": "s3://bucket/photo", "style_url": "s3://bucket/style"}
    refused = client.post("/invocations", json={**body, "mask_url": ["s3://bucket/style"]})
    assert code(refused) == (400, "bad_request")
    assert model.styles_seen == []
    assert client.post("/invocations", json={**body, "mask_url": "s3://bucket/photo"}).status == (
        "200 OK"
    )
    form = {name: (io.BytesIO(png()), f"{name}.png") for name in ("content", "style", "mask")}
    assert client.post("/invocations", data=form).status_code == 200
    assert model.styles_seen == [1, 1]
    assert counts == [(1, 1)] * 3


def test_all_sources_of_a_request_have_one_limit_of_time(
    nst: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds_given = []

    def read(url: str, name: str, seconds: float) -> bytes:
        seconds_given.append(seconds)
        time.sleep(0.1)
        return png()

    monkeypatch.setattr(storage, "read", read)
    body = {"content_url": "https://host/photo", "style_url": ["https://host/style"] * 3}
    assert nst.post("/invocations", json=body).status_code == 200
    assert seconds_given[0] <= SOURCES_SECONDS
    pauses = [before - after for before, after in itertools.pairwise(seconds_given)]
    assert len(pauses) == 3
    assert min(pauses) >= 0.1


def test_a_form_joins_repeated_fields(nst: FlaskClient, model: Recorder) -> None:
    form = {
        "content": (io.BytesIO(png()), "photo.png"),
        "style": [(io.BytesIO(png()), "a.png"), (io.BytesIO(png()), "b.png")],
        "style_weights": ["2", "1"],
    }
    assert nst.post("/invocations", data=form).status_code == 200
    assert model.styles_seen == [2]
    assert model.options_seen == [{"style_weights": [2.0, 1.0]}]


def test_the_result_and_the_progress_are_put_where_they_belong(
    nst: FlaskClient, objects: dict[str, bytes]
) -> None:
    body = {"content_url": "s3://bucket/photo", "style_url": "s3://bucket/style"}
    body |= {"result_url": "s3://bucket/out.webp", "progress_url": "s3://bucket/progress"}
    answer: Any = nst.post("/invocations", json=body).get_json()
    assert answer["result_url"] == "s3://bucket/out.webp"
    assert answer["size"] == [32, 24]
    assert answer["notes"] == ["ä note"]
    assert Image.open(io.BytesIO(objects["s3://bucket/out.webp"])).format == "WEBP"
    assert json.loads(objects["s3://bucket/progress"])["done"] == 1


def test_the_picture_is_put_a_second_time_without_loss(
    nst: FlaskClient, objects: dict[str, bytes]
) -> None:
    body = {"content_url": "s3://bucket/photo", "style_url": "s3://bucket/style"}
    body |= {"result_url": "s3://bucket/out.jpg", "lossless_url": "s3://bucket/out.png"}
    assert nst.post("/invocations", json=body).status_code == 200
    assert Image.open(io.BytesIO(objects["s3://bucket/out.jpg"])).format == "JPEG"
    lossless = Image.open(io.BytesIO(objects["s3://bucket/out.png"]))
    assert (lossless.format, lossless.getpixel((0, 0))) == ("PNG", (255, 0, 0))


def test_a_film_ends_with_the_result(nst: FlaskClient, objects: dict[str, bytes]) -> None:
    body = {"content_url": "s3://bucket/photo", "style_url": "s3://bucket/style"}
    body |= {"result_url": "s3://bucket/out.jpg", "film_url": "s3://bucket/film.gif"}
    assert nst.post("/invocations", json=body).status_code == 200
    film: Any = Image.open(io.BytesIO(objects["s3://bucket/film.gif"]))
    assert (film.format, film.size) == ("GIF", (32, 24))


def test_a_film_of_many_steps_has_few_small_frames() -> None:
    film = Film("s3://bucket/film.gif")
    for step in range(1, 1001):
        color = (step * 255 // 1000, 0, 0)
        film.add(
            Progress(step, 1000, step / 1000, picture=partial(Image.new, "RGB", (64, 48), color))
        )
    gif: Any = Image.open(io.BytesIO(film.encode(Image.new("RGB", (640, 480), "blue"))))
    assert gif.n_frames == MAX_FRAMES + 1
    assert gif.size == (320, 240)
    gif.seek(MAX_FRAMES)
    assert gif.convert("RGB").getpixel((0, 0)) == (0, 0, 255)
    assert gif.info["duration"] == 2000


def test_a_second_picture_that_cannot_be_stored_costs_nothing_else(
    nst: FlaskClient, objects: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = storage.write

    def refuse(
        url: str, data: bytes, content_type: str, name: str, seconds: float | None = None
    ) -> None:
        if name == "lossless_url":
            raise ApiError(ErrorCode.ACCESS_DENIED, "no")
        write(url, data, content_type, name, seconds)

    monkeypatch.setattr(storage, "write", refuse)
    body = {"content_url": "s3://bucket/photo", "style_url": "s3://bucket/style"}
    body |= {"result_url": "s3://bucket/out.jpg", "lossless_url": "s3://bucket/out.png"}
    assert nst.post("/invocations", json=body).status_code == 200
    assert "s3://bucket/out.jpg" in objects


def test_a_query_wins_over_the_custom_attributes(cyclegan: FlaskClient, model: Recorder) -> None:
    headers = {"X-Amzn-SageMaker-Custom-Attributes": "style=monet&size=64"}
    answer = cyclegan.post(
        "/invocations?size=32", data=png(), headers=headers, content_type="image/png"
    )
    assert answer.status_code == 200
    assert model.options_seen == [{"style_name": "monet", "size": 32}]


def test_style_is_short_for_style_name_which_wins(cyclegan: FlaskClient, model: Recorder) -> None:
    form = {"content": (io.BytesIO(png()), "a.png"), "style": "monet", "style_name": "cezanne"}
    assert cyclegan.post("/invocations", data=form).status_code == 200
    assert model.options_seen == [{"style_name": "cezanne"}]


def test_a_batch_of_json_lines_for_styles_by_image(
    nst: FlaskClient, objects: dict[str, bytes]
) -> None:
    row = {"content_url": "s3://bucket/photo", "result_url": "s3://bucket/out.png"}
    rows = [{**row, "style_url": "s3://bucket/style"}, row]
    body = "\n".join(json.dumps(row) for row in rows)
    answer = nst.post("/invocations", data=body, content_type="application/x-ndjson")
    first, second = (json.loads(line) for line in answer.text.splitlines())
    assert first["result_url"] == "s3://bucket/out.png"
    assert second["error"]["code"] == "bad_request"
    assert "style picture is missing" in second["error"]["message"]


@pytest.mark.parametrize("body", [b"\xff\xfe\xff", b'"' + b"x" * 200_000 + b'"'])
def test_a_csv_that_cannot_be_split_into_rows_is_an_error(nst: FlaskClient, body: bytes) -> None:
    answer = nst.post("/invocations", data=body, content_type="text/csv")
    assert code(answer) == (400, "bad_request")


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("application/json", b"{", (400, "bad_request")),
        ("application/json", b"[]", (400, "bad_request")),
        ("application/json", b"{}", (400, "bad_request")),
        ("application/json", b'{"content_url": "gopher://host/a"}', (400, "bad_request")),
        ("application/json", b'{"content_url": "s3://bucket"}', (400, "bad_request")),
        ("application/json", b'{"content_url": "https:///a"}', (400, "bad_request")),
        ("application/json", b'{"content_url": "https://u:p@host/a"}', (400, "bad_request")),
        ("application/json", b'{"content_url": "https://host:port/a"}', (400, "bad_request")),
        ("image/png", b"no picture", (422, "image_unreadable")),
        ("application/pdf", b"%PDF", (415, "unsupported_media_type")),
        ("text/csv", b"\n\n", (400, "bad_request")),
    ],
)
def test_each_mistake_has_its_answer(
    cyclegan: FlaskClient, content_type: str, body: bytes, expected: tuple[int, str]
) -> None:
    answer = cyclegan.post("/invocations", data=body, content_type=content_type)
    assert code(answer) == expected


@pytest.mark.parametrize(
    ("content_type", "body", "words"),
    [
        ("application/json", b"[" * 1900 + b"]" * 1900, "nested too deeply"),
        ("application/json", b'{"a":' * 1900 + b"1" + b"}" * 1900, "nested too deeply"),
        ("application/json", b"[" * 50_000 + b"]" * 50_000, "more than 2000 values"),
        ("application/json", b'{"a":[' + b"[]," * 80_000 + b"[]]}", "more than 2000 values"),
        ("application/json", b'{"size": ' + b"9" * 5000 + b"}", "too many digits"),
        ("application/json", b'{"size": 1e999, "content_url": "s3://b/a"}', "not inf"),
        ("application/json", b'{"size": NaN, "content_url": "s3://b/a"}', "not nan"),
        ("application/json", b'{"size": "%s", "content_url": "s3://b/a"}' % (b"9" * 9000), "9000"),
        ("application/json", b'{"content_url": "s3://b/%s"}' % (b"x" * 200_000), "200007"),
        ("application/json", b'{"style": "%s", "content_url": "s3://b/a"}' % (b"x" * 9000), "9000"),
        ("application/json", b'{"%s": 1, "content_url": "s3://b/a"}' % (b"x" * 9000), "xxx..."),
        ("application/json", b'{"content_url": "s3://b/\\ud800"}', "must be an address"),
        ("text/csv", b"\n" * 6_000_000, "more than 10000 lines"),
        ("text/csv", b"a,b,c\n" * 1001, "1001 rows"),
        ("text/csv", b"," * 1_000_000, "64 KB"),
        ("text/csv", b"a" * 6_000_000, "64 KB"),
        ("text/csv", b"\xff\n", "UTF-8"),
        ("application/jsonlines", b"\r\n" * 3_000_000, "more than 10000 lines"),
        ("application/jsonlines", b"{}\n" * 1001, "1001 rows"),
        ("application/jsonlines", b"[" * 5_000_000, "64 KB"),
    ],
)
def test_a_body_that_would_be_expensive_is_refused_with_the_reason(
    cyclegan: FlaskClient, content_type: str, body: bytes, words: str
) -> None:
    answer = cyclegan.post("/invocations", data=body, content_type=content_type)
    assert code(answer) == (400, "bad_request")
    assert words in answer.text
    assert len(answer.text) < 400, "it repeats what it was sent"


@pytest.mark.parametrize("content_type", ["text/csv", "application/jsonlines"])
def test_an_odd_row_is_told_in_its_line(cyclegan: FlaskClient, content_type: str) -> None:
    rows = [
        '"a',
        '"a"b,c',
        "," * 60_000,
        "[" * 30_000,
        '{"size": ' + "9" * 5000 + "}",
        "a\rb",
        "\ufeff{}",
    ]
    answer = cyclegan.post("/invocations", data="\n".join(rows), content_type=content_type)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["error"]["code"] for line in lines] == ["bad_request"] * len(rows)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\n \t\r\n"])
def test_a_batch_may_have_a_thousand_rows_blank_lines_and_a_byte_order_mark(
    cyclegan: FlaskClient, objects: dict[str, bytes], end: str
) -> None:
    row = "s3://bucket/photo,,s3://bucket/out.jpg,"
    rows = [row + "32", *[row + "x"] * 999]
    body = "\ufeff" + end.join(rows) + end
    answer = cyclegan.post("/invocations", data=body.encode(), content_type="text/csv")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert len(lines) == 1000
    assert ["error" in line for line in lines] == [False] + [True] * 999


@pytest.mark.parametrize(
    "fields",
    [
        [("size", "32")] * 101,
        [(f"name{number}", "32") for number in range(101)],
        [("size", "3" * 600_000)],
    ],
)
def test_a_form_with_too_many_parts_or_too_much_text_is_told_so(
    cyclegan: FlaskClient, fields: list[tuple[str, str]]
) -> None:
    form: MultiDict[str, object] = MultiDict(fields)
    form.add("content", (io.BytesIO(png()), "photo.png"))
    answer = cyclegan.post("/invocations", data=form, content_type="multipart/form-data")
    assert code(answer) == (400, "bad_request")
    assert "100 parts" in answer.text
    assert "8 KB in each" in answer.text


def test_the_body_of_a_refused_request_does_not_stay_in_memory(cyclegan: FlaskClient) -> None:
    class Body(io.BytesIO):
        pass

    body = Body(b"[" * 200_000)
    kept = weakref.ref(body)
    environ = create_environ(
        "/invocations",
        method="POST",
        content_type="application/json",
        content_length=200_000,
        input_stream=body,
    )
    gc.disable()  # It would find the body in the end
    try:
        # The test client would keep the request
        _, status, _ = run_wsgi_app(cyclegan.application, environ, buffered=True)
        assert status == "400 BAD REQUEST"
        del body, environ
        assert kept() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("files", [["content", "content"], ["contents"], []])
def test_a_form_needs_exactly_one_content(cyclegan: FlaskClient, files: list[str]) -> None:
    form: MultiDict[str, object] = MultiDict([("size", "32")])
    for name in files:
        form.add(name, (io.BytesIO(png()), f"{name}.png"))
    answer = cyclegan.post("/invocations", data=form, content_type="multipart/form-data")
    assert code(answer) == (400, "bad_request")


def test_a_csv_row_may_have_fewer_columns_but_not_more(
    cyclegan: FlaskClient, objects: dict[str, bytes]
) -> None:
    row = "s3://bucket/photo,negative,s3://bucket/out.jpg"
    body = f"{row}\n{row}, 32\n{row},32,1\ns3://bucket/photo\n"
    answer = cyclegan.post("/invocations", data=body, content_type="text/csv")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert ["error" in line for line in lines] == [False, False, True, True]
    assert "at most 4 columns" in lines[2]["error"]["message"]
    assert "result_url is missing" in lines[3]["error"]["message"]


def test_the_name_of_a_style_may_stand_alone_in_the_attributes(
    cyclegan: FlaskClient, model: Recorder
) -> None:
    headers = {"X-Amzn-SageMaker-Custom-Attributes": "monet"}
    cyclegan.post("/invocations", data=png(), headers=headers, content_type="image/png")
    assert model.options_seen == [{"style_name": "monet"}]


def test_a_model_that_cannot_be_loaded_says_why() -> None:
    def load() -> Recorder:
        raise FileNotFoundError("the weights are missing")

    client = create_app(Service("nst", "s", True, PARAMETERS, (), load)).test_client()
    wait_until(lambda: code(client.get("/ping")) == (503, "broken"), 30, "never broken")
    assert "the weights are missing" in client.get("/ping").text


def test_an_error_of_the_model_keeps_its_code(cyclegan: FlaskClient, model: Recorder) -> None:
    model.error = DivergedError("No finite picture.")
    form = {"content": (io.BytesIO(png()), "a.png")}
    assert code(cyclegan.post("/invocations", data=form)) == (400, "diverged")
    assert cyclegan.get("/ping").status_code == 200


def test_a_fatal_error_ends_the_health(cyclegan: FlaskClient, model: Recorder) -> None:
    model.error = FatalError("CUDA error")
    form = {"content": (io.BytesIO(png()), "a.png")}
    assert code(cyclegan.post("/invocations", data=form)) == (500, "internal")
    assert code(cyclegan.get("/ping")) == (503, "broken")


def test_a_path_or_method_that_does_not_exist_is_told_in_json(nst: FlaskClient) -> None:
    assert code(nst.get("/static/x")) == (404, "not_found")
    assert code(nst.post("/ping")) == (405, "method_not_allowed")


def test_the_index_of_a_server_for_images_explains_both_ways(nst: FlaskClient) -> None:
    text = nst.get("/").text
    assert "style=@painting.jpg" in text
    assert '"style_url": "s3://bucket/painting.jpg"' in text
    about: Any = nst.get("/", headers={"Accept": "application/json"}).get_json()
    assert about["styles"] == []
    assert [parameter["name"] for parameter in about["parameters"]] == [p.name for p in PARAMETERS]


def test_before_the_model_is_loaded_there_are_no_styles() -> None:
    may_load = threading.Event()

    def load() -> Recorder:
        may_load.wait(60)
        return Recorder()

    service = Service("cyclegan", "s", False, PARAMETERS, (), load)
    client = create_app(service).test_client()
    assert code(client.get("/ping")) == (503, "loading")
    assert "Styles: none yet" in client.get("/").text
    may_load.set()


@pytest.mark.parametrize(
    ("accept", "url", "expected"),
    [
        ("", None, "image/jpeg"),
        ("text/html, image/webp;q=0.1, image/png", "s3://b/a.png", "image/webp"),
        ("*/*", "s3://b/a.PNG?signature", "image/png"),
        ("", "s3://b/a.gif", "image/jpeg"),
    ],
)
def test_the_type_of_a_result(accept: str, url: str | None, expected: str) -> None:
    assert result_type(accept, url) == expected


def test_a_header_leaves_the_notes_out_where_they_are_too_long() -> None:
    short = {"size": [1, 1], "notes": ["ä"]}
    assert json.loads(header_value(short)) == short
    assert header_value(short).isascii()
    assert json.loads(header_value({**short, "notes": ["x" * 2000]})) == {**short, "notes": []}
