"""The HTTP contract of SageMaker's hosting, asynchronous inference and batch transform, around one model."""

import json
import resource
import sys
import threading
import time
import traceback
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from . import images, storage
from .errors import RequestError, bad_request
from .model import FatalError, Model, Picture, Progress, Service
from .parsing import BATCH_TYPES, Job, parse_batch, parse_job
from .progress import ProgressWriter
from .turns import Turns

MAX_BODY_MEGABYTES = 100
MAX_QUEUE = 8
LONGEST_SIDE = 2048  # of any picture made; inputs are shrunk to it while they are decoded


class Server:
    """One model, its health and its queue."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.model: Model | None = None
        self.fault: str | None = None
        self.turns = Turns(MAX_QUEUE)
        self.last_seconds = 10.0  # how long a job takes, until one has been done

    def load(self) -> None:
        """Loads the model and proves it; /ping tells how that ended."""
        started = time.monotonic()
        try:
            self.model = self.service.load()
        except Exception as error:  # whatever it is, the server stays up to tell it
            traceback.print_exc()
            self.fault = f"The model could not be loaded: {error}"
        write_log(
            event="loaded",
            model=self.service.name,
            fault=self.fault,
            seconds=seconds_since(started),
        )

    def health(self) -> RequestError | None:
        """None when the model works."""
        if self.fault is not None:
            return RequestError(503, "broken", self.fault)
        if self.model is None:
            return RequestError(
                503,
                "loading",
                "The model is being loaded. Try again in a few seconds.",
                retry_after=5,
            )
        return None

    def run(self, job: Job, entry: dict[str, Any]) -> tuple[Picture, float]:
        """The job's picture and its seconds on the model; `entry` is filled for the log."""
        content = self.image(job.content, "content", entry)
        styles = [self.image(style, "style", entry) for style in job.styles]
        progress = ProgressWriter(job.progress_url)

        def report(step: Progress) -> bool:
            progress(step)
            return self.turns.stopping.is_set()

        def paint() -> tuple[Picture, float]:
            assert self.model is not None
            started = time.monotonic()
            return self.model.paint(content, styles, job.options, report), seconds_since(started)

        try:
            picture, self.last_seconds = self.turns.run(paint)
        except FatalError as error:
            self.fault = f"The model is broken and has to be started again: {error}"
            raise
        finally:
            progress.finish()
        entry.update(seconds=self.last_seconds, size=list(picture.image.size), **picture.facts)
        return picture, self.last_seconds

    def image(self, source: bytes | str, role: str, entry: dict[str, Any]) -> images.Image.Image:
        data = storage.read(source, f"{role}_url") if isinstance(source, str) else source
        image = images.decode(data, LONGEST_SIDE, f"{role} image")
        entry.setdefault(f"{role}_sizes", []).append(list(image.size))
        return image

    def answer(self, job: Job, accept: str, entry: dict[str, Any]) -> Response:
        """The picture itself, or, where the job has a result_url, JSON that tells where it lies."""
        picture, seconds = self.run(job, entry)
        content_type = result_type(accept, job.result_url)
        data = images.encode(picture.image, content_type)
        facts = {
            "size": list(picture.image.size),
            "seconds": seconds,
            **picture.facts,
            "notes": picture.notes,
        }
        if job.result_url is None:
            response = Response(data, content_type=content_type)
            response.headers["X-Amzn-SageMaker-Custom-Attributes"] = header_value(facts)
            return response
        storage.write(job.result_url, data, content_type, "result_url")
        return json_response({"result_url": storage.without_query(job.result_url), **facts})


def create_app(service: Service) -> Flask:
    """The WSGI application. The model is loaded in the background: /ping is answered from the first moment."""
    app = Flask("stylebot")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_MEGABYTES << 20
    app.json.ensure_ascii = True  # type: ignore[attr-defined]
    server = Server(service)
    app.extensions["stylebot"] = server
    threading.Thread(target=server.load, name="load", daemon=True).start()

    @app.get("/ping")
    def ping() -> Response:
        error = server.health()
        return Response(status=200) if error is None else error_response(error)

    @app.get("/execution-parameters")
    def execution_parameters() -> Response:
        # One row a call: a call may take 600 s by default, and a row of NST takes minutes on a small GPU.
        return json_response(
            {"MaxConcurrentTransforms": 1, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 6}
        )

    @app.get("/")
    def index() -> Response:
        styles = list(server.model.styles()) if server.model else []
        if "application/json" in request.headers.get("Accept", ""):
            return json_response({"name": service.name, "styles": styles})
        return Response(usage(service, styles), content_type="text/plain; charset=utf-8")

    @app.post("/invocations")
    def invocations() -> Response:
        entry: dict[str, Any] = {"event": "request", "inference_id": inference_id()}
        started = time.monotonic()
        try:
            response = invoke(server, entry)
        except (
            Exception
        ) as error:  # the last resort of a request: whatever it is, its sender is told in words
            told = as_request_error(error)
            entry["error"] = told.code
            response = error_response(told)
        write_log(
            **entry,
            status=response.status_code,
            total_seconds=seconds_since(started),
            memory_mb=peak_memory(),
        )
        return response

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        return error_response(as_request_error(error))

    return app


def invoke(server: Server, entry: dict[str, Any]) -> Response:
    """What /invocations does; raises RequestError and HTTPException."""
    if error := server.health():
        raise error
    # The body is read before a place is taken: a slow upload keeps nobody waiting, and no answer comes before its end.
    if request.mimetype not in BATCH_TYPES:
        job = parse_job(server.service, request)
        with server.turns.admission(server.last_seconds):
            return server.answer(job, request.headers.get("Accept", ""), entry)
    rows = list(parse_batch(server.service, request))
    if not rows:
        raise bad_request("The batch has no rows.")
    entry["rows"] = len(rows)
    with server.turns.admission(server.last_seconds):
        lines = [batch_line(server, row, entry) for row in rows]
    return Response("".join(lines), content_type="application/jsonlines")


def batch_line(server: Server, job: Job | RequestError, entry: dict[str, Any]) -> str:
    """One row's answer: an error is told in its own row, and the other rows go on."""
    try:
        if isinstance(job, RequestError):
            raise job
        body = server.answer(job, "", entry).get_json()
    except Exception as error:  # as for a whole request
        body = as_request_error(error).body()
    return json.dumps(body) + "\n"


def as_request_error(error: Exception) -> RequestError:
    """What the sender is told of `error`; a fault of our own is printed to the log and told without its details."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, HTTPException) and error.code == 413:
        return RequestError(
            413,
            "body_too_large",
            f"The body has more than {MAX_BODY_MEGABYTES} MB. Send a smaller one.",
        )
    if isinstance(error, HTTPException):
        return RequestError(
            error.code or 500, error.name.lower().replace(" ", "_"), error.description or error.name
        )
    traceback.print_exception(error)
    return RequestError(
        500, "internal", "The picture could not be made because of a fault on our side. Try again."
    )


def result_type(accept: str, result_url: str | None) -> str:
    """The image type that Accept names, or else the one of the result's file name, or else JPEG."""
    named = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    for content_type in named:
        if content_type in images.ENCODINGS:
            return content_type
    return images.EXTENSIONS.get(storage.extension(result_url or ""), "image/jpeg")


def json_response(body: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(body) + "\n", status, content_type="application/json")


def error_response(error: RequestError) -> Response:
    response = json_response(error.body(), error.status)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def header_value(facts: dict[str, Any]) -> str:
    """`facts` as JSON in ASCII; SageMaker hands on at most 1024 characters, so notes go first if need be."""
    text = json.dumps(facts)
    if len(text) > 1024:
        text = json.dumps({**facts, "notes": []})
    return text


def inference_id() -> str:
    return request.headers.get("X-Amzn-SageMaker-Inference-Id", "")[:64]


def seconds_since(started: float) -> float:
    return round(time.monotonic() - started, 3)


def peak_memory() -> int:
    """The process's largest resident set so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def write_log(**entry: Any) -> None:  # noqa: ANN401 - what JSON can hold
    """One line of JSON on standard output. What is logged is named by the caller: never an address, never pixels."""
    sys.stdout.write(json.dumps(entry) + "\n")
    sys.stdout.flush()


def usage(service: Service, styles: list[str]) -> str:
    """One screen of plain text: what this is and how to use it."""
    port = request.host
    lines = [f"stylebot {service.name}: {service.summary}", ""]
    if service.styled_by_image:
        lines += [
            f"  curl -F content=@photo.jpg -F style=@painting.jpg http://{port}/invocations -o result.jpg",
            f"  curl -F content=@photo.jpg -F style=@a.jpg -F style=@b.jpg -F style_weights=2,1 -F size=640 \\\n"
            f"       -H 'Accept: image/png' http://{port}/invocations -o result.png",
        ]
        style_field = '"style_url": "s3://bucket/painting.jpg"'
    else:
        style = styles[0] if styles else "monet"
        lines += [
            f"Styles: {', '.join(styles) or 'none yet'}",
            "",
            f"  curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' \\\n"
            f"       'http://{port}/invocations?style={style}' -o result.jpg",
            f"  curl -F content=@photo.jpg -F style={style} http://{port}/invocations -o result.jpg",
        ]
        style_field = f'"style_name": "{style}"'
    lines += [
        f"  curl -H 'Content-Type: application/json' http://{port}/invocations -d \\\n"
        f'       \'{{"content_url": "s3://bucket/photo.jpg", {style_field}, "result_url": "s3://bucket/result.jpg"}}\'',
        "",
        "Parameters:",
    ]
    width = max(len(parameter.name) for parameter in service.parameters)
    for parameter in service.parameters:
        lines.append(f"  {parameter.name:<{width}}  {parameter.meaning}; {parameter.expected()}")
    lines += [
        "",
        "Also: text/csv and application/jsonlines (a batch), GET /ping, GET /execution-parameters",
    ]
    return "\n".join(lines) + "\n"
