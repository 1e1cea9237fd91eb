"""An image in tiles: the features of a large picture, with the memory for those of one tile.

A tile is cut out with a border, the halo, that is wider than what the deepest features see beyond
their own place. So its features are the same as those of the whole image at that place.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from .vgg import VGG19

# relu5_1 sees 70 pixels on each side of the 16 that it stands for: a convolution in block b sees
# 2^(b-1), and there are 2, 2, 4, 4 and 1 of them.
HALO = 80
# Four poolings halve an image where it begins at a multiple of this.
ALIGNMENT = 16


def stride(layer: str) -> int:
    """Return how many pixels of the image lie between two features of a layer like "relu3_1"."""
    block = int(layer[4])
    return 1 << (block - 1)


@dataclass(frozen=True)
class Span:
    """A part of one side of an image, from the pixel `start` to before `end`.

    length: of the whole side. start and end are multiples of ALIGNMENT, except at its end.
    """

    start: int
    end: int
    length: int

    @property
    def outer_start(self) -> int:
        return max(0, self.start - HALO)

    def outer(self) -> slice:
        """Return where it is in the image, with the halo."""
        return slice(self.outer_start, min(self.length, self.end + HALO))

    def whole(self, stride: int) -> slice:
        """Return where it is in the features of the whole image, without the halo."""
        return slice(self.start // stride, self.end // stride)

    def core(self, stride: int) -> slice:
        """Return where it is in the features of outer(), without the halo."""
        first = (self.start - self.outer_start) // stride
        return slice(first, first + self.end // stride - self.start // stride)


@dataclass(frozen=True)
class Tile:
    """A rectangle of an image."""

    rows: Span
    columns: Span

    def crop(self, image: Tensor) -> Tensor:
        """Return the tile's pixels with the halo. It is a view."""
        return image[..., self.rows.outer(), self.columns.outer()]

    def core(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the features of `crop` without those of the halo."""
        cores = {}
        for layer, values in features.items():
            step = stride(layer)
            cores[layer] = values[..., self.rows.core(step), self.columns.core(step)]
        return cores

    def features(
        self, image: Tensor, network: VGG19, layers: set[str], replicate: bool = True
    ) -> dict[str, Tensor]:
        """Return the tile's part of the features of an image (1, 3, H, W)."""
        return self.core(network(self.crop(image), layers, replicate))

    def part(self, whole: Tensor, stride: int) -> Tensor:
        """Return the tile's part of a tensor that has the size of the whole image's features."""
        return whole[..., self.rows.whole(stride), self.columns.whole(stride)]

    def put(self, part: Tensor, whole: Tensor, stride: int) -> Tensor:
        """Return `whole` with `part` in its place. An empty `whole` is made for it first."""
        height = self.rows.length // stride
        width = self.columns.length // stride
        if part.shape[-2:] == (height, width):
            return part
        if whole.numel() == 0:
            whole = part.new_empty(*part.shape[:-2], height, width)
        self.part(whole, stride).copy_(part)
        return whole

    def share(self, stride: int) -> float:
        """Return the share that the tile has in the features of the whole image."""
        share = 1.0
        for span in (self.rows, self.columns):
            inside = span.whole(stride)
            share *= (inside.stop - inside.start) / (span.length // stride)
        return share


def split(image: Tensor, side: int | None) -> list[Tile]:
    """Return the tiles of an image (1, 3, H, W), about `side` pixels wide and high.

    side: at least 32; None: one tile, the whole image.
    """
    height, width = image.shape[-2:]
    return [
        Tile(rows, columns)
        for rows in split_side(height, side)
        for columns in split_side(width, side)
    ]


def split_side(length: int, side: int | None) -> list[Span]:
    count = 1
    if side is not None:
        count = math.ceil(length / side)
    bounds = [round(number * length / count / ALIGNMENT) * ALIGNMENT for number in range(count)]
    bounds.append(length)
    return [Span(start, end, length) for start, end in pairwise(bounds)]
