"""The server around one model: its health, its queue, and the way of one job through it."""

import time
import traceback
from dataclasses import dataclass, field

from PIL import Image

from containers.common.errors import ErrorCode, FatalError
from containers.common.log import write_log

from . import images, storage
from .errors import ApiError
from .job_queue import JobQueue
from .limits import LONGEST_SIDE, MAX_QUEUE
from .model import Facts, Model, Picture, Progress, Service
from .parsing import Job
from .progress import ProgressWriter

# How long a job is assumed to take until one has been done.
FIRST_GUESS_SECONDS = 10.0


@dataclass
class RequestLog:
    """What the log tells about one request. A batch has the sizes of all its images, in order."""

    inference_id: str
    content_sizes: list[tuple[int, int]] = field(default_factory=list)
    style_sizes: list[tuple[int, int]] = field(default_factory=list)
    rows: int | None = None
    seconds: float | None = None
    size: tuple[int, int] | None = None
    facts: Facts = field(default_factory=Facts)
    error: ErrorCode | None = None

    def fields(self) -> dict[str, object]:
        """Return what is known, for a line of the log."""
        fields: dict[str, object] = {
            "content_sizes": self.content_sizes,
            "style_sizes": self.style_sizes,
            "rows": self.rows,
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
        self.model: Model | None = None
        self.fault: str | None = None  # why the model is broken, in words
        self.queue = JobQueue(MAX_QUEUE)
        self.last_seconds = FIRST_GUESS_SECONDS

    def load(self) -> None:
        """Load and test the model. /ping tells the result."""
        started = time.monotonic()
        try:
            self.model = self.service.load()
        except Exception as error:  # Whatever it is, the server stays up to tell it
            traceback.print_exc()
            self.fault = f"The model could not be loaded: {error}"
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

    def run(self, job: Job, log: RequestLog) -> tuple[Picture, float]:
        """Return the job's picture and the seconds that the model took. Fills `log`.

        Raises StylizeError and FatalError.
        """
        content = read_image(job.content, "content")
        log.content_sizes.append(content.size)
        styles = []
        for source in job.styles:
            style = read_image(source, "style")
            log.style_sizes.append(style.size)
            styles.append(style)
        progress = ProgressWriter(job.progress_url)

        def report(step: Progress) -> bool:
            progress.update(step)
            return self.queue.stopping.is_set()

        def stylize() -> tuple[Picture, float]:
            assert self.model is not None
            started = time.monotonic()
            picture = self.model.stylize(content, styles, job.options, report)
            return picture, seconds_since(started)

        try:
            picture, seconds = self.queue.run(stylize)
        except FatalError as error:
            self.fault = f"The model is broken and has to be started again: {error}"
            raise
        finally:
            progress.finish()

        self.last_seconds = seconds
        log.seconds = seconds
        log.size = picture.image.size
        log.facts = picture.facts
        return picture, seconds


def read_image(source: bytes | str, role: str) -> Image.Image:
    """Decode an image from a file's bytes or from a URL. role: "content" or "style"."""
    if isinstance(source, str):
        source = storage.read(source, f"{role}_url")
    return images.decode(source, LONGEST_SIDE, f"{role} image")


def seconds_since(started: float) -> float:
    return round(time.monotonic() - started, 3)
