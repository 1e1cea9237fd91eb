"""The server around one model: its health, its queue, and the way of one job through it."""

import gc
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from PIL import Image

from containers.common import memory
from containers.common.errors import ErrorCode, FatalError, StylizeError, UnknownStyleError
from containers.common.log import write_log

from . import decoder, storage
from .catalog import MAX_STYLES, Sample
from .control import Control
from .errors import ApiError, as_api_error
from .film import Film
from .job_queue import JobQueue
from .limits import MAX_BATCHES, MAX_FETCHING, MAX_QUEUE, SOURCES_SECONDS, input_side
from .model import CatalogModel, Facts, Inputs, Model, Picture, Progress, Service, StyleLabel
from .parsing import Job
from .progress import ProgressWriter

T = TypeVar("T")

# How long a job is assumed to take until one has been done.
FIRST_GUESS_SECONDS = 10.0
# Errors that concern the server, not one of its styles.
ENDS_A_CATALOG = (ErrorCode.STOPPING, ErrorCode.OUT_OF_MEMORY)


@dataclass
class RequestLog:
    """What the log tells about one request. A batch has the sizes of all its images, in order.

    catalog: the names of the styles, for a request for a catalog.
    """

    inference_id: str
    content_sizes: list[tuple[int, int]] = field(default_factory=list)
    style_sizes: list[tuple[int, int]] = field(default_factory=list)
    rows: int | None = None
    catalog: list[str] | None = None
    seconds: float | None = None
    size: tuple[int, int] | None = None
    facts: Facts = field(default_factory=Facts)
    error: ErrorCode | str | None = None

    def fields(self) -> dict[str, object]:
        """Return what is known, for a line of the log."""
        fields: dict[str, object] = {
            "content_sizes": self.content_sizes,
            "style_sizes": self.style_sizes,
            "rows": self.rows,
            "catalog": self.catalog,
            "seconds": self.seconds,
            "size": self.size,
            **self.facts,
            "error": self.error,
        }
        known = {name: value for name, value in fields.items() if value not in (None, [])}
        return {"inference_id": self.inference_id, **known}


class Server:
    """One model, its health and its queue."""

    def __init__(self, service: Service) -> None:
        self.service = service
        # In seconds since 1970
        self.started = int(time.time())
        self.model: Model | None = None
        self.fault: str | None = None  # why the model is broken, in words
        self.queue = JobQueue(MAX_QUEUE)
        self.fetching = threading.BoundedSemaphore(MAX_FETCHING)
        self.batches = threading.BoundedSemaphore(MAX_BATCHES)
        self.last_seconds = FIRST_GUESS_SECONDS

    def load(self) -> None:
        """Load and test the model. /ping tells the result."""
        started = time.monotonic()
        decoder.start()
        try:
            self.model = self.service.load()
        except Exception as error:  # Whatever it is, the server stays up to tell it
            traceback.print_exc()
            self.fault = f"The model could not be loaded: {error}"
        # Python need not look through PyTorch's 200,000 objects again and again, which takes 50 ms
        gc.freeze()
        write_log(
            "loaded",
            model=self.service.name,
            fault=self.fault,
            seconds=seconds_since(started),
        )

    def health(self) -> ApiError | None:
        """Return None if the model works, otherwise the error that requests are answered with."""
        if self.fault is not None:
            return ApiError(ErrorCode.BROKEN, self.fault)
        if self.model is None:
            return ApiError(
                ErrorCode.LOADING,
                "The model is being loaded. Try again in a few seconds.",
                retry_after=5,
            )
        return None

    def styles(self) -> list[str]:
        """Return the names of the model's styles; none before it is loaded."""
        if self.model is None:
            return []
        return list(self.model.styles())

    def read_inputs(self, job: Job, log: RequestLog, gone: threading.Event) -> Inputs:
        """Read and decode the images of a job that has no place in the queue yet. Fills `log`.

        gone: set when nobody waits for the picture any more.
        Raises ApiError, queue_full too if many requests read from other servers already, and
        ClientGoneError.
        """
        if not any(is_http(source) for source in (job.content, *job.styles, *job.masks)):
            return read_all(self.service, job, log, gone)
        with one_of(self.fetching, f"{MAX_FETCHING} requests are reading their images", 5):
            return read_all(self.service, job, log, gone)

    @contextmanager
    def batch_admission(self) -> Iterator[None]:
        """Hold a place for a batch, and one in the queue: batches never hold all of the queue.

        Raises ApiError queue_full or stopping.
        """
        batches = f"{MAX_BATCHES} batches are being worked on"
        with one_of(self.batches, batches, 60), self.queue.admission(self.last_seconds):
            yield

    def run(
        self, job: Job, inputs: Inputs, log: RequestLog, control: Control, film: Film
    ) -> tuple[Picture, float]:
        """Return the job's picture and the seconds that the model took. Fills `log`.

        film: gets its frames.
        control: what is asked of the job meanwhile. When nobody waits for the picture any more, the
        job ends as soon as it can.
        Raises StylizeError, FatalError and ClientGoneError.
        """
        style_name = job.options.get("style_name")
        if style_name and isinstance(self.model, CatalogModel):
            self.model.prepare(style_name)
        progress = ProgressWriter(job.progress_url)

        def report(step: Progress) -> bool:
            progress.update(step)
            film.add(step)
            is_unwanted = self.queue.stopping.is_set() or control.gone.is_set()
            return is_unwanted or control.taken.is_set()

        def stylize() -> tuple[Picture, float]:
            assert self.model is not None
            started = time.monotonic()
            picture = self.model.stylize(inputs, job.options, report)
            return picture, seconds_since(started)

        try:
            picture, seconds = self.run_in_turn(stylize, control.gone)
        finally:
            progress.finish()

        self.last_seconds = seconds
        log.seconds = seconds
        log.size = picture.image.size
        log.facts = picture.facts
        return picture, seconds

    def make_samples(self, gone: threading.Event) -> list[Sample]:
        """Return a picture in each of the model's styles, in the order in which people see them.

        The model must be a CatalogModel. Each picture waits for its own turn, so that the pictures
        that people wait for come in between. A style that cannot be used is left out; the log tells
        why. Raises StylizeError, FatalError and ClientGoneError, and UnknownStyleError if no style
        can be used.
        """
        model = self.model
        assert isinstance(model, CatalogModel)
        styles = model.look_for_styles()
        for style in styles[MAX_STYLES:]:
            write_log("style not in the catalog", style=style.name, reason="there are too many")
        samples = []
        for style in styles[:MAX_STYLES]:
            try:
                samples.append(self.make_sample(model, style, gone))
            except StylizeError as error:
                if error.code in ENDS_A_CATALOG:
                    raise
                reason = as_api_error(error).message
                write_log("style not in the catalog", style=style.name, reason=reason)
        if not samples:
            raise UnknownStyleError("No style can be used; the log has the reasons.")
        return samples

    def make_sample(self, model: CatalogModel, style: StyleLabel, gone: threading.Event) -> Sample:
        model.prepare(style.name)
        options = {"style_name": style.name}

        def report(step: Progress) -> bool:
            return self.queue.stopping.is_set() or gone.is_set()

        def stylize() -> Picture:
            return model.stylize(Inputs(model.sample_photograph()), options, report)

        return Sample(style.name, style.label, self.run_in_turn(stylize, gone).image)

    def run_in_turn(self, job: Callable[[], T], gone: threading.Event) -> T:
        """Run the model's job in its turn. After a FatalError the model counts as broken."""

        def run() -> T:
            try:
                return job()
            finally:
                memory.give_back()

        try:
            return self.queue.run(run, gone)
        except FatalError as error:
            self.fault = f"The model is broken and has to be started again: {error}"
            raise


@contextmanager
def one_of(places: threading.BoundedSemaphore, taken: str, retry_after: int) -> Iterator[None]:
    """Hold one of some places. Raises ApiError queue_full if all are taken.

    taken: says that in words. retry_after: in seconds.
    """
    if not places.acquire(blocking=False):
        raise ApiError(
            ErrorCode.QUEUE_FULL, f"{taken} already. Try again in {retry_after} s.", retry_after
        )
    try:
        yield
    finally:
        places.release()


def is_http(source: bytes | str) -> bool:
    """Return whether a source is an http:// or https:// address, whose server may be anybody's."""
    return isinstance(source, str) and not source.startswith("s3://")


def read_all(service: Service, job: Job, log: RequestLog, gone: threading.Event) -> Inputs:
    """Read and decode the job's images, and check them. Fills `log`.

    Raises ApiError, InvalidParameterError and ClientGoneError.
    """
    deadline = time.monotonic() + SOURCES_SECONDS
    longest = input_side(job.options.get("size"))

    def read(source: bytes | str, role: str) -> Image.Image:
        return read_image(source, role, longest, gone, deadline)

    content = read(job.content, "content")
    log.content_sizes.append(content.size)
    styles = []
    for source in job.styles:
        style = read(source, "style")
        log.style_sizes.append(style.size)
        styles.append(style)
    masks = [read(source, "mask") for source in job.masks]
    inputs = Inputs(content, styles, masks)
    service.check_inputs(inputs)
    return inputs


def read_image(
    source: bytes | str, role: str, longest: int, gone: threading.Event, deadline: float
) -> Image.Image:
    """Decode an image from a file's bytes or from a URL. role: "content", "style" or "mask".

    longest: the limit of the longer side in pixels; a larger image is shrunk.
    gone: set when nobody waits for the image any more.
    deadline: until when a URL must have been read, by time.monotonic().
    """
    if isinstance(source, str):
        source = storage.read(source, f"{role}_url", deadline - time.monotonic())
    return decoder.decode(source, longest, f"{role} image", gone)


def seconds_since(started: float) -> float:
    return round(time.monotonic() - started, 3)
