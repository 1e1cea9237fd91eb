"""The choice of a result's size: what was asked for, and what the machine can do."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from .images import fit
from .options import DEFAULT_BOX, GATYS_2015, Options, total_work
from .tiles import HALO
from .vgg import VGG19

# The time limit on a machine without a GPU, if the request leaves the size to us.
CPU_SECONDS = 140.0
# The memory of one evaluation in float32, measured at 512x384 and 800x600.
BYTES_PER_PIXEL = 3300.0
# In tiles: what the optimizer and the targets take for a pixel of the picture.
TILED_BYTES_PER_PIXEL = 220.0
# In pixels, without the halo. A larger one computes less twice.
TILE_SIDES = (1024, 512, 256)
# The work of an evaluation in tiles, in evaluations in one piece: a third of one is the features.
TILED_WORK = 4 / 3
# The share of the available time and memory that is planned for.
PLANNED_SHARE = 0.8
# Files with a control group's memory limit and usage, in versions 2 and 1.
CONTROL_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)

Size = tuple[int, int]  # width, height


def choose_size(width: int, height: int, options: Options, network: VGG19) -> tuple[Size, str]:
    """Return the size of the result for a photograph of width x height.

    Beside it, the reason why it is smaller than a user would expect; empty if it is not.
    """
    reason = ""
    if options.size is not None:
        size = fit(width, height, options.size, options.size, enlarge=True)
    else:
        size = fit(width, height, *DEFAULT_BOX)
        limit = time_limit(options, network.device)
        if limit < math.inf:
            size, reason = limit_by_time(size, limit, options, network)

    # Nothing warns of a full memory on a CPU: the process would be killed
    if network.device.type == "cpu":
        smaller = limit_pixels(size, most_pixels(options, PLANNED_SHARE * available_memory()))
        if smaller != size:
            size = smaller
            reason = "this machine's memory is too small for more."
    return size, reason


def most_pixels(options: Options, memory: float) -> float:
    """Return how many pixels a picture may have with so many bytes of memory."""
    in_one_piece = memory / BYTES_PER_PIXEL
    if options.algorithm == GATYS_2015:
        return in_one_piece
    in_tiles = (memory - tile_memory(min(TILE_SIDES))) / TILED_BYTES_PER_PIXEL
    return max(in_one_piece, in_tiles)


def tile_memory(side: int) -> float:
    """Return the bytes that a tile takes, with its halo."""
    return (side + 2 * HALO) ** 2 * BYTES_PER_PIXEL


def choose_tile_side(size: Size, options: Options, device: torch.device) -> int | None:
    """Return the side of the tiles, or None for a picture in one piece, which is faster."""
    if options.algorithm == GATYS_2015:
        return None
    width, height = size
    available = available_gpu_memory() if device.type == "cuda" else available_memory()
    memory = PLANNED_SHARE * available
    if width * height * BYTES_PER_PIXEL <= memory:
        return None
    left = memory - width * height * TILED_BYTES_PER_PIXEL
    for side in TILE_SIDES:
        if tile_memory(side) <= left:
            return side
    return min(TILE_SIDES)


def smaller_tile_side(side: int | None, size: Size, options: Options) -> int | None:
    """Return the side of the tiles to try next; None if no smaller ones would help."""
    if options.algorithm == GATYS_2015:
        return None
    current = side or max(size)
    for smaller in TILE_SIDES:
        if smaller + 2 * HALO < current:
            return smaller
    return None


def limit_by_time(size: Size, limit: float, options: Options, network: VGG19) -> tuple[Size, str]:
    seconds = seconds_per_pixel(network) * total_work(options)
    smaller = limit_pixels(size, PLANNED_SHARE * limit / seconds)
    if smaller == size:
        return size, ""
    reason = (
        f"this machine paints no more in {limit:.0f} s. "
        f"Ask for a size, such as {max(size)}, to get more and wait longer."
    )
    return smaller, reason


def limit_pixels(size: Size, pixels: float) -> Size:
    """Return `size`, or the largest size of its shape with at most so many pixels.

    The longer side is then a multiple of 16, and at least 64.
    """
    width, height = size
    if width * height <= pixels:
        return size
    longest = int(max(size) * math.sqrt(pixels / (width * height)))
    longest = max(64, longest // 16 * 16)
    return fit(width, height, longest, longest)


def time_limit(options: Options, device: torch.device) -> float:
    """Return the seconds that a picture may take.

    That is the time budget, or about two minutes if the size is left to a CPU, otherwise infinite.
    """
    if options.time_budget is not None:
        return options.time_budget
    if options.size is None and device.type == "cpu":
        return CPU_SECONDS
    return math.inf


@torch.enable_grad()
def seconds_per_pixel(
    network: VGG19, side: int = 160, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Measure one evaluation on an image of side x side pixels.

    The second of two counts, as the first one warms up. Raises FloatingPointError if the gradient
    is not finite.
    """
    for _ in range(2):
        image = torch.full((1, 3, side, side), 0.5, device=network.device, requires_grad=True)
        started = clock()
        loss = network(image, {"relu5_1"})["relu5_1"].float().mean()
        loss.backward()
        # This also waits for the GPU
        if image.grad is None or not torch.isfinite(image.grad).all():
            raise FloatingPointError("The network gives no finite gradient.")
        seconds = clock() - started
    return seconds / side**2


@dataclass(frozen=True)
class Estimate:
    """What a picture will take. size: (width, height). memory: in bytes."""

    size: Size
    seconds: float
    memory: float

    def __str__(self) -> str:
        width, height = self.size
        return (
            f"{width}x{height} will take about {self.seconds / 60:.0f} minutes "
            f"and {self.memory / 1e9:.1f} GB of memory."
        )


def estimate(size: Size, tile_side: int | None, options: Options, network: VGG19) -> Estimate:
    """Measure an evaluation, and return what a picture of this size will take."""
    width, height = size
    pixels = width * height
    seconds = seconds_per_pixel(network) * pixels * total_work(options, size)
    memory = BYTES_PER_PIXEL * pixels
    if tile_side is not None:
        # Each tile is computed with its halo, and its features a second time for the Gram matrices
        seconds *= TILED_WORK * ((tile_side + 2 * HALO) / tile_side) ** 2
        memory = TILED_BYTES_PER_PIXEL * pixels + tile_memory(tile_side)
    return Estimate(size, min(seconds, time_limit(options, network.device)), memory)


def available_gpu_memory() -> float:
    """Return the bytes that PyTorch may still take on the GPU."""
    free, _ = torch.cuda.mem_get_info()
    return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


def available_memory() -> float:
    """Return the bytes that this process may still take; infinite if they cannot be found out.

    The machine's memory limits it, and the process's control group.
    """
    available = [math.inf]
    with suppress(OSError, ValueError, IndexError):
        meminfo = Path("/proc/meminfo").read_text()
        kilobytes = meminfo.split("MemAvailable:")[1].split()[0]
        available.append(1024 * float(kilobytes))
    for limit_file, usage_file in CONTROL_GROUPS:
        # The limit may be the word "max", which is not a number
        with suppress(OSError, ValueError):
            limit = float(Path(limit_file).read_text())
            usage = float(Path(usage_file).read_text())
            available.append(limit - usage)
    return max(0.0, min(available))
