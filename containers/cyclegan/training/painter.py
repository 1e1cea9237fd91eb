"""One painter: what it is trained from, the files that tell about it, and its checkpoint."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from containers.common.device import best_device, working_precision
from containers.common.tensors import to_image, to_tensor
from containers.nst.vgg import VGG19
from containers.serving import images, storage
from containers.serving.errors import ApiError

from ..generator import Generator, Layout, load_generator, stylize
from ..styles import PAINTERS
from . import adversarial, initial
from .adversarial import AdversarialTraining
from .curve import draw_curve
from .discriminator import Discriminator
from .loop import Report, Run, Training, TrainingError, train, write_atomically
from .options import Options
from .perceptual import LAST_CROP, PerceptualTraining, learn_to_copy
from .pictures import Photographs, find_pictures, read_picture

EXAMPLES = Path(__file__).parents[3] / "examples" / "photos"
# Held out of the photographs of examples/: a face with whiskers, and a background out of focus.
HELD_OUT = "chelsea.jpg"
MIN_PHOTOGRAPHS = 3
MIN_PAINTINGS = 10
# The held-out photograph is painted for the user at this size, so often.
PREVIEW_SIDE = 480
SECONDS_BETWEEN_PREVIEWS = 30.0
DEFAULT_FILTERS = 32
# A training's checkpoint has the weights three times (Adam's two moments).
BYTES_FOR_EACH_WEIGHT = 4 * 3


@dataclass
class Sources:
    """What a painter is trained from, read and checked.

    styles: each (1, 3, H, W), RGB in 0..1. paintings: None if it learns from `styles`.
    notes: a sentence about each file that is left out. remark: what the user should know, or None.
    """

    photographs: Photographs
    held_out: Image.Image
    styles: list[Tensor]
    start: Path | None
    layout: Layout
    notes: list[str] = field(default_factory=list)
    paintings: Photographs | None = None
    remark: str | None = None


@dataclass(frozen=True)
class Files:
    """The files of a painter in the output folder."""

    checkpoint: Path
    recipe: Path
    preview: Path
    curve: Path
    training: Path

    @classmethod
    def of(cls, options: Options) -> Files:
        folder = options.output
        return cls(
            checkpoint=folder / f"style_{options.name}.pth",
            recipe=folder / f"{options.name}.json",
            preview=folder / f"{options.name}.jpg",
            curve=folder / f"{options.name}.png",
            training=folder / f".training-{options.name}" / "checkpoint.pt",
        )


def read_sources(options: Options) -> Sources:
    """Read everything that the training needs.

    Raises TrainingError for what is missing or unreadable, before anything is spent.
    """
    files = Files.of(options)
    if files.checkpoint.exists() and not options.replace:
        raise TrainingError(
            f"{files.checkpoint} exists. Choose another --name, or add --replace to train it anew."
        )
    start, layout = choose_start(options)
    if options.paintings is not None:
        check_disk(options.output, adversarial.checkpoint_bytes(Generator(layout)))
        return read_collections(options, options.paintings, start, layout)

    styles = [read_style(path) for path in options.styles]
    photographs, held_out = read_photographs(options.photos, LAST_CROP)
    weights = sum(parameter.numel() for parameter in Generator(layout).parameters())
    check_disk(options.output, BYTES_FOR_EACH_WEIGHT * weights)
    return Sources(photographs, held_out, styles, start, layout, photographs.unreadable)


def read_collections(options: Options, folder: Path, start: Path | None, layout: Layout) -> Sources:
    """Read a folder of paintings and one of photographs. Raises TrainingError."""
    paintings = read_paintings(folder)
    photographs, held_out = read_photographs(options.photos, adversarial.CROP)
    remark = None
    if options.minutes is None and options.steps is None:
        remark = (
            f"It takes {adversarial.default_steps(paintings)} steps: as in the paper, "
            f"{adversarial.EPOCHS} times the {len(paintings.paths)} paintings. "
            "--minutes N sets another length."
        )
    return Sources(
        photographs,
        held_out,
        [],
        start,
        layout,
        notes=photographs.unreadable + paintings.unreadable,
        paintings=paintings,
        remark=remark,
    )


def read_paintings(folder: Path) -> Photographs:
    paintings = read_folder(folder, "paintings", adversarial.CROP)
    check_number(
        paintings,
        folder,
        "paintings",
        adversarial.CROP,
        MIN_PAINTINGS,
        "A few hundred are better. To learn from a single picture, use --style.",
    )
    return paintings


def read_folder(folder: Path, what: str, shortest: int) -> Photographs:
    """Return the pictures of a folder with sides of `shortest` or more. Raises TrainingError."""
    if not folder.is_dir():
        raise TrainingError(f"{folder} is no folder of {what}.")
    pictures = Photographs(find_pictures(folder))
    pictures.check(shortest)
    return pictures


def check_number(
    pictures: Photographs, folder: Path, what: str, shortest: int, fewest: int, advice: str = ""
) -> None:
    """Raise TrainingError, with the first reasons, if there are fewer pictures than `fewest`."""
    if len(pictures.paths) >= fewest:
        return
    sentences = [
        f"{folder} has {len(pictures.paths)} {what} that can be used, and {fewest} are needed, "
        f"each at least {shortest} pixels high and wide.",
        *pictures.unreadable[:3],
        advice,
    ]
    raise TrainingError(" ".join(sentence for sentence in sentences if sentence))


def read_style(path: Path) -> Tensor:
    try:
        return to_tensor(read_picture(path))[None]
    except ApiError as error:
        raise TrainingError(f"{path} cannot be the style. {error}") from None
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror or error}.") from None


def read_photographs(folder: Path | None, shortest: int) -> tuple[Photographs, Image.Image]:
    """Return the photographs to learn from, with sides of `shortest` or more, and a held-out one.

    The latter is the last one of the folder. If there are too few to spare one, or without a
    folder, it is one of examples/.
    """
    source = folder or EXAMPLES
    photographs = read_folder(source, "photographs", shortest)
    held_out = EXAMPLES / HELD_OUT
    if folder is None:
        photographs.paths.remove(held_out)
    elif len(photographs.paths) > MIN_PHOTOGRAPHS:
        held_out = photographs.paths.pop()
    check_number(photographs, source, "photographs", shortest, MIN_PHOTOGRAPHS)
    return photographs, read_picture(held_out, PREVIEW_SIDE)


def choose_start(options: Options) -> tuple[Path | None, Layout]:
    """Return the checkpoint to begin with, or None, and the layout of the painter.

    Without --from it is a painter that is here already: it knows how to paint a photograph, and
    only has to learn another style. CycleGAN starts with random weights, as in the paper.
    """
    is_ours = options.layout == "stylebot"
    filters = options.filters
    start = options.start
    if start is not None and filters is None:
        filters = load_generator(start).layout.filters
    layout = Layout(filters or DEFAULT_FILTERS, affine=is_ours, resize=is_ours)
    if start is None and options.paintings is None:
        for path in sorted(PAINTERS.glob("style_*.pth")):
            if load_generator(path).layout.filters == layout.filters:
                return path, layout
    return start, layout


def check_disk(folder: Path, checkpoint_bytes: int) -> None:
    """Make the folder. Raises TrainingError if it cannot be written, or has too little room."""
    # There are two checkpoints while one is replaced
    needed = 2 * checkpoint_bytes
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        probe = folder / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise TrainingError(f"{folder} cannot be written: {error.strerror or error}.") from None
    if free < needed:
        raise TrainingError(
            f"{folder} has {free >> 20} MB left, and the training needs {needed >> 20} MB there. "
            "Make room, or choose another folder with -o."
        )


def recipe_of(options: Options, sources: Sources) -> dict[str, Any]:
    """Return what decides the result, beside the machine: for the record, and to go on by."""
    recipe = {
        "name": options.name,
        "styles": [sha256(path) for path in options.styles],
        "photographs": [path.name for path in sources.photographs.paths],
        "start": sha256(sources.start) if sources.start else None,
        "filters": sources.layout.filters,
        "layout": options.layout,
        "minutes": options.minutes,
        "steps": options.steps,
        "seed": options.seed,
    }
    if sources.paintings is not None:
        recipe["paintings"] = [path.name for path in sources.paintings.paths]
    return recipe


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class PainterTraining(Training, Protocol):
    """A training of a painter."""

    @property
    def generator(self) -> Generator:
        """The generator that becomes the painter, in train mode."""


def make_training(options: Options, sources: Sources) -> PainterTraining:
    """Return the training at its start."""
    device = best_device()
    precision = working_precision(device)
    # float16 needs its loss scaled; a GPU without bfloat16 trains in float32
    if precision == torch.float16:
        precision = torch.float32
    if sources.paintings is not None:
        return make_adversarial_training(options, sources, sources.paintings, device, precision)

    random = torch.Generator().manual_seed(options.seed)
    if sources.start:
        generator = initial.generator_from(sources.start, sources.layout)
    else:
        generator = initial.fresh_generator(sources.layout, random)
    generator.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    begins = not Files.of(options).training.exists()
    if begins and not sources.start:
        learn_to_copy(generator, sources.photographs, precision, random)
    network = VGG19().to(device).to_precision(precision)
    styles = [style.to(device) for style in sources.styles]
    training = PerceptualTraining(
        generator, styles, sources.photographs, network, precision, options.seed
    )
    training.total_steps = options.steps
    return training


def make_adversarial_training(
    options: Options,
    sources: Sources,
    paintings: Photographs,
    device: torch.device,
    precision: torch.dtype,
) -> AdversarialTraining:
    """Return CycleGAN's training at its start."""
    random = torch.Generator().manual_seed(options.seed)
    filters = sources.layout.filters
    to_painting = Generator(sources.layout)
    to_photograph = Generator(sources.layout)
    painting_discriminator = Discriminator(filters)
    photograph_discriminator = Discriminator(filters)
    networks = [to_painting, to_photograph, painting_discriminator, photograph_discriminator]
    for network in networks:
        initial.set_random_weights(network, random, adversarial.STANDARD_DEVIATION)
    if sources.start:
        to_painting = initial.generator_from(sources.start, sources.layout)
        networks[0] = to_painting
    for network in networks:
        network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    training = AdversarialTraining(
        to_painting,
        to_photograph,
        painting_discriminator,
        photograph_discriminator,
        paintings,
        sources.photographs,
        precision,
        options.seed,
    )
    training.total_steps = options.steps
    if options.steps is None and options.minutes is None:
        training.total_steps = adversarial.default_steps(paintings)
    return training


def train_painter(
    options: Options,
    sources: Sources,
    on_report: Callable[[Report, Image.Image], None],
    on_trouble: Callable[[str], None],
    is_stopped: Callable[[], bool],
) -> bool:
    """Train the painter, or go on with it. Return whether it is finished, and not stopped.

    on_report: gets the newest picture of the held-out photograph as well.
    Raises TrainingError.
    """
    files = Files.of(options)
    training = make_training(options, sources)
    run = Run(recipe_of(options, sources))
    watcher = Watcher(training, run, sources, files)

    def report(progress: Report) -> None:
        on_report(progress, watcher.update(progress))

    finished = train(
        training,
        run,
        files.training,
        # Without minutes, the training has total_steps
        60 * (options.minutes or 0.0),
        report,
        on_trouble,
        is_stopped,
    )
    if not finished:
        return False

    weights = stored_weights(training.generator, options.layout)
    write_atomically(files.checkpoint, lambda file: torch.save(weights, file))
    prove(files.checkpoint, sources.held_out)
    write_bytes(files.recipe, json.dumps(describe(run, training, options), indent=2).encode())
    watcher.write()
    if options.models_url:
        url = options.models_url.rstrip("/") + "/" + files.checkpoint.name
        upload(url, files.checkpoint)
    shutil.rmtree(files.training.parent, ignore_errors=True)
    return True


def stored_weights(generator: Generator, layout: str) -> dict[str, Tensor]:
    """Return the weights as generator.load_generator reads them: ours in float16, half the size.

    That changed the pictures of four painters by at most 1.3 of 255, and by 0.03 on average. Other
    programs may expect float32.
    """
    weights = {}
    for name, tensor in generator.state_dict().items():
        stored = tensor.detach().cpu().contiguous()
        if layout != "official":
            stored = stored.half()
        weights[name] = stored
    return weights


def paint(generator: Generator, photograph: Tensor) -> Tensor:
    """Return the photograph (1, 3, H, W), RGB in 0..1, as a generator in training paints it now."""
    generator.eval()
    try:
        return stylize(generator, photograph)
    finally:
        generator.train()


class Watcher:
    """Writes the pictures that show how far a training is: a photograph, and the losses."""

    def __init__(self, training: PainterTraining, run: Run, sources: Sources, files: Files) -> None:
        self.training = training
        self.run = run
        self.files = files
        self.photograph = to_tensor(sources.held_out)[None]
        self.last = -SECONDS_BETWEEN_PREVIEWS
        self.image = sources.held_out

    def update(self, progress: Report) -> Image.Image:
        """Return the newest picture, and make a new one if it is time."""
        if progress.seconds >= self.last + SECONDS_BETWEEN_PREVIEWS:
            self.write()
            self.last = progress.seconds
        return self.image

    def write(self) -> None:
        self.image = to_image(paint(self.training.generator, self.photograph)[0])
        write_bytes(self.files.preview, images.encode(self.image, "image/jpeg"))
        if len(self.run.points) > 1:
            write_bytes(self.files.curve, images.encode(draw_curve(self.run.points), "image/png"))


def write_bytes(path: Path, data: bytes) -> None:
    write_atomically(path, lambda file: file.write(data))


def prove(path: Path, photograph: Image.Image) -> None:
    """Raise TrainingError if the finished checkpoint paints nothing."""
    small = photograph.copy()
    small.thumbnail((64, 64))
    try:
        stylize(load_generator(path), to_tensor(small)[None])
    except (ValueError, FloatingPointError) as error:
        raise TrainingError(f"The finished painter does not paint: {error}") from None


def describe(run: Run, training: Training, options: Options) -> dict[str, Any]:
    """Return what NAME.json tells: the recipe, how long it took, the losses on the way."""
    return {
        **run.recipe,
        "style_files": [path.name for path in options.styles],
        "steps": training.total_steps,
        "minutes": round(run.seconds / 60, 1),
        "torch": torch.__version__,
        "points": [
            {"step": step, "seconds": seconds, **{name: round(v, 5) for name, v in losses.items()}}
            for step, seconds, losses in run.points
        ],
    }


def upload(url: str, path: Path) -> None:
    try:
        storage.write(
            storage.check_url(url, "models_url"),
            path.read_bytes(),
            "application/octet-stream",
            "models_url",
        )
    except ApiError as error:
        message = f"The painter is finished, but could not be put to models_url: {error}"
        raise TrainingError(message) from None
