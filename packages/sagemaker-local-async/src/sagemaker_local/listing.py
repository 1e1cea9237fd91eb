"""The lists of the control plane: filtered, sorted, and in pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

from sagemaker_local.errors import validation_error

MOST_RESULTS = 10


class Listed(Protocol):
    """What a list shows. The times are time.time()."""

    @property
    def name(self) -> str: ...

    @property
    def status(self) -> str: ...

    @property
    def created(self) -> float: ...

    @property
    def modified(self) -> float: ...


L = TypeVar("L", bound=Listed)


def list_page(
    items: Iterable[L], arguments: Mapping[str, Any], default_order: str = "Descending"
) -> tuple[list[L], str | None]:
    """Return one page of what a call of List... asks for, and the NextToken if there are more.

    Raises ApiError for a NextToken that no list gave.
    """
    found = [item for item in items if is_asked(item, arguments)]
    is_descending = arguments.get("SortOrder", default_order) == "Descending"
    sort_key = arguments.get("SortBy", "CreationTime")
    found.sort(key=lambda item: sort_value(item, sort_key), reverse=is_descending)
    first = read_token(arguments.get("NextToken", "0"))
    after = first + arguments.get("MaxResults", MOST_RESULTS)
    if after < len(found):
        return found[first:after], str(after)
    return found[first:after], None


def is_asked(item: Listed, arguments: Mapping[str, Any]) -> bool:
    if arguments.get("NameContains", "") not in item.name:
        return False
    if arguments.get("StatusEquals", item.status) != item.status:
        return False
    if not arguments.get("CreationTimeAfter", 0) <= item.created:
        return False
    if not item.created <= arguments.get("CreationTimeBefore", item.created):
        return False
    if not arguments.get("LastModifiedTimeAfter", 0) <= item.modified:
        return False
    return bool(item.modified <= arguments.get("LastModifiedTimeBefore", item.modified))


def sort_value(item: Listed, wanted: str) -> tuple[str, float]:
    if wanted == "Name":
        return item.name, item.created
    if wanted == "Status":
        return item.status, item.created
    return "", item.created


def read_token(token: str) -> int:
    if not token.isdecimal() or len(token) > 9:
        raise validation_error("NextToken is not one that this list gave.")
    return int(token)
