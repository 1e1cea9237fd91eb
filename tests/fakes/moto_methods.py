"""Operations of our own in the place of moto's."""

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from moto.core.responses import ActionResult, BaseResponse

Json = Any  # whatever moto takes and returns
# A request's members -> the answer's
Operation = Callable[[Json], Json]


def methods_of(operations: Iterable[Operation]) -> dict[str, Callable[..., ActionResult]]:
    """Return what replaces the methods of moto's response to these operations, by their names."""
    methods: dict[str, Callable[..., ActionResult]] = {}
    for operation in operations:
        answer_operation = partial(answer, operation)
        # moto calls a method of its response: a function, not a partial, is bound to it.
        methods[operation.__name__] = lambda self, call=answer_operation: call(self)
    return methods


def answer(operation: Operation, response: BaseResponse) -> ActionResult:
    return ActionResult(operation(json.loads(response.body)))
