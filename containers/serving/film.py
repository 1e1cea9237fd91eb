"""How a picture came about: a short animation, from the steps that the model makes anyway."""

import io
import math

from PIL import Image

from .images import shrink
from .model import Progress

MAX_FRAMES = 40
SIDE = 320
FRAME_MILLISECONDS = 100
LAST_MILLISECONDS = 2000


class Film:
    """The frames of one job. url: where the film is to go; None: nobody wants one."""

    def __init__(self, url: str | None) -> None:
        self.url = url
        self.frames: list[Image.Image] = []

    def add(self, progress: Progress) -> None:
        """Take this step's picture as a frame, if its turn has come."""
        if self.url is None or progress.picture is None:
            return
        every = math.ceil(progress.steps / MAX_FRAMES)
        if progress.step % every == 0 and len(self.frames) < MAX_FRAMES:
            self.frames.append(shrink(progress.picture(), SIDE))

    def encode(self, result: Image.Image) -> bytes:
        """Return a GIF that ends with the result, which stays longer than the other frames."""
        last = shrink(result, SIDE)
        frames = [frame.resize(last.size, Image.Resampling.BICUBIC) for frame in self.frames]
        first, *others = [to_palette(frame) for frame in (*frames, last)]
        durations = [FRAME_MILLISECONDS] * len(frames) + [LAST_MILLISECONDS]
        buffer = io.BytesIO()
        first.save(buffer, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
        return buffer.getvalue()


def to_palette(image: Image.Image) -> Image.Image:
    return image.quantize(256, method=Image.Quantize.FASTOCTREE)
