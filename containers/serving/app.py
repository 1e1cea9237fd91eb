"""The HTTP server of one model, by SageMaker's contract for hosting and batch transform.

docs/contract.md describes it.
"""

import json
import resource
import threading
import time
from collections.abc import Mapping

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from containers.common.log import write_log

from . import catalog, images, openapi, storage
from .about import describe, usage
from .control import Control, watch
from .errors import ApiError, ClientGoneError, as_api_error, bad_request
from .film import Film
from .front import GONE
from .limits import BATCH_TYPES, MAX_BATCH_MEGABYTES, MAX_BODY_MEGABYTES
from .model import Inputs, Service
from .parsing import CatalogJob, Job, parse_batch, parse_job
from .server import RequestLog, Server, read_all, seconds_since

TEXT = "text/plain"
JSON = "application/json"
JSON_LINES = "application/jsonlines"
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
CUSTOM_ATTRIBUTES_LENGTH = 1024  # SageMaker passes on no more
INFERENCE_ID = "X-Amzn-SageMaker-Inference-Id"
INFERENCE_ID_LENGTH = 64
# For storing what belongs to a picture, beside the picture itself.
EXTRA_SECONDS = 20.0
CLIENT_GONE = 499  # nginx's number for it; nobody receives it

# For SageMaker's batch transform. One row a call: a call may take 600 s by default, and a row of
# NST takes minutes on a small GPU.
EXECUTION_PARAMETERS = {
    "MaxConcurrentTransforms": 1,
    "BatchStrategy": "SINGLE_RECORD",
    "MaxPayloadInMB": MAX_BATCH_MEGABYTES,
}


def create_app(service: Service) -> Flask:
    """Return the WSGI application.

    The model is loaded in the background, so /ping is answered from the first moment.
    """
    app = Flask("stylebot", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_MEGABYTES << 20
    server = Server(service)
    app.extensions["stylebot"] = server
    threading.Thread(target=server.load, name="load", daemon=True).start()

    @app.get("/ping")
    def ping() -> Response:
        if error := server.health():
            return error_response(error)
        return Response(status=200)

    @app.get("/execution-parameters")
    def execution_parameters() -> Response:
        return json_response(EXECUTION_PARAMETERS)

    @app.get("/openapi.json")
    def description() -> Response:
        return json_response(openapi.document(service))

    @app.get("/")
    def about() -> Response:
        # At equal quality the first type wins, so */* gets text
        content_type = request.accept_mimetypes.best_match([TEXT, JSON], default=TEXT)
        if content_type == JSON:
            response = json_response(describe(service, server.styles()))
        else:
            text = usage(service, server.styles(), request.host)
            response = Response(text, content_type=f"{TEXT}; charset=utf-8")
        response.headers["Vary"] = "Accept"
        return response

    @app.post("/invocations")
    def invocations() -> Response:
        started = time.monotonic()
        inference_id = request.headers.get(INFERENCE_ID, "")[:INFERENCE_ID_LENGTH]
        log = RequestLog(inference_id)
        # Only the front knows when a client leaves
        gone = request.environ.get(GONE) or threading.Event()
        try:
            response = invoke(server, log, gone)
        except ClientGoneError:
            log.error = "client_gone"
            response = Response(status=CLIENT_GONE)  # for the log
        except Exception as error:  # Whatever it is, the client gets an answer in words
            response = answer_error(error, log)
        write_log(
            "request",
            **log.fields(),
            status=response.status_code,
            total_seconds=seconds_since(started),
            memory_mb=peak_memory(),
        )
        return response

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        response = error_response(as_api_error(error))
        if isinstance(error, MethodNotAllowed):
            response.allow.update(error.valid_methods or [])
        return response

    return app


def answer_error(error: Exception, log: RequestLog) -> Response:
    """Return the answer about `error`.

    No frame of its traceback may have a variable that refers to it: such a cycle keeps the
    request's body, up to 100 MB, in memory until Python looks for cycles.
    """
    api_error = as_api_error(error)
    log.error = api_error.code
    return error_response(api_error)


def invoke(server: Server, log: RequestLog, gone: threading.Event) -> Response:
    """Answer /invocations. Raises StylizeError, HTTPException, FatalError and ClientGoneError.

    The body and the images are read before a place in the queue is taken, so that a slow upload or
    a slow source delays nobody. A batch has a place from the beginning: its rows are read one after
    the other.
    """
    if error := server.health():
        raise error
    if request.mimetype in BATCH_TYPES:
        return invoke_batch(server, log, gone)

    job = parse_job(server.service, request)
    if isinstance(job, CatalogJob):
        with server.queue.admission(server.last_seconds):
            return answer_catalog(server, job, log, gone)

    server.queue.check(server.last_seconds)
    with watch(job.control_url, gone) as control:
        inputs = server.read_inputs(job, log, control.gone)
        with server.queue.admission(server.last_seconds):
            accept = request.headers.get("Accept", "")
            return answer(server, job, inputs, accept, log, control)


def invoke_batch(server: Server, log: RequestLog, gone: threading.Event) -> Response:
    with server.batch_admission():
        rows = parse_batch(server.service, request)
        if not rows:
            raise bad_request("The batch has no rows.")
        log.rows = len(rows)
        lines = [batch_line(server, row, log, gone) for row in rows]
    return Response("".join(lines), content_type=JSON_LINES)


def batch_line(server: Server, row: Job | ApiError, log: RequestLog, gone: threading.Event) -> str:
    """Return the answer to one row. An error is told in its own row; the other rows go on."""
    try:
        if isinstance(row, ApiError):
            raise row
        with watch(row.control_url, gone) as control:
            inputs = read_all(server.service, row, log, control.gone)
            body = answer(server, row, inputs, "", log, control).get_json()
    except ClientGoneError:
        raise
    except Exception as error:  # As for a whole request
        body = as_api_error(error).body()
    return json.dumps(body) + "\n"


def answer(
    server: Server,
    job: Job,
    inputs: Inputs,
    accept: str,
    log: RequestLog,
    control: Control,
) -> Response:
    """Run the job and return the picture, or, if the job has a result_url, JSON about it."""
    film = Film(job.film_url)
    picture, seconds = server.run(job, inputs, log, control, film)
    content_type = result_type(accept, job.result_url)
    data = images.encode(picture.image, content_type)
    facts = {
        "size": picture.image.size,
        "seconds": seconds,
        **picture.facts,
        # Whoever updates an endpoint sees by it that a new instance has made the picture.
        "server_started": server.started,
        "notes": picture.notes,
    }
    if job.result_url is None:
        response = Response(data, content_type=content_type)
        response.headers[CUSTOM_ATTRIBUTES] = header_value(facts)
        return response

    storage.write(job.result_url, data, content_type, "result_url")
    if job.lossless_url is not None:
        data = images.encode(picture.image, "image/png")
        write_extra(job.lossless_url, data, "image/png", "lossless_url")
    if job.film_url is not None and film.frames:
        write_extra(job.film_url, film.encode(picture.image), "image/gif", "film_url")
    return json_response({"result_url": storage.without_query(job.result_url), **facts})


def write_extra(url: str, data: bytes, content_type: str, name: str) -> None:
    """Put a file beside the picture. A store that fails costs only that file."""
    try:
        storage.write(url, data, content_type, name, seconds=EXTRA_SECONDS)
    except ApiError as error:
        write_log("not stored", what=name, error=error.code)


def answer_catalog(
    server: Server, job: CatalogJob, log: RequestLog, gone: threading.Event
) -> Response:
    """Write the catalog of the model's styles. Return JSON about it."""
    started = time.monotonic()
    samples = server.make_samples(gone)
    catalog.write(job.catalog_url, samples)
    log.catalog = [sample.name for sample in samples]
    body = {
        "catalog_url": job.catalog_url,
        "styles": log.catalog,
        "seconds": seconds_since(started),
    }
    return json_response(body)


def result_type(accept: str, result_url: str | None) -> str:
    """Return the first image type that Accept names, or the type of result_url's name, or JPEG."""
    for part in accept.split(","):
        content_type = part.partition(";")[0].strip().lower()
        if content_type in images.ENCODINGS:
            return content_type
    return images.EXTENSIONS.get(storage.extension(result_url or ""), "image/jpeg")


def json_response(body: Mapping[str, object], status: int = 200) -> Response:
    return Response(json.dumps(body) + "\n", status, content_type=JSON)


def error_response(error: ApiError) -> Response:
    response = json_response(error.body(), error.status)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def header_value(facts: Mapping[str, object]) -> str:
    """Return `facts` as JSON in ASCII, without the notes if it would be too long for SageMaker."""
    text = json.dumps(facts)
    if len(text) > CUSTOM_ATTRIBUTES_LENGTH:
        return json.dumps({**facts, "notes": []})
    return text


def peak_memory() -> int:
    """Return the process's largest resident set so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
