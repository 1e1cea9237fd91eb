"""Planning and doing, in one mechanism.

An `ensure_...` function looks at AWS and yields a Change for each difference; a `remove_...`
function yields a Change for each thing to delete. Nothing happens before `apply` takes the Change:
it prints it or runs it. Generators are lazy, so each look happens after the changes before it.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from aws.messages import explain_error, output, say

Result = TypeVar("Result")


@dataclass(frozen=True)
class Change:
    """One change on AWS, not made yet."""

    # In the imperative: "create the bucket stylebot-1"
    words: str
    # Makes the change, and waits until AWS has made it where that takes time.
    call: Callable[[], object]


Changes = Iterator[Change]


def apply(changes: Iterable[Change], plan: bool = False) -> int:
    """Make each change, or with `plan` only print it. Return how many there were."""
    count = 0
    for change in changes:
        count += 1
        if plan:
            output(f"would {change.words}")
            continue
        say(change.words)
        change.call()
    return count


def apply_in_parallel(sequences: Iterable[Iterable[Change]], plan: bool = False) -> int:
    """Apply several sequences of changes, each in a thread. Return the number of changes."""
    return sum(run_in_parallel([partial(apply, changes, plan) for changes in sequences]))


def run_in_parallel(tasks: list[Callable[[], Result]]) -> list[Result]:
    """Run each task in a thread and return their results.

    All tasks run to their end. Then the first error is raised; the others are printed.
    """
    if not tasks:
        return []
    with ThreadPoolExecutor(len(tasks)) as pool:
        futures = [pool.submit(task) for task in tasks]

    errors = []
    for future in futures:
        error = future.exception()
        if error is not None:
            errors.append(error)
    for error in errors[1:]:
        say(explain_error(error))
    if errors:
        raise errors[0]

    return [future.result() for future in futures]
