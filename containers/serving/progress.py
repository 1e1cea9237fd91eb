"""What a job that is under way tells the world: one JSON object at its progress_url, rewritten as it goes."""

import base64
import json
import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from . import images, storage
from .errors import RequestError
from .model import Progress

SECONDS_BETWEEN = 2.0
PREVIEW_SIDE = 256

# One thread, so that a slow store never holds up a model: what it has no time for is left out.
writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="progress")


class ProgressWriter:
    """Writes progress at most every 2 s, and never two at a time. A store that fails costs the progress only."""

    def __init__(self, url: str | None) -> None:
        self.url = url
        self.started = time.monotonic()
        self.last = -SECONDS_BETWEEN
        self.pending: Future[None] | None = None

    def __call__(self, progress: Progress) -> None:
        seconds = time.monotonic() - self.started
        busy = self.pending is not None and not self.pending.done()
        if self.url is None or busy or seconds - self.last < SECONDS_BETWEEN:
            return
        self.last = seconds
        # The picture is taken here and now: the model goes on changing it
        preview = progress.preview() if progress.preview else None
        self.pending = writer.submit(self.write, progress, seconds, preview)

    def write(self, progress: Progress, seconds: float, preview: images.Image.Image | None) -> None:
        left = seconds / progress.done * (1 - progress.done) if progress.done > 0 else None
        state: dict[str, Any] = {
            "step": progress.step,
            "steps": progress.steps,
            "done": round(progress.done, 3),
            "loss": progress.loss,
            "seconds": round(seconds, 1),
            "seconds_left": None if left is None else round(left, 1),
        }
        if preview is not None:
            small = images.encode(images.shrunk(preview, PREVIEW_SIDE), "image/jpeg")
            state["preview"] = base64.b64encode(small).decode()
        try:
            storage.write(
                str(self.url), json.dumps(state).encode(), "application/json", "progress_url"
            )
        except RequestError as error:
            logging.getLogger(__name__).warning("progress not written: %s", error.code)
            self.url = None

    def finish(self) -> None:
        """Lets a write that is under way end, so that no progress appears after the answer."""
        if self.pending is not None:
            wait([self.pending], timeout=5)
