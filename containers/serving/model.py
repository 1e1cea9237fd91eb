"""The interface between the HTTP server and a model."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypedDict, runtime_checkable

from PIL import Image

from containers.common.parameters import Parameter, ParameterValues


@dataclass(frozen=True)
class Inputs:
    """The images of a job, decoded.

    styles: none for a model with styles of its own. masks: one for each of the styles, which says
        where on the content it is used; none: they are used everywhere.
    """

    content: Image.Image
    styles: list[Image.Image] = field(default_factory=list)
    masks: list[Image.Image] = field(default_factory=list)


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    done: the share of the work that is done, 0..1.
    preview: makes the newest picture that is worth a look, if the model can.
    picture: makes the picture of this very step, if the model can.
    """

    step: int
    steps: int
    done: float
    loss: float | None = None
    preview: Callable[[], Image.Image] | None = None
    picture: Callable[[], Image.Image] | None = None


class Facts(TypedDict, total=False):
    """What a model tells about a picture. It becomes part of the answer and of the log."""

    steps: int
    loss: float
    style_name: str
    gpu_memory_mb: int


@dataclass(frozen=True)
class Picture:
    """A result.

    notes: sentences for the user, for example why the picture is smaller than expected.
    """

    image: Image.Image
    facts: Facts = field(default_factory=Facts)
    notes: list[str] = field(default_factory=list)


# Called after each step. True asks the model to stop and return the best picture so far.
Report = Callable[[Progress], bool]


class Model(Protocol):
    """A loaded model that has stylized a tiny picture as a test."""

    def styles(self) -> Iterable[str]:
        """Return the names of the model's styles; none if a request brings images of the style."""

    def stylize(
        self,
        inputs: Inputs,
        options: ParameterValues,
        report: Report,
    ) -> Picture:
        """Return the content in the style.

        Raises StylizeError if that is impossible, FatalError after a fault that will stay.
        """


@dataclass(frozen=True)
class StyleLabel:
    """A style of a model: its name in requests, and its label, which people read."""

    name: str
    label: str


@runtime_checkable
class CatalogModel(Model, Protocol):
    """A model with styles of its own, which may become more while it runs."""

    def look_for_styles(self) -> list[StyleLabel]:
        """Look for new styles now, and return all in the order in which people see them."""

    def prepare(self, style_name: str) -> None:
        """Fetch what a picture in this style needs, if it is not here yet.

        Called in the request's own thread, before the picture waits for its turn: a slow store
        delays no other picture. Raises StylizeError if the store fails.
        """

    def sample_photograph(self) -> Image.Image:
        """Return the photograph that a catalog shows in each style. The caller may change it."""


def accept_options(options: ParameterValues, style_count: int, mask_count: int) -> None:
    """Accept any valid parameters."""


def accept_inputs(inputs: Inputs) -> None:
    """Accept any images."""


@dataclass(frozen=True)
class Service:
    """The description of one container.

    styled_by_image: whether a request brings images of the style, and masks, or names one of the
        model's styles.
    batch_columns: the parameters of a CSV row, after content, style and result.
    load: makes the model. If it raises an error, /ping tells it.
    has_catalog: whether the model is a CatalogModel.
    check_options: called with the parameters and the number of images of the style and of masks,
        before anything is read. Raises InvalidParameterError for what the model does not do.
    check_inputs: called with the images, before they wait for the model. Raises
        InvalidParameterError for what does not fit together.
    limits: of the model; GET / tells them.
    """

    name: str
    summary: str
    styled_by_image: bool
    parameters: tuple[Parameter, ...]
    batch_columns: tuple[str, ...]
    load: Callable[[], Model]
    has_catalog: bool = False
    check_options: Callable[[ParameterValues, int, int], None] = accept_options
    check_inputs: Callable[[Inputs], None] = accept_inputs
    limits: Mapping[str, int] = field(default_factory=dict)
