"""What GET /openapi.json answers: the server's description in OpenAPI 3.1.

Its numbers come from the tables that the code itself checks requests by. docs/contract.md says the
same to people, and more of it.
"""

import math
from collections.abc import Iterable
from typing import Any, TypedDict

import msgspec

from containers.common.errors import ErrorCode
from containers.common.parameters import FALSE, TRUE, Parameter
from containers.common.parameters import NULL as NULL_WORDS

from . import images, limits
from .about import About
from .errors import STATUS
from .model import Facts, Service

# Of the contract, which only grows; not of an image.
VERSION = "1"

# A piece of JSON Schema or OpenAPI.
Schema = dict[str, Any]

# These come from unknown paths and methods only.
NOT_FROM_A_PATH = {ErrorCode.NOT_FOUND, ErrorCode.METHOD_NOT_ALLOWED}
PING_CODES = {ErrorCode.LOADING, ErrorCode.BROKEN}

TEXT: Schema = {"type": "string", "maxLength": limits.MAX_FIELD_KILOBYTES << 10}
NULL: Schema = {"type": "null"}
FILE: Schema = {"type": "string", "format": "binary"}
EMPTY: Schema = {"const": ""}
URL: Schema = {**TEXT, "pattern": "^(s3|https?)://."}

JSON_FORM = "application/json"
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


class ErrorInfo(TypedDict):
    code: ErrorCode
    message: str


class Error(TypedDict):
    """Programs use the code. The message is for the person who sent the photograph."""

    error: ErrorInfo


class PictureFacts(Facts):
    """About a picture. `steps` and `loss` come from nst only, `style_name` from cyclegan."""

    size: tuple[int, int]
    seconds: float
    notes: list[str]


class StoredPicture(PictureFacts):
    """The answer to a request with a result_url: where the picture is, without the query."""

    result_url: str


class StoredCatalog(TypedDict):
    """The answer to a request for a catalog."""

    catalog_url: str
    styles: list[str]
    seconds: float


class ExecutionParameters(TypedDict):
    """SageMaker's settings for batch transform."""

    MaxConcurrentTransforms: int
    BatchStrategy: str
    MaxPayloadInMB: int


ANSWERS = (About, Error, PictureFacts, StoredPicture, StoredCatalog, ExecutionParameters)


def document(service: Service) -> Schema:
    """Return the description of one container in OpenAPI 3.1, ready for JSON."""
    _, schemas = msgspec.json.schema_components(ANSWERS, ref_template=reference("{name}")["$ref"])
    schemas["Source"] = {**URL, "description": "What to read"}
    schemas["Target"] = {**URL, "description": "Where to write"}
    schemas["Request"] = request_schema(service)
    if service.has_catalog:
        schemas["CatalogRequest"] = catalog_schema()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"stylebot {service.name}",
            "summary": service.summary,
            "version": VERSION,
            "description": (
                "SageMaker's contract for real-time and asynchronous inference and for batch "
                "transform. Errors of HTTP itself, such as two Content-Length, get a 400, 414, "
                "431 or 501 in plain text, and the connection ends."
            ),
        },
        "paths": {
            "/ping": {"get": ping()},
            "/invocations": {"post": invocations(service)},
            "/execution-parameters": {
                "get": page("SageMaker's settings for batch transform", "ExecutionParameters")
            },
            "/": {"get": about()},
            "/openapi.json": {"get": openapi()},
        },
        "components": {"schemas": schemas},
    }


def reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def answer(description: str, content: Schema | None = None) -> Schema:
    response: Schema = {"description": description}
    if content is not None:
        response["content"] = content
    return response


# --- the pages ---


def page(summary: str, answer_name: str) -> Schema:
    content = {JSON_FORM: {"schema": reference(answer_name)}}
    return {"summary": summary, "responses": {"200": answer(summary, content), **other_errors()}}


def ping() -> Schema:
    return {
        "summary": "Whether the model is loaded and works",
        "responses": {"200": answer("It is; the body is empty"), **errors(PING_CODES)},
    }


def about() -> Schema:
    summary = "A description for people, or for programs that ask for application/json"
    operation = page(summary, "About")
    operation["responses"]["200"]["content"]["text/plain"] = {"schema": {"type": "string"}}
    return operation


def openapi() -> Schema:
    summary = "This description"
    content = {JSON_FORM: {"schema": {"type": "object", "required": ["openapi", "paths"]}}}
    return {"summary": summary, "responses": {"200": answer(summary, content), **other_errors()}}


# --- errors ---


def errors(codes: Iterable[ErrorCode]) -> Schema:
    """Return the responses for these codes, by status."""
    by_status: dict[int, list[str]] = {}
    for code in sorted(codes):
        by_status.setdefault(STATUS[code], []).append(code.value)
    return {str(status): error(status, names) for status, names in sorted(by_status.items())}


def error(status: int, codes: list[str]) -> Schema:
    one_of_them = {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}
    schema = {"allOf": [reference("Error"), one_of_them]}
    response = answer(", ".join(codes), {JSON_FORM: {"schema": schema}})
    if status == 503:
        retry_after = {
            "description": "After how many seconds the same request may succeed",
            "schema": {"type": "integer", "minimum": 0},
        }
        response["headers"] = {"Retry-After": retry_after}
    return response


def other_errors() -> Schema:
    """Return the response of a page for a request that is not well-formed."""
    return {"default": answer("An error", {JSON_FORM: {"schema": reference("Error")}})}


# --- invocations ---


def invocations(service: Service) -> Schema:
    operation: Schema = {
        "summary": "Make a picture, or a batch of them",
        "requestBody": {"required": True, "content": bodies(service)},
        "responses": {
            "200": picture_answer(service),
            **errors(set(ErrorCode) - NOT_FROM_A_PATH),
        },
    }
    if not service.styled_by_image:
        operation["parameters"] = query_parameters(service)
        operation["responses"]["414"] = answer(
            "The query is too long", {"text/plain": {"schema": {"type": "string"}}}
        )
    return operation


def bodies(service: Service) -> Schema:
    """Return the schema of each content type that /invocations takes."""
    one_picture = reference("Request")
    if service.has_catalog:
        one_picture = {"oneOf": [one_picture, reference("CatalogRequest")]}
    content: Schema = {
        JSON_FORM: {"schema": one_picture},
        "multipart/form-data": {"schema": form_schema(service)},
    }
    if not service.styled_by_image:
        content["image/*"] = {"schema": FILE}
    for batch_type in limits.BATCH_TYPES:
        content[batch_type] = {"schema": {"description": batch_meaning(service, batch_type)}}
    return content


def batch_meaning(service: Service, batch_type: str) -> str:
    bounds = (
        f"At most {limits.MAX_BATCH_ROWS} rows of {limits.MAX_LINE_KILOBYTES} KB. The answer has a "
        "line of JSON for each: a StoredPicture or an Error."
    )
    if batch_type != "text/csv":
        return f"A Request with a result_url in each line. {bounds}"
    style = "style_url" if service.styled_by_image else "style_name"
    columns = ", ".join(["content_url", style, "result_url", *service.batch_columns])
    return f"The columns {columns} without a heading; blank cells count as not given. {bounds}"


def picture_answer(service: Service) -> Schema:
    content: Schema = {name: {"schema": FILE} for name in images.ENCODINGS}
    stored = reference("StoredPicture")
    if service.has_catalog:
        stored = {"anyOf": [stored, reference("StoredCatalog")]}
    content[JSON_FORM] = {"schema": stored}
    content["application/jsonlines"] = {"schema": {"type": "string"}}
    response = answer(
        "The picture; with a result_url: JSON about it; for a batch: a line for each row", content
    )
    response["headers"] = {
        CUSTOM_ATTRIBUTES: {
            "description": "About a picture that is in the answer",
            "content": {JSON_FORM: {"schema": reference("PictureFacts")}},
        }
    }
    return response


# --- requests ---


def request_schema(service: Service) -> Schema:
    """Return the schema of a JSON object that asks for one picture."""
    required = ["content_url"]
    # Empty text and null count as not given
    target = {"anyOf": [reference("Target"), NULL, EMPTY]}
    properties: Schema = {
        "content_url": {**reference("Source"), "description": "The photograph"},
        "result_url": {**target, "description": "Where to put the picture"},
        "lossless_url": {**target, "description": "Where to put the picture as a PNG, too"},
        "film_url": {**target, "description": "Where to put the film, a GIF"},
        "control_url": {**target, "description": "Where to look for the control object"},
        "progress_url": {**target, "description": "Where to put the progress object"},
    }
    if service.styled_by_image:
        required.append("style_url")
        several = {"type": "array", "minItems": 1, "items": reference("Source")}
        properties["style_url"] = {
            "anyOf": [reference("Source"), several],
            "description": "The picture whose style to use, or a list of several",
        }
        properties["mask_url"] = {
            "anyOf": [*properties["style_url"]["anyOf"], NULL, EMPTY],
            "description": "For each style, a gray picture that is white where it is used",
        }
    for parameter in service.parameters:
        properties[parameter.name] = in_json(parameter)
    if not service.styled_by_image:
        properties["style"] = {"anyOf": [TEXT, NULL], "description": "The same as style_name"}
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def catalog_schema() -> Schema:
    pattern = r"^(s3|https?)://[^?#]+\.json$"
    return {
        "type": "object",
        "description": "Write a catalog of the styles, with a picture in each of them",
        "properties": {"catalog_url": {**URL, "pattern": pattern}},
        "required": ["catalog_url"],
        "additionalProperties": False,
    }


def form_schema(service: Service) -> Schema:
    """Return the schema of a form. Its parameters are text, which means the same as in JSON."""
    required = ["content"]
    properties: Schema = {"content": {**FILE, "description": "The photograph"}}
    if service.styled_by_image:
        required.append("style")
        properties["style"] = {
            "type": "array",
            "minItems": 1,
            "items": FILE,
            "description": "The picture whose style to use; may be repeated",
        }
        properties["mask"] = {
            "type": "array",
            "items": FILE,
            "description": "For each style, a gray picture that is white where it is used",
        }
    for parameter in service.parameters:
        properties[parameter.name] = in_text(parameter)
    if not service.styled_by_image:
        properties["style"] = {**TEXT, "description": "The same as style_name"}
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def query_parameters(service: Service) -> list[Schema]:
    """Return the parameters of the query and the header that go with image/*."""
    schemas = {parameter.name: in_text(parameter) for parameter in service.parameters}
    schemas["style"] = {**TEXT, "description": "The same as style_name"}
    parameters: list[Schema] = []
    for name, schema in schemas.items():
        # A line of HTTP ends earlier than a field
        schema.pop("maxLength", None)
        description = f"With image/* only: {schema.pop('description')}"
        parameters.append(
            {"name": name, "in": "query", "schema": schema, "description": description}
        )
    attributes = {
        "name": CUSTOM_ATTRIBUTES,
        "in": "header",
        "schema": {"type": "string"},
        "description": "With image/* only: parameters as in the query, or the name of a style",
    }
    return [*parameters, attributes]


# --- parameters ---


def in_text(parameter: Parameter) -> Schema:
    """Return the schema of a parameter in a form or in the query."""
    if parameter.kind is str and not parameter.choices:
        return {**TEXT, "description": meaning(parameter)}
    choices = [value_schema(parameter), EMPTY]
    if parameter.kind is list:
        choices.append({**TEXT, "description": "Numbers with commas between them"})
    if parameter.nullable:
        choices.append({"enum": [None, *sorted(NULL_WORDS)]})
    return {"anyOf": choices, "description": meaning(parameter)}


def in_json(parameter: Parameter) -> Schema:
    """Return the schema of a parameter in JSON. Text means the same there as in a form."""
    choices = [value_schema(parameter), NULL]
    if parameter.kind is list:
        choices[0]["minItems"] = 1
    if parameter.kind is not str:
        choices.append({**TEXT, "description": "The same, written as text"})
    elif parameter.choices:
        choices.append(EMPTY)
    return {"anyOf": choices, "description": meaning(parameter)}


def meaning(parameter: Parameter) -> str:
    return f"{parameter.meaning}; default: {parameter.default}"


def value_schema(parameter: Parameter) -> Schema:
    if parameter.choices:
        return {"enum": list(parameter.choices)}
    if parameter.kind is bool:
        return {"enum": [True, False, *sorted(TRUE | FALSE)]}
    if parameter.kind is str:
        return dict(TEXT)
    if parameter.kind is list:
        return {"type": "array", "items": number_schema("number", parameter)}
    return number_schema("integer" if parameter.kind is int else "number", parameter)


def number_schema(kind: str, parameter: Parameter) -> Schema:
    schema: Schema = {"type": kind}
    if math.isfinite(parameter.minimum):
        schema["minimum"] = parameter.minimum
    if math.isfinite(parameter.maximum):
        schema["maximum"] = parameter.maximum
    return schema
