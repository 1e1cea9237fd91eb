"""Parsing of a request's body, in each of the accepted content types, into jobs."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import parse_qsl

from flask import Request
from werkzeug.datastructures import MultiDict

from containers.common.errors import ErrorCode, StylizeError
from containers.common.parameters import ParameterValues, parse_parameters

from .errors import ApiError, as_api_error, bad_request
from .model import Service
from .storage import check_url, extension

BATCH_TYPES = ("text/csv", "application/jsonlines", "application/x-ndjson", "application/jsonl")

# Fields by name, as JSON, a form, a query or a CSV row brought them; not yet checked.
Fields = dict[str, object]
Row = TypeVar("Row")


@dataclass(frozen=True)
class Job:
    """One picture to make.

    content, styles: the bytes of a file, or a URL, which is checked but not yet read.
    """

    content: bytes | str
    styles: list[bytes | str] = field(default_factory=list)
    options: ParameterValues = field(default_factory=dict)
    result_url: str | None = None
    progress_url: str | None = None


@dataclass(frozen=True)
class CatalogJob:
    """A catalog of the model's styles to write. catalog_url: of its JSON file."""

    catalog_url: str


def parse_job(service: Service, request: Request) -> Job | CatalogJob:
    """Return the job of a request that is not a batch.

    Raises ApiError bad_request, unsupported_media_type, or private_address.
    """
    mimetype = request.mimetype
    if mimetype == "application/json":
        fields = parse_json(request.get_data())
        if service.has_catalog and "catalog_url" in fields:
            return catalog_job(fields)
        return job_from_fields(service, fields)
    if mimetype == "multipart/form-data":
        return job_from_form(service, request)
    if mimetype.startswith("image/") and not service.styled_by_image:
        return job_from_image(service, request)

    accepted = ["application/json", "multipart/form-data", *BATCH_TYPES[:2]]
    if not service.styled_by_image:
        accepted.append("image/*")
    raise ApiError(
        ErrorCode.UNSUPPORTED_MEDIA_TYPE,
        f"Content-Type {mimetype or 'none'!r} is not taken. Send {', '.join(accepted)}.",
    )


# --- batches ---


def parse_batch(service: Service, request: Request) -> list[Job | ApiError]:
    """Return a job for each row, or the error of that row. Blank rows are skipped.

    Raises ApiError bad_request if the body cannot be split into rows.
    """
    try:
        text = request.get_data().decode("utf-8-sig")
        if request.mimetype == "text/csv":
            rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
            return [job_or_error(service, csv_fields, row) for row in rows]
    except (UnicodeDecodeError, csv.Error):
        raise bad_request(f"The body is not readable as {request.mimetype} in UTF-8.") from None

    lines = [line for line in text.split("\n") if line.strip()]
    return [job_or_error(service, json_fields, line) for line in lines]


def job_or_error(
    service: Service, read_fields: Callable[[Service, Row], Fields], row: Row
) -> Job | ApiError:
    try:
        job = job_from_fields(service, read_fields(service, row))
        if not job.result_url:
            raise bad_request(
                "result_url is missing; a row of a batch needs a place for its picture."
            )
    except StylizeError as error:
        return as_api_error(error)
    return job


def csv_fields(service: Service, row: list[str]) -> Fields:
    style = "style_url" if service.styled_by_image else "style_name"
    columns = ["content_url", style, "result_url", *service.batch_columns]
    if len(row) > len(columns):
        raise bad_request(f"A row has at most {len(columns)} columns: {', '.join(columns)}.")
    return {name: cell.strip() for name, cell in zip(columns, row, strict=False)}


def json_fields(service: Service, line: str) -> Fields:
    return parse_json(line.encode())


# --- a catalog ---


def catalog_job(fields: Fields) -> CatalogJob:
    """Return the job of a request for a catalog. Raises ApiError bad_request."""
    others = sorted(set(fields) - {"catalog_url"})
    if others:
        raise bad_request(
            f"A request with catalog_url has no other field, such as {others[0]!r:.60}."
        )
    url = check_url(fields["catalog_url"], "catalog_url")
    # The pictures go beside it, where a signature would not be valid
    if "?" in url or "#" in url:
        raise bad_request("catalog_url must not have a query: its pictures are put beside it.")
    if extension(url) != ".json":
        raise bad_request("catalog_url must end in .json, such as s3://bucket/models/catalog.json.")
    return CatalogJob(url)


# --- one picture ---


def parse_json(data: bytes) -> Fields:
    try:
        fields = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise bad_request("The body is not valid JSON.") from None
    if not isinstance(fields, dict):
        raise bad_request('The body must be a JSON object, such as {"content_url": ...}.')
    return fields


def job_from_fields(service: Service, given: Fields) -> Job:
    """Return a job whose images are URLs."""
    fields = dict(given)
    content = fields.pop("content_url", None)
    result = fields.pop("result_url", None)
    progress = fields.pop("progress_url", None)
    styles: list[object] = []
    if service.styled_by_image:
        styles = as_list(fields.pop("style_url", None))

    if not content:
        raise bad_request("content_url is missing: the address of the photograph.")
    return Job(
        content=check_url(content, "content_url"),
        styles=[check_url(style, "style_url") for style in styles],
        options=parse_options(service, fields, len(styles)),
        result_url=check_url(result, "result_url") if result else None,
        progress_url=check_url(progress, "progress_url") if progress else None,
    )


def job_from_form(service: Service, request: Request) -> Job:
    """Return a job whose images are the files of a form."""
    files = {name: [item.read() for item in request.files.getlist(name)] for name in request.files}
    contents = files.pop("content", [])
    styles: list[bytes] = []
    if service.styled_by_image:
        styles = files.pop("style", [])

    if files:
        names = "content and style" if service.styled_by_image else "content"
        raise bad_request(f"There is no file field {sorted(files)[0]!r:.60}; send {names}.")
    if len(contents) != 1:
        raise bad_request(
            "Send exactly one file as the field content, for example with "
            "curl -F content=@photo.jpg"
        )
    options = parse_options(service, single_values(request.form), len(styles))
    return Job(contents[0], list(styles), options)


def job_from_image(service: Service, request: Request) -> Job:
    """Return a job whose body is the photograph.

    The other fields are in the query or in SageMaker's custom attributes: "style=monet&size=640",
    or only the style's name.
    """
    attributes = request.headers.get("X-Amzn-SageMaker-Custom-Attributes", "")
    if attributes and "=" not in attributes:
        attributes = f"style={attributes}"
    fields: Fields = {**dict(parse_qsl(attributes)), **single_values(request.args)}
    return Job(request.get_data(), options=parse_options(service, fields, 0))


def parse_options(
    service: Service, given: Mapping[str, object], style_count: int
) -> ParameterValues:
    fields = dict(given)
    if service.styled_by_image and style_count == 0:
        raise bad_request(
            "A style picture is missing: style_url in JSON and CSV, the file field style in a form."
        )
    # `style` is the short form of style_name
    if not service.styled_by_image and "style" in fields:
        style = fields.pop("style")
        fields.setdefault("style_name", style)
    options = parse_parameters(service.parameters, fields)
    service.check_options(options, style_count)
    return options


def single_values(fields: MultiDict[str, str]) -> Fields:
    """Return the value of each field; the values of a repeated field are joined with commas."""
    return {name: ",".join(fields.getlist(name)) for name in fields}


def as_list(value: object) -> list[object]:
    if not value:
        return []
    if isinstance(value, list):
        return value
    return [value]
