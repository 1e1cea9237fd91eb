"""What the HTTP server knows of a model, and all that a model must know of the server."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from containers.common.parameters import Parameter


@dataclass(frozen=True)
class Progress:
    """How far a job is. done: 0..1 of its work; preview() makes a picture of what there is so far, if anything."""

    step: int
    steps: int
    done: float
    loss: float | None = None
    preview: Callable[[], Image.Image] | None = None


@dataclass(frozen=True)
class Picture:
    """A result. facts: what the answer tells beside it (steps, loss, ...); notes: sentences for the user."""

    image: Image.Image
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


# Called after each step; an answer of True asks for the best picture there is, now.
Report = Callable[[Progress], bool]


class Model(Protocol):
    """A loaded model that has proven on a tiny picture that it works."""

    def styles(self) -> Iterable[str]:
        """The styles it has; none for a model that takes pictures of a style."""

    def paint(
        self,
        content: Image.Image,
        styles: list[Image.Image],
        options: dict[str, Any],
        report: Report,
    ) -> Picture:
        """Stylises `content`. Raises RequestError for what cannot be done, FatalError for a fault that will stay."""


@dataclass(frozen=True)
class Service:
    """One container.

    styled_by_image: whether a request brings pictures of the style or names one of the model's own.
    batch_columns: the parameters of a CSV row, after content, style and result.
    load: makes the model; what it raises is told by /ping.
    """

    name: str
    summary: str
    styled_by_image: bool
    parameters: tuple[Parameter, ...]
    batch_columns: tuple[str, ...]
    load: Callable[[], Model]


class FatalError(Exception):
    """A fault that no later request can recover from, such as a broken CUDA context."""
