"""From a request's body, in any of the content types that are taken, to jobs."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from flask import Request
from werkzeug.datastructures import MultiDict

from containers.common.parameters import parse_parameters

from .errors import RequestError, bad_request
from .model import Service
from .storage import check_url

BATCH_TYPES = ("text/csv", "application/jsonlines", "application/x-ndjson", "application/jsonl")


@dataclass(frozen=True)
class Job:
    """One picture to make. content, styles: a file's bytes, or the address of one (checked, not yet read)."""

    content: bytes | str
    styles: list[bytes | str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    result_url: str | None = None
    progress_url: str | None = None


def parse_job(service: Service, request: Request) -> Job:
    """The one job of a request that is no batch. Raises RequestError 400, or 415 for a type that is not taken."""
    mimetype = request.mimetype
    if mimetype == "application/json":
        return job_from_fields(service, parse_json(request.get_data()))
    if mimetype == "multipart/form-data":
        return job_from_form(service, request)
    if mimetype.startswith("image/") and not service.styled_by_image:
        return job_from_image(service, request)
    taken = ["application/json", "multipart/form-data", *BATCH_TYPES[:2]]
    if not service.styled_by_image:
        taken.append("image/*")
    raise RequestError(
        415,
        "unsupported_media_type",
        f"Content-Type {mimetype or 'none'!r} is not taken. Send {', '.join(taken)}.",
    )


def parse_batch(service: Service, request: Request) -> Iterator[Job | RequestError]:
    """A job for each row, or the error that the row ends in. Raises RequestError 400 where there are no rows at all."""
    try:
        text = request.get_data().decode("utf-8-sig")
        rows = (
            list(csv.reader(io.StringIO(text, newline="")))
            if request.mimetype == "text/csv"
            else text.split("\n")
        )
    except (UnicodeDecodeError, csv.Error):
        raise bad_request(f"The body is not readable as {request.mimetype} in UTF-8.") from None
    for row in rows:
        if not row or (isinstance(row, str) and not row.strip()):
            continue
        try:
            yield job_from_row(service, row)
        except RequestError as error:
            yield error


def job_from_row(service: Service, row: list[str] | str) -> Job:
    if isinstance(row, str):
        fields = parse_json(row.encode())
    else:
        style = "style_url" if service.styled_by_image else "style_name"
        columns = ("content_url", style, "result_url", *service.batch_columns)
        if len(row) > len(columns):
            raise bad_request(f"A row has at most {len(columns)} columns: {', '.join(columns)}.")
        fields = {name: cell.strip() for name, cell in zip(columns, row, strict=False)}
    job = job_from_fields(service, fields)
    if not job.result_url:
        raise bad_request("result_url is missing; a row of a batch needs a place for its picture.")
    return job


def parse_json(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise bad_request("The body is not valid JSON.") from None
    if not isinstance(fields, dict):
        raise bad_request('The body must be a JSON object, such as {"content_url": ...}.')
    return fields


def job_from_fields(service: Service, fields: Mapping[str, Any]) -> Job:
    """A job whose pictures are addresses."""
    fields = dict(fields)
    content = fields.pop("content_url", None)
    result = fields.pop("result_url", None) or None
    progress = fields.pop("progress_url", None) or None
    styles = as_list(fields.pop("style_url", None)) if service.styled_by_image else []
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
    """A job whose pictures are the files of a form."""
    files = {name: [item.read() for item in request.files.getlist(name)] for name in request.files}
    contents = files.pop("content", [])
    styles = files.pop("style", []) if service.styled_by_image else []
    if files:
        names = "content and style" if service.styled_by_image else "content"
        raise bad_request(f"There is no file field {sorted(files)[0]!r:.60}; send {names}.")
    if len(contents) != 1:
        raise bad_request(
            "Send exactly one file as the field content, for example with curl -F content=@photo.jpg"
        )
    return Job(
        contents[0], list(styles), parse_options(service, single_values(request.form), len(styles))
    )


def job_from_image(service: Service, request: Request) -> Job:
    """A job whose body is the photograph; the rest is in the query or in SageMaker's custom attributes."""
    attributes = request.headers.get("X-Amzn-SageMaker-Custom-Attributes", "")
    if attributes and "=" not in attributes:
        attributes = f"style={attributes}"
    fields = dict(parse_qsl(attributes)) | single_values(request.args)
    return Job(request.get_data(), options=parse_options(service, fields, 0))


def parse_options(service: Service, fields: Mapping[str, Any], style_count: int) -> dict[str, Any]:
    fields = dict(fields)
    if service.styled_by_image:
        if style_count == 0:
            raise bad_request(
                "A style picture is missing: style_url in JSON and CSV, the file field style in a form."
            )
    elif "style" in fields:
        fields.setdefault("style_name", fields.pop("style"))
    try:
        return parse_parameters(service.parameters, fields)
    except ValueError as error:
        raise bad_request(str(error)) from None


def single_values(fields: MultiDict[str, str]) -> dict[str, str]:
    """Each field's value; one that is repeated is a list, written with commas."""
    return {name: ",".join(fields.getlist(name)) for name in fields}


def as_list(value: object) -> list[Any]:
    if not value:
        return []
    return value if isinstance(value, list) else [value]
