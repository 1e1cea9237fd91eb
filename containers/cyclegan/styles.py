"""Styles: their names and labels, and their checkpoints, proved before they are served.

A checkpoint proves itself on two pictures, in float32 and in the device's working precision. The
faster one serves only if nobody can see the difference.
"""

import math
import os
import re
import time
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from containers.common.device import gpu_errors
from containers.common.tensors import to_tensor

from .checkpoint_file import check_file
from .generator import CheckpointError, Generator, find_styles, load_generator, stylize

# What is in the code, and what `weights` fetches.
PAINTERS = Path(__file__).with_name("painters")
# 360x240, from examples/photos/chelsea.jpg: Chelsea the cat, by Stéfan van der Walt, CC0. Also the
# photograph of the catalog.
PHOTOGRAPH = Path(__file__).with_name("photograph.jpg")
# Of the pictures of a proof. Both are multiples of 4, so that nothing has to be padded.
PROOF_SIZE = (120, 80)
# Half precision shows most in large fields of one color. A checkpoint that differed by 1 on the
# photograph alone differed by 4 with these, and by 17 on a portrait before a dark wall.
FIELD_COLORS = ("black", "white", "red", "lime", "blue", "yellow", "#1e1e1e", "gray")
# Of 255. Where a picture differs by more anywhere, float32 is used.
MAX_DIFFERENCE = 2.0

# People see these first, and these last; the others are between them, by name.
FIRST = ("monet", "vangogh", "cezanne", "ukiyoe")
LAST = ("vintage",)
LABELS = {"vangogh": "Van Gogh", "ukiyoe": "Ukiyo-e"}


# --- names ---

# Of a style that this project trains. Checkpoints of others may have other names.
NAME_PATTERN = re.compile("[a-z0-9][a-z0-9_-]{0,31}")


def in_order(names: Iterable[str]) -> list[str]:
    """Return the names in the order in which people see the styles."""

    def place(name: str) -> tuple[int, str]:
        if name in FIRST:
            return FIRST.index(name), name
        if name in LAST:
            return len(FIRST) + 1, name
        return len(FIRST), name

    return sorted(names, key=place)


def label_of(name: str) -> str:
    """Return a style's name as people read it: "starry_night" is "Starry Night"."""
    words = name.replace("_", " ").replace("-", " ")
    return LABELS.get(name, words.title())


# --- checkpoints ---


@dataclass(frozen=True)
class Style:
    """A checkpoint that has proved itself.

    precision: of the inner layers; see `Generator.to_precision`.
    difference: by how much the picture in the working precision differs, of 255; None if float32
        was the only choice.
    seconds: that loading and proving took.
    """

    generator: Generator
    precision: torch.dtype
    difference: float | None
    seconds: float

    def facts(self) -> dict[str, object]:
        """Return what the log tells."""
        facts: dict[str, object] = {"precision": str(self.precision).removeprefix("torch.")}
        if self.difference is not None:
            facts["difference"] = round(self.difference, 2)
        facts["seconds"] = round(self.seconds, 3)
        return facts


def find_checkpoints(directories: Sequence[Path]) -> dict[str, Path]:
    """Return the checkpoints of all directories by the name of their style.

    Of two with the same name, that of the last directory counts. Files whose names nobody can read
    are left out, see `unreadable_names`.
    """
    checkpoints: dict[str, Path] = {}
    for directory in directories:
        checkpoints |= find_styles(directory)
    return {name: path for name, path in checkpoints.items() if name.isprintable()}


def unreadable_names(directories: Sequence[Path]) -> list[str]:
    """Return the checkpoints whose names are not UTF-8, or hold control characters.

    Such a style could be neither listed nor asked for. Their bytes are escaped.
    """
    names = []
    for directory in directories:
        for name, path in find_styles(directory).items():
            if not name.isprintable():
                names.append(repr(os.fsencode(path.name))[2:-1])
    return names


def load_style(path: Path, device: torch.device, working_precision: torch.dtype) -> Style:
    """Return the generator of a checkpoint, in the faster precision if that is good enough.

    working_precision: the device's faster one, or float32.
    Raises CheckpointError with a reason for the user, also if it gives no finite picture.
    """
    started = time.monotonic()
    check_file(path)
    generator = load_generator(path, device)
    check_size(path, generator)
    precision = torch.float32
    difference = None
    with gpu_errors():
        images = [to_tensor(picture, device)[None] for picture in proof_pictures()]
        try:
            # Also loads what PyTorch loads at its first use
            expected = [stylize(generator, image) for image in images]
        except FloatingPointError as error:
            raise CheckpointError(f"{path} cannot be used: {error}.") from error

        if working_precision != torch.float32:
            faster = deepcopy(generator).to_precision(working_precision)
            difference = largest_difference(faster, images, expected)
            if difference is not None and difference <= MAX_DIFFERENCE:
                generator = faster
                precision = working_precision
    return Style(generator, precision, difference, time.monotonic() - started)


def check_size(path: Path, generator: Generator) -> None:
    """Raise CheckpointError if the file is too small for its values, of which many are then one."""
    values = sum(parameter.numel() for parameter in generator.parameters())
    if values > path.stat().st_size:
        raise CheckpointError(f"{path} holds fewer values than its tensors claim.")


def largest_difference(
    generator: Generator, images: Sequence[Tensor], expected: Sequence[Tensor]
) -> float | None:
    """Return by how much the generator's pictures differ, of 255; None if one is not finite.

    images, expected: (1, 3, H, W) in 0..1; H and W are multiples of 4.
    Not by `stylize`, which would turn to float32 where this precision gives no finite picture.
    """
    differences = []
    with torch.inference_mode():
        for image, picture in zip(images, expected, strict=True):
            x = (image * 2 - 1).contiguous(memory_format=torch.channels_last)
            result = generator(x).add(1).div(2)
            differences.append(float((result - picture).abs().max()) * 255)
    if all(math.isfinite(difference) for difference in differences):
        return max(differences)
    return None


def proof_pictures() -> list[Image.Image]:
    """Return the photograph, and the photograph under large fields of one color."""
    photograph = load_photograph().resize(PROOF_SIZE)
    fields = photograph.copy()
    draw = ImageDraw.Draw(fields)
    width, height = PROOF_SIZE
    columns = len(FIELD_COLORS) // 2
    for number, color in enumerate(FIELD_COLORS):
        row, column = divmod(number, columns)
        left = column * width // columns
        right = (column + 1) * width // columns - 1
        # The upper half, and the lowest quarter
        top = row * height * 3 // 4
        bottom = height // 2 - 1 if row == 0 else height - 1
        draw.rectangle((left, top, right, bottom), fill=color)
    return [photograph, fields]


def load_photograph() -> Image.Image:
    """Return the photograph that styles are proved on and shown with; the caller may change it."""
    return read_photograph().copy()


@cache
def read_photograph() -> Image.Image:
    with Image.open(PHOTOGRAPH) as image:
        return image.convert("RGB")
