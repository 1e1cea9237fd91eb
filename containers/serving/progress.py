"""The progress of a running job: one JSON object at its progress_url, rewritten while it works."""

import base64
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypedDict

from PIL import Image

from . import images, storage
from .errors import ApiError
from .model import Progress

SECONDS_BETWEEN = 2.0
# For one write. A slow store delays the progress of other jobs, and this job's answer, by no more.
WRITE_SECONDS = 5.0
PREVIEW_SIDE = 384

# One thread for all jobs: a slow store never delays a model, it only gets fewer updates.
writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="progress")


class ProgressNumbers(TypedDict):
    step: int
    steps: int
    done: float
    loss: float | None
    seconds: float
    seconds_left: float | None


class ProgressState(ProgressNumbers, total=False):
    """The object at progress_url. preview: a JPEG in base64, if the model makes previews."""

    preview: str


class ProgressWriter:
    """Writes the progress of one job, at most every two seconds and never twice at a time.

    A store that fails costs only the progress.
    """

    def __init__(self, url: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.url = url
        self.clock = clock
        self.started = clock()
        self.last_write = -SECONDS_BETWEEN
        self.pending: Future[None] | None = None

    def update(self, progress: Progress) -> None:
        """Write `progress` in the background, unless it is too early or a write is running."""
        if self.url is None:
            return
        seconds = self.clock() - self.started
        if seconds - self.last_write < SECONDS_BETWEEN:
            return
        if self.pending is not None and not self.pending.done():
            return

        self.last_write = seconds
        # The preview is made here and now, as the model goes on to change the picture
        preview = progress.preview() if progress.preview else None
        self.pending = writer.submit(self.write, progress, seconds, preview)

    def write(self, progress: Progress, seconds: float, preview: Image.Image | None) -> None:
        state = progress_state(progress, seconds, preview)
        data = json.dumps(state).encode()
        try:
            storage.write(
                str(self.url), data, "application/json", "progress_url", seconds=WRITE_SECONDS
            )
        except ApiError as error:
            logging.getLogger(__name__).warning("progress not written: %s", error.code.value)
            self.url = None

    def finish(self) -> None:
        """Wait for a write that is running, so that no progress appears after the answer.

        One that has not even begun by then, as another job's store is slow, is left out.
        """
        if self.pending is not None:
            wait([self.pending], timeout=WRITE_SECONDS + 1)
            self.pending.cancel()


def progress_state(
    progress: Progress, seconds: float, preview: Image.Image | None
) -> ProgressState:
    """Return the object to write. seconds: since the job began."""
    seconds_left = None
    if progress.done > 0:
        seconds_left = round(seconds / progress.done * (1 - progress.done), 1)

    state: ProgressState = {
        "step": progress.step,
        "steps": progress.steps,
        "done": round(progress.done, 3),
        "loss": progress.loss,
        "seconds": round(seconds, 1),
        "seconds_left": seconds_left,
    }
    if preview is not None:
        jpeg = images.encode(images.shrink(preview, PREVIEW_SIDE), "image/jpeg")
        state["preview"] = base64.b64encode(jpeg).decode()
    return state
