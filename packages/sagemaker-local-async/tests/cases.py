"""Requests, right and wrong, made from botocore's model of an operation.

Each case changes one member of a request that is right. Whether the result is right follows from
the model alone: the members that it requires, their types, enums, ranges, lengths and patterns.
Nothing here knows how the program under test checks them.
"""

from __future__ import annotations

import copy
import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# A Shape of botocore, which has no types.
Shape = Any
# Whatever JSON can hold, and bytes.
Json = Any
# The members of a call.
Request = dict[str, Json]
# The names and indexes that lead to a member.
Path = tuple[str | int, ...]

# The model's patterns are Java's: what Python writes differently.
JAVA_PARTS = (
    (r"\p{ASCII}", r"[\x00-\x7f]"),
    (r"[\p{Print}]", r"[\x20-\x7e]"),
    (r"\p{Alnum}", r"a-zA-Z0-9"),
    (r"\p{L}\p{Z}\p{N}_", r"\w\s"),
    (r"\A", ""),
    (r"\z", ""),
)
# Strings to try where a pattern has to be met or broken. All of them can be sent in a header.
SAMPLES = (
    "a",
    *(f"a{mark}b" for mark in string.punctuation),
    *(f"{mark}a" for mark in string.punctuation),
    "A1",
    "a--b",
    "a b",
    "é",
    "*/*",
    "mig-1g.5gb",
    "s3://bucket/key",
    "https://bucket/key",
    "arn:aws:iam::123456789012:role/name",
    "arn:aws:sagemaker:us-east-1:123456789012:name/a",
    "arn:aws:sns:us-east-1:123456789012:topic",
)


@dataclass
class Case:
    """A request, and what the model says of it."""

    name: str
    request: Request
    # The member that is wrong, and None where the model allows the request.
    wrong: str | None = None
    # Whether the wrong member has a type that JSON distinguishes.
    is_wrong_type: bool = False


def cases(shape: Shape, base: Mapping[str, Json]) -> Iterator[Case]:
    """Yield a case for each constraint on each member that `base`, a right request, contains."""
    yield Case("as it is", copy.deepcopy(dict(base)))
    yield from structure_cases(shape, base, base, ())


def structure_cases(
    shape: Shape, value: Mapping[str, Json], base: Mapping[str, Json], path: Path
) -> Iterator[Case]:
    for name in shape.required_members:
        changed = without(base, (*path, name))
        yield Case(f"without {show((*path, name))}", changed, wrong=name)
    for name, member in shape.members.items():
        if name in value:
            yield from member_cases(member, value[name], base, (*path, name))


def member_cases(
    shape: Shape,
    value: Json,
    base: Mapping[str, Json],
    path: Path,
) -> Iterator[Case]:
    yield from wrong_types(shape, base, path)
    kind = shape.type_name
    if kind == "structure":
        yield from structure_cases(shape, value, base, path)
    elif kind == "list":
        yield from list_cases(shape, value, base, path)
    elif kind == "string":
        yield from string_cases(shape, value, base, path)
    elif kind in ("integer", "long", "float", "double"):
        yield from number_cases(shape, base, path)
    elif kind == "blob":
        yield from blob_cases(shape, base, path)


def list_cases(
    shape: Shape, value: list[Json], base: Mapping[str, Json], path: Path
) -> Iterator[Case]:
    if shape.metadata.get("min", 0) > 0:
        yield wrong(base, path, [], "has no item")
    if "max" in shape.metadata:
        most = shape.metadata["max"]
        yield wrong(base, path, value[:1] * (most + 1), f"has {most + 1} items")
    if value:
        yield from member_cases(shape.member, value[0], base, (*path, 0))


def string_cases(shape: Shape, value: str, base: Mapping[str, Json], path: Path) -> Iterator[Case]:
    if shape.enum:
        for allowed in shape.enum:
            yield right(base, path, allowed, f"is {allowed}")
        for other in ("", "nonsense", shape.enum[0].lower() + "x"):
            yield wrong(base, path, other, f"is {other!r}")
        return

    least = shape.metadata.get("min", 0)
    most = shape.metadata.get("max")
    for length in lengths(least, most):
        if text := text_of(shape, length):
            yield right(base, path, text, f"has {length} characters")
    if most is not None:
        for length in (most + 1, most + 2, 2 * most):
            yield wrong(base, path, lengthen(value, length), f"has {length} characters")
    if least > 1:
        yield wrong(base, path, value[: least - 1], f"has {least - 1} characters")
    for sample in SAMPLES:
        yield from pattern_case(shape, sample, base, path)


def pattern_case(shape: Shape, sample: str, base: Mapping[str, Json], path: Path) -> Iterator[Case]:
    """Yield a case where the pattern decides whether the sample is right."""
    if "pattern" not in shape.metadata or not has_right_length(shape, sample):
        return
    if meets_pattern(shape, sample):
        yield right(base, path, sample, f"is {sample!r}")
    else:
        yield wrong(base, path, sample, f"is {sample!r}")


def number_cases(shape: Shape, base: Mapping[str, Json], path: Path) -> Iterator[Case]:
    least = shape.metadata.get("min")
    most = shape.metadata.get("max")
    for number in {least, most} - {None}:
        yield right(base, path, number, f"is {number}")
    if least is not None and most is not None:
        for part in (1, 2, 3):
            middle = least + part * (most - least) // 4
            yield right(base, path, middle, f"is {middle}")
    if least is not None:
        for number in (least - 1, least - 1000, -(2**31)):
            yield wrong(base, path, number, f"is {number}")
    if most is not None:
        for number in (most + 1, most + 1000, 2**31 - 1):
            yield wrong(base, path, number, f"is {number}")


def blob_cases(shape: Shape, base: Mapping[str, Json], path: Path) -> Iterator[Case]:
    most = shape.metadata["max"]
    for length in (1, 2, 1000):
        yield right(base, path, b"x" * length, f"has {length} bytes")
    yield right(base, path, bytes(range(256)), "has every byte")
    yield right(base, path, b"x" * most, f"has {most} bytes")
    yield wrong(base, path, b"x" * (most + 1), f"has {most + 1} bytes")


def wrong_types(shape: Shape, base: Mapping[str, Json], path: Path) -> Iterator[Case]:
    """Yield a case for a few JSON types that the member does not have."""
    values: dict[str, Json] = {"structure": {}, "list": [], "string": "x", "boolean": True}
    values |= {"number": 7}
    kind = shape.type_name
    if kind in ("integer", "long", "float", "double", "timestamp"):
        kind = "number"
    if kind in ("blob", "map"):
        return
    for name, value in values.items():
        # An empty structure may be right where a structure is wanted, and so on.
        if name != kind:
            case = wrong(base, path, value, f"is a {name}")
            case.is_wrong_type = True
            yield case


# ------------------------------------------------------------ members that the base does not have


def missing_members(shape: Shape, value: Json, path: Path = ()) -> Iterator[tuple[Path, Shape]]:
    """Yield each member that the model knows in the structures of `value`, and `value` lacks."""
    if shape.type_name == "list" and value:
        yield from missing_members(shape.member, value[0], (*path, 0))
    if shape.type_name != "structure":
        return
    for name, member in shape.members.items():
        if name in value:
            yield from missing_members(member, value[name], (*path, name))
        else:
            yield (*path, name), member


def smallest_value(shape: Shape) -> Json:
    """Return a small value that the model allows. Raises ValueError where none was found."""
    kind = shape.type_name
    if kind == "structure":
        names = shape.required_members or list(shape.members)[:1]
        return {name: smallest_value(shape.members[name]) for name in names}
    if kind == "list":
        return [smallest_value(shape.member)] * max(1, shape.metadata.get("min", 0))
    if kind == "map":
        return {smallest_value(shape.key): smallest_value(shape.value)}
    if kind == "boolean":
        return True
    if kind in ("integer", "long", "float", "double"):
        return max(1, shape.metadata.get("min", 1))
    if shape.enum:
        return shape.enum[0]
    return smallest_text(shape)


def smallest_text(shape: Shape) -> str:
    for sample in SAMPLES:
        if has_right_length(shape, sample) and meets_pattern(shape, sample):
            return sample
    text = text_of(shape, shape.metadata.get("min", 1))
    if text is None:
        raise ValueError(f"no value of {shape.name} was found")
    return text


# ------------------------------------------------------------ strings


def python_pattern(shape: Shape) -> str:
    pattern: str = shape.metadata["pattern"]
    for java, python in JAVA_PARTS:
        pattern = pattern.replace(java, python)
    return pattern


def meets_pattern(shape: Shape, text: str) -> bool:
    if "pattern" not in shape.metadata:
        return True
    return bool(re.fullmatch(python_pattern(shape), text))


def has_right_length(shape: Shape, text: str) -> bool:
    least = shape.metadata.get("min", 0)
    most = shape.metadata.get("max", len(text))
    return bool(least <= len(text) <= most)


def lengths(least: int, most: int | None) -> list[int]:
    """Return the lengths at both ends of the range, and a few in it; 0 is left out."""
    if most is None:
        most = 200
    found = {least, least + 1, (least + most) // 2, most - 1, most}
    return sorted(length for length in found if 0 < length <= most)


def text_of(shape: Shape, length: int) -> str | None:
    """Return a string of this length that meets the pattern, or None where none was found."""
    for start in SAMPLES:
        text = lengthen(start, length)
        if len(text) == length and meets_pattern(shape, text):
            return text
    return None


def lengthen(text: str, length: int) -> str:
    return text + "a" * (length - len(text))


# ------------------------------------------------------------ changes of a request


def right(base: Mapping[str, Json], path: Path, value: Json, why: str) -> Case:
    return Case(f"{show(path)} {why}", replaced(base, path, value))


def wrong(base: Mapping[str, Json], path: Path, value: Json, why: str) -> Case:
    return Case(f"{show(path)} {why}", replaced(base, path, value), wrong=last_name(path))


def replaced(base: Mapping[str, Json], path: Path, value: Json) -> Request:
    """Return the request with another value at the path."""
    changed = copy.deepcopy(dict(base))
    parent(changed, path)[path[-1]] = value
    return changed


def without(base: Mapping[str, Json], path: Path) -> Request:
    changed = copy.deepcopy(dict(base))
    parent(changed, path).pop(path[-1], None)
    return changed


def parent(request: Request, path: Path) -> Json:
    """Return the structure or the list that contains the last step of the path."""
    found: Json = request
    for step in path[:-1]:
        found = found[step]
    return found


def last_name(path: Path) -> str:
    """Return the last name in the path, for a message about an item of a list too."""
    return next(step for step in reversed(path) if isinstance(step, str))


def show(path: Path) -> str:
    return ".".join(str(step) for step in path)


# ------------------------------------------------------------ answers


def answer_problems(shape: Shape, answer: Json, path: Path = ()) -> list[str]:
    """Return where the answer, as botocore parsed it, does not fit the output's shape."""
    kind = shape.type_name
    if kind == "structure":
        return structure_problems(shape, answer, path)
    if kind == "list":
        problems = []
        for number, item in enumerate(answer):
            problems += answer_problems(shape.member, item, (*path, number))
        return problems
    if kind == "string":
        return text_problems(shape, answer, path)
    return []


def structure_problems(shape: Shape, answer: Mapping[str, Json], path: Path) -> list[str]:
    problems = []
    for name in shape.required_members:
        if name not in answer:
            problems.append(f"{show((*path, name))} is missing")
    for name, member in shape.members.items():
        if name in answer:
            problems += answer_problems(member, answer[name], (*path, name))
    return problems


def text_problems(shape: Shape, answer: str, path: Path) -> list[str]:
    if shape.enum and answer not in shape.enum:
        return [f"{show(path)} is {answer!r}, not one of {shape.enum}"]
    if not has_right_length(shape, answer) or not meets_pattern(shape, answer):
        return [f"{show(path)} is {answer!r}, which the model does not allow"]
    return []
