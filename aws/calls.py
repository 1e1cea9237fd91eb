"""Reading what exists on AWS, and comparing it with what is wanted."""

import re
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

# boto3 creates its clients, and the dictionaries that they return, at run time: they have no types.
Client = Any
Answer = dict[str, Any]


def find(call: Callable[..., Any], **arguments: object) -> Answer | None:
    """Return the answer of a describe or get call, or None if the resource does not exist."""
    try:
        answer: Answer = call(**arguments)
    except ClientError as error:
        if is_absent(error):
            return None
        raise
    return answer


def delete_if_present(call: Callable[..., Any], **arguments: object) -> None:
    """Run a delete call; a resource that is already gone is not an error."""
    find(call, **arguments)


def is_absent(error: ClientError) -> bool:
    """Return whether the error says that the resource does not exist."""
    code = error.response["Error"]["Code"]
    if re.search("NoSuch|NotFound|^404$", code):
        return True
    message = error.response["Error"].get("Message", "")
    # SageMaker has no code of its own for this, and words it differently for each resource.
    return bool(code == "ValidationException" and re.search("not find|not found", message))


def is_subset(wanted: object, current: object) -> bool:
    """Return whether `current` contains everything in `wanted`.

    AWS adds defaults to what it stores and returns lists in any order. So dictionaries may have
    more keys, and lists are compared without regard to order.
    """
    if isinstance(wanted, dict):
        if not isinstance(current, dict):
            return False
        return all(is_subset(value, current.get(key)) for key, value in wanted.items())

    if isinstance(wanted, list):
        if not isinstance(current, list) or len(current) != len(wanted):
            return False
        return all(any(is_subset(item, other) for other in current) for item in wanted)

    return wanted == current
