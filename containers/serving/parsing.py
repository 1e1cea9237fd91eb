"""Parsing of a request's body, in each of the accepted content types, into jobs."""

import codecs
import csv
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from flask import Request
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import RequestEntityTooLarge

from containers.common.errors import ErrorCode, StylizeError
from containers.common.parameters import ParameterValues, parse_parameters

from .errors import ApiError, as_api_error, bad_request, body_too_large
from .limits import (
    BATCH_TYPES,
    MAX_BATCH_ROWS,
    MAX_FIELD_KILOBYTES,
    MAX_FORM_PARTS,
    MAX_LINE_KILOBYTES,
    body_limit,
)
from .model import Service
from .storage import check_url, extension

# Lines of a batch, blank ones included.
MAX_BATCH_LINES = 10 * MAX_BATCH_ROWS

# Only one thread at a time parses JSON or CSV. json holds the interpreter while it parses a body,
# and /ping then waits for one such body instead of a dozen.
parsing = threading.Lock()

# In one JSON object or CSV row, counted by what separates them. A request has some twenty.
MAX_VALUES = 2000

# Fields by name, as JSON, a form, a query or a CSV row brought them; not yet checked.
Fields = dict[str, object]


@dataclass(frozen=True)
class Job:
    """One picture to make.

    content, styles, masks: the bytes of a file, or a URL, which is checked but not yet read.
    """

    content: bytes | str
    styles: list[bytes | str] = field(default_factory=list)
    masks: list[bytes | str] = field(default_factory=list)
    options: ParameterValues = field(default_factory=dict)
    result_url: str | None = None
    lossless_url: str | None = None
    film_url: str | None = None
    progress_url: str | None = None
    control_url: str | None = None


@dataclass(frozen=True)
class CatalogJob:
    """A catalog of the model's styles to write. catalog_url: of its JSON file."""

    catalog_url: str


def parse_job(service: Service, request: Request) -> Job | CatalogJob:
    """Return the job of a request that is not a batch.

    Raises ApiError bad_request, body_too_large, unsupported_media_type, or private_address.
    """
    mimetype = request.mimetype
    if mimetype == "application/json":
        check_query(request)
        with parsing:
            return job_from_json(service, request)
    if mimetype == "multipart/form-data":
        check_query(request)
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


def check_query(request: Request) -> None:
    """Raise ApiError bad_request for parameters in a query that would not be read."""
    if request.args:
        raise bad_request(
            f"Parameters such as {next(iter(request.args))!r:.60} are read from the query only if "
            "the body is an image. Put them into the body."
        )


# --- batches ---


def parse_batch(service: Service, request: Request) -> list[Job | ApiError]:
    """Return a job for each row, or the error of that row. Blank rows are skipped.

    Raises ApiError body_too_large, or bad_request if the body cannot be split into rows.
    """
    check_query(request)
    read_fields = csv_fields if request.mimetype == "text/csv" else json_fields
    with parsing:
        rows = split_rows(read_body(request))
        return [job_or_error(service, read_fields, row) for row in rows]


def read_body(request: Request) -> bytes:
    """Return the body. Raises ApiError body_too_large."""
    limit = body_limit(request.mimetype)
    if (request.content_length or 0) > limit:
        raise body_too_large(limit)
    return request.get_data()


def split_rows(data: bytes) -> list[str]:
    """Return the lines of a batch that are not blank, without their ends.

    Each of the checks takes less time than reading the body did. Raises ApiError bad_request.
    """
    if data.count(b"\n") > MAX_BATCH_LINES:
        raise bad_request(f"The batch has more than {MAX_BATCH_LINES} lines. Send several batches.")
    lines = [line for line in data.split(b"\n") if line and not line.isspace()]
    if len(lines) > MAX_BATCH_ROWS:
        raise bad_request(
            f"The batch has {len(lines)} rows; at most {MAX_BATCH_ROWS} are taken. "
            "Send several batches."
        )
    if max(map(len, lines), default=0) > MAX_LINE_KILOBYTES << 10:
        raise bad_request(f"A line of the batch has more than {MAX_LINE_KILOBYTES} KB.")
    if lines:
        lines[0] = lines[0].removeprefix(codecs.BOM_UTF8)
    try:
        return [line.decode().strip("\r") for line in lines]
    except UnicodeDecodeError:
        raise bad_request("The batch is not valid UTF-8.") from None


def job_or_error(
    service: Service, read_fields: Callable[[Service, str], Fields], row: str
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


def csv_fields(service: Service, row: str) -> Fields:
    style = "style_url" if service.styled_by_image else "style_name"
    columns = ["content_url", style, "result_url", *service.batch_columns]
    if row.count(",") > MAX_VALUES:
        raise bad_request(f"The row has more than {MAX_VALUES} cells.")
    try:
        [cells] = csv.reader([row], strict=True)
    except (ValueError, csv.Error):
        raise bad_request("The row is not valid CSV. No cell may contain a line break.") from None
    if len(cells) > len(columns):
        raise bad_request(f"A row has at most {len(columns)} columns: {', '.join(columns)}.")
    return {name: cell.strip() for name, cell in zip(columns, cells, strict=False)}


def json_fields(service: Service, row: str) -> Fields:
    return parse_json(row.encode(), "The line")


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


def parse_json(data: bytes, what: str) -> Fields:
    """Return the fields of a JSON object. what: "The body" or "The line", for messages.

    Raises ApiError bad_request.
    """
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise bad_request(f"{what} has more than {MAX_VALUES} values.")
    try:
        fields = json.loads(data.decode("utf-8-sig"))
    except RecursionError:
        raise bad_request(f"{what} is nested too deeply.") from None
    except ValueError as error:
        # Python reads no whole number of more than 4300 digits
        if "integer string conversion" in str(error):
            raise bad_request(f"{what} has a number with too many digits.") from None
        raise bad_request(f"{what} is not valid JSON.") from None
    if not isinstance(fields, dict):
        raise bad_request(f'{what} must be a JSON object, such as {{"content_url": ...}}.')
    return fields


def job_from_json(service: Service, request: Request) -> Job | CatalogJob:
    fields = parse_json(read_body(request), "The body")
    if service.has_catalog and "catalog_url" in fields:
        return catalog_job(fields)
    return job_from_fields(service, fields)


def job_from_fields(service: Service, given: Fields) -> Job:
    """Return a job whose images are URLs."""
    check_lengths(given)
    fields = dict(given)
    content = fields.pop("content_url", None)
    result = fields.pop("result_url", None)
    lossless = fields.pop("lossless_url", None)
    film = fields.pop("film_url", None)
    progress = fields.pop("progress_url", None)
    control = fields.pop("control_url", None)
    styles: list[object] = []
    masks: list[object] = []
    if service.styled_by_image:
        styles = as_list(fields.pop("style_url", None))
        masks = as_list(fields.pop("mask_url", None))

    if not content:
        raise bad_request("content_url is missing: the address of the photograph.")
    return Job(
        content=check_url(content, "content_url"),
        styles=[check_url(style, "style_url") for style in styles],
        masks=[check_url(mask, "mask_url") for mask in masks],
        options=parse_options(service, fields, len(styles), len(masks)),
        result_url=check_url(result, "result_url") if result else None,
        lossless_url=check_url(lossless, "lossless_url") if lossless else None,
        film_url=check_url(film, "film_url") if film else None,
        progress_url=check_url(progress, "progress_url") if progress else None,
        control_url=check_url(control, "control_url") if control else None,
    )


def job_from_form(service: Service, request: Request) -> Job:
    """Return a job whose images are the files of a form."""
    read_form(request)
    files = {name: [item.read() for item in request.files.getlist(name)] for name in request.files}
    contents = files.pop("content", [])
    styles: list[bytes] = []
    masks: list[bytes] = []
    if service.styled_by_image:
        styles = files.pop("style", [])
        masks = files.pop("mask", [])

    if files:
        names = "content, style and mask" if service.styled_by_image else "content"
        raise bad_request(f"There is no file field {sorted(files)[0]!r:.60}; send {names}.")
    if len(contents) != 1:
        raise bad_request(
            "Send exactly one file as the field content, for example with "
            "curl -F content=@photo.jpg"
        )
    fields = single_values(request.form)
    check_lengths(fields)
    options = parse_options(service, fields, len(styles), len(masks))
    return Job(contents[0], list(styles), list(masks), options)


def read_form(request: Request) -> None:
    """Read the parts of a form. Raises ApiError bad_request if it has too many or too long ones.

    Werkzeug stops at a field of 500 KB; check_lengths has a stricter limit.
    """
    request.max_form_parts = MAX_FORM_PARTS
    try:
        request.form  # noqa: B018 - reads all parts
    except RequestEntityTooLarge:
        raise bad_request(
            f"A form may have at most {MAX_FORM_PARTS} parts, and at most "
            f"{MAX_FIELD_KILOBYTES} KB in each of its fields."
        ) from None


def job_from_image(service: Service, request: Request) -> Job:
    """Return a job whose body is the photograph.

    The other fields are in the query or in SageMaker's custom attributes: "style=monet&size=640",
    or only the style's name.
    """
    attributes = request.headers.get("X-Amzn-SageMaker-Custom-Attributes", "")
    if attributes and "=" not in attributes:
        attributes = f"style={attributes}"
    fields: Fields = {**dict(parse_qsl(attributes)), **single_values(request.args)}
    check_lengths(fields)
    return Job(request.get_data(), options=parse_options(service, fields))


def parse_options(
    service: Service, given: Mapping[str, object], style_count: int = 0, mask_count: int = 0
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
    service.check_options(options, style_count, mask_count)
    return options


def check_lengths(fields: Fields) -> None:
    """Raise ApiError bad_request if a field has too much text."""
    for name, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and len(item) > MAX_FIELD_KILOBYTES << 10:
                raise bad_request(
                    f"The field {name!r:.60} has {len(item)} characters; "
                    f"at most {MAX_FIELD_KILOBYTES << 10} are taken."
                )


def single_values(fields: MultiDict[str, str]) -> Fields:
    """Return the value of each field; the values of a repeated field are joined with commas."""
    return {name: ",".join(fields.getlist(name)) for name in fields}


def as_list(value: object) -> list[object]:
    if not value:
        return []
    if isinstance(value, list):
        return value
    return [value]
