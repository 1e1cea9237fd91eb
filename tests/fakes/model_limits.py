"""The limits in boto3's own descriptions of AWS: lengths, ranges, patterns and enumerations.

boto3 sends what AWS would refuse, and moto takes most of it.
"""

import re
from collections.abc import Iterator
from typing import Any

# What boto3 has: shapes and parameters
Json = Any


def refuse_beyond_limits(params: Json, model: Json, **_: Json) -> None:
    """Fail for a request that AWS would refuse. It is called before boto3 sends one."""
    problems = list(find_problems(model.input_shape, params, model.name))
    assert not problems, "AWS would refuse this:\n" + "\n".join(problems)


def find_problems(shape: Json, value: Json, path: str) -> Iterator[str]:
    """Yield what is wrong with a value and all that it has in it."""
    if shape is None or value is None:
        return
    if shape.type_name == "structure":
        for name, item in value.items():
            yield from find_problems(shape.members.get(name), item, f"{path}.{name}")
    elif shape.type_name == "list":
        yield from check_size(shape, len(value), path)
        for number, item in enumerate(value):
            yield from find_problems(shape.member, item, f"{path}[{number}]")
    elif shape.type_name == "map":
        yield from check_size(shape, len(value), path)
        for name, item in value.items():
            yield from find_problems(shape.key, name, f"{path}[{name}]")
            yield from find_problems(shape.value, item, f"{path}[{name}]")
    elif shape.type_name == "string":
        yield from check_size(shape, len(value), path)
        yield from check_text(shape, value, path)
    elif shape.type_name in ("integer", "long", "float", "double"):
        yield from check_size(shape, value, path)


def check_size(shape: Json, size: float, path: str) -> Iterator[str]:
    smallest = shape.metadata.get("min", size)
    largest = shape.metadata.get("max", size)
    if not smallest <= size <= largest:
        yield f"{path}: {size} is not from {smallest} to {largest}"


def check_text(shape: Json, value: str, path: str) -> Iterator[str]:
    allowed = shape.metadata.get("enum")
    if allowed and value not in allowed:
        yield f"{path}: {value} is none of the {len(allowed)} values that AWS knows"
    pattern = shape.metadata.get("pattern")
    if not pattern:
        return
    try:
        expression = re.compile(pattern)
    except re.error:
        # Some are in Java's syntax.
        return
    if not expression.fullmatch(value):
        yield f"{path}: {value} does not match {pattern}"
