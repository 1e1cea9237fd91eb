"""What GET / answers: a screen of text for people, or JSON for programs."""

from typing import TypedDict

from . import limits
from .model import Service


class ParameterInfo(TypedDict):
    name: str
    default: str
    range: str
    meaning: str


class Limits(TypedDict):
    max_body_megabytes: int
    max_json_kilobytes: int
    max_batch_megabytes: int
    max_batch_rows: int
    max_line_kilobytes: int
    max_field_kilobytes: int
    max_form_parts: int
    max_file_megabytes: int
    max_megapixels: int
    min_side: int
    longest_side: int
    queue_length: int


class About(TypedDict):
    """The answer to GET / with Accept: application/json."""

    name: str
    summary: str
    styles: list[str]
    parameters: list[ParameterInfo]
    limits: Limits
    model_limits: dict[str, int]


def describe(service: Service, styles: list[str]) -> About:
    """Return the description of a container for programs."""
    parameters: list[ParameterInfo] = []
    for parameter in service.parameters:
        parameters.append(
            {
                "name": parameter.name,
                "default": parameter.default,
                "range": parameter.range(),
                "meaning": parameter.meaning,
            }
        )
    return {
        "name": service.name,
        "summary": service.summary,
        "styles": styles,
        "parameters": parameters,
        "limits": {
            "max_body_megabytes": limits.MAX_BODY_MEGABYTES,
            "max_json_kilobytes": limits.MAX_JSON_KILOBYTES,
            "max_batch_megabytes": limits.MAX_BATCH_MEGABYTES,
            "max_batch_rows": limits.MAX_BATCH_ROWS,
            "max_line_kilobytes": limits.MAX_LINE_KILOBYTES,
            "max_field_kilobytes": limits.MAX_FIELD_KILOBYTES,
            "max_form_parts": limits.MAX_FORM_PARTS,
            "max_file_megabytes": limits.MAX_FILE_MEGABYTES,
            "max_megapixels": limits.MAX_MEGAPIXELS,
            "min_side": limits.MIN_SIDE,
            "longest_side": limits.LONGEST_SIDE,
            "queue_length": limits.MAX_QUEUE,
        },
        "model_limits": dict(service.limits),
    }


def usage(service: Service, styles: list[str], host: str) -> str:
    """Return the description for people, with commands to try.

    host: with the port, as they called it.
    """
    server = f"http://{host}"
    lines = [f"stylebot {service.name}: {service.summary}", ""]
    if service.styled_by_image:
        lines += image_examples(server)
        style_field = '"style_url": "s3://bucket/painting.jpg"'
    else:
        style = styles[0] if styles else "monet"
        lines += [f"Styles: {', '.join(styles) or 'none yet'}", ""]
        lines += style_examples(server, style)
        style_field = f'"style_name": "{style}"'

    urls = f'"content_url": "s3://bucket/photo.jpg", {style_field}'
    lines += [
        f"  curl -H 'Content-Type: application/json' {server}/invocations -d \\",
        f'       \'{{{urls}, "result_url": "s3://bucket/result.jpg"}}\'',
        "",
        "Also in JSON: progress_url, where the progress is put, and control_url, where the server",
        'looks for {"action": "cancel"} or {"action": "take"} while it works.',
        "",
        "Parameters:",
    ]
    width = max(len(parameter.name) for parameter in service.parameters)
    for parameter in service.parameters:
        lines.append(f"  {parameter.name:<{width}}  {parameter.meaning}; {parameter.expected()}")
    if service.limits:
        limits_text = ", ".join(f"{name} {limit}" for name, limit in service.limits.items())
        lines += ["", f"Limits: {limits_text}"]
    if service.has_catalog:
        lines += [
            "",
            "A catalog of the styles, with a picture in each of them:",
            f"  curl -H 'Content-Type: application/json' {server}/invocations -d \\",
            '       \'{"catalog_url": "s3://bucket/models/catalog.json"}\'',
        ]
    lines += [
        "",
        "Also: text/csv and application/jsonlines (a batch), GET /ping, GET /execution-parameters;",
        "GET / with Accept: application/json describes this server to programs, and",
        "GET /openapi.json does so in OpenAPI 3.1.",
    ]
    return "\n".join(lines) + "\n"


def image_examples(server: str) -> list[str]:
    """Return commands for a container that takes images of the style."""
    return [
        f"  curl -F content=@photo.jpg -F style=@painting.jpg {server}/invocations -o result.jpg",
        "  curl -F content=@photo.jpg -F style=@a.jpg -F style=@b.jpg "
        "-F style_weights=2,1 -F size=640 \\",
        f"       -H 'Accept: image/png' {server}/invocations -o result.png",
        "  curl -F content=@photo.jpg -F style=@a.jpg -F style=@b.jpg "
        "-F mask=@left.png -F mask=@right.png \\",
        f"       {server}/invocations -o result.jpg",
    ]


def style_examples(server: str, style: str) -> list[str]:
    """Return commands for a container that has styles of its own."""
    return [
        "  curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' \\",
        f"       '{server}/invocations?style={style}' -o result.jpg",
        f"  curl -F content=@photo.jpg -F style={style} {server}/invocations -o result.jpg",
    ]
