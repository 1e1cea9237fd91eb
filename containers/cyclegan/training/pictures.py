"""The photographs of a training: found in a folder, and cut into crops that differ each time."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from containers.common.tensors import to_tensor
from containers.serving import images
from containers.serving.errors import ApiError
from containers.serving.limits import INPUT_SIDE

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")
# A photograph is kept with this longer side; crops at 1:1 show details of this size.
LONGEST_PHOTOGRAPH = 800
# Photographs that stay decoded, 1.4 MB each; the others are read again for each crop.
MAX_IN_MEMORY = 256
# Photographs are brighter or darker by up to this factor.
LIGHT = 0.2


def find_pictures(folder: Path) -> list[Path]:
    """Return the picture files in a folder and the folders in it, by name; hidden ones are not."""
    found = []
    for path in sorted(folder.rglob("*")):
        is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in SUFFIXES and path.is_file() and not is_hidden:
            found.append(path)
    return found


def read_picture(path: Path, longest: int = INPUT_SIDE) -> Image.Image:
    """Return the picture of a file, upright and in RGB, at most `longest` pixels long.

    Raises ApiError if it is no picture, and OSError if the file cannot be read.
    """
    return images.decode(path.read_bytes(), longest, path.name)


@dataclass
class Photographs:
    """Photographs by their files.

    Files that cannot be read as pictures are left out; `unreadable` has a sentence about each.
    """

    paths: list[Path]
    unreadable: list[str] = field(default_factory=list)
    in_memory: dict[Path, Image.Image] = field(default_factory=dict)

    def check(self, shortest: int) -> None:
        """Read every file once, and leave out what is no picture or has a side below `shortest`."""
        readable = []
        for path in self.paths:
            try:
                image = self.read(path)
            except (ApiError, OSError) as error:
                self.unreadable.append(str(error))
                continue
            if min(image.size) < shortest:
                self.unreadable.append(f"{path.name} is smaller than {shortest} pixels.")
                self.in_memory.pop(path, None)
                continue
            readable.append(path)
        self.paths = readable

    def read(self, path: Path) -> Image.Image:
        if path in self.in_memory:
            return self.in_memory[path]
        image = read_picture(path, LONGEST_PHOTOGRAPH)
        if len(self.in_memory) < MAX_IN_MEMORY:
            self.in_memory[path] = image
        return image

    def crop(self, size: int, random: torch.Generator) -> Tensor:
        """Return a crop (1, 3, size, size), RGB in 0..1, of a photograph.

        Which one, its scale (from the whole picture to full size), place, light and whether it is
        mirrored are random.
        """
        image = self.read(self.random_path(random))
        crop = random_crop(image, size, random_scale(image, size, random), random)
        light = 1 + LIGHT * (2 * random_number(random) - 1)
        return (crop * light).clamp(0, 1)

    def random_path(self, random: torch.Generator) -> Path:
        return self.paths[random_integer(len(self.paths), random)]


def random_crop(image: Image.Image, size: int, scale: float, random: torch.Generator) -> Tensor:
    """Return a crop (1, 3, size, size), RGB in 0..1, of the image resized by `scale`.

    Its place and whether it is mirrored are random. A side that would be shorter than `size` is
    stretched.
    """
    width = max(size, round(image.width * scale))
    height = max(size, round(image.height * scale))
    left = random_integer(width - size + 1, random)
    top = random_integer(height - size + 1, random)

    # The part of the image that becomes the crop; resizing it alone is quick.
    across = image.width / width
    down = image.height / height
    box = (left * across, top * down, (left + size) * across, (top + size) * down)
    part = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    crop = to_tensor(part)[None]
    if random_integer(2, random) == 1:
        crop = crop.flip(3)
    return crop


def random_scale(image: Image.Image, size: int, random: torch.Generator) -> float:
    """Return a scale between that at which the shorter side is `size`, and 1.

    Its logarithm is uniform, so that each doubling is as likely.
    """
    smallest = min(1.0, size / min(image.size))
    return math.exp(math.log(smallest) * random_number(random))


def random_integer(below: int, random: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=random))


def random_number(random: torch.Generator) -> float:
    """Return a number in 0..1."""
    return float(torch.rand((), generator=random))
