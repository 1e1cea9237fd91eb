"""What the rivals share: pictures as Laplacian pyramids, hypercolumns, cosine distances."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from containers.nst.images import resize


def size_of(image: Tensor) -> tuple[int, int]:
    """Return (width, height)."""
    return image.shape[3], image.shape[2]


def scaled_size(image: Tensor, share: float) -> tuple[int, int]:
    """Return (width, height) of the image's scale, at least 16 pixels each."""
    width, height = size_of(image)
    return max(16, round(width * share)), max(16, round(height * share))


def upsample(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the image at the size (width, height).

    It is not clamped: it may be a difference of images.
    """
    width, height = size
    return F.interpolate(image, (height, width), mode="bilinear", align_corners=False)


def to_pyramid(image: Tensor, levels: int) -> list[Tensor]:
    """Return the Laplacian pyramid of the image: `levels` differences, and what is left.

    Burt & Adelson, "The Laplacian Pyramid as a Compact Image Code" (1983).
    """
    pyramid = []
    for _ in range(levels):
        width, height = size_of(image)
        if min(width, height) < 2:
            break
        smaller = resize(image, (width // 2, height // 2))
        pyramid.append(image - upsample(smaller, (width, height)))
        image = smaller
    return [*pyramid, image]


def from_pyramid(pyramid: list[Tensor]) -> Tensor:
    image = pyramid[-1]
    for difference in reversed(pyramid[:-1]):
        image = difference + upsample(image, size_of(difference))
    return image


def minimize(
    image: Tensor,
    levels: int,
    make_optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    loss_of: Callable[[Tensor], Tensor],
    steps: int,
    watch: Callable[[Tensor], None],
) -> Tensor:
    """Minimize a loss over the coefficients of the image's pyramid. Return the image.

    watch: called with each image.
    """
    pyramid = [level.clone().requires_grad_(True) for level in to_pyramid(image, levels)]
    optimizer = make_optimizer(pyramid)
    for _ in range(steps):
        optimizer.zero_grad()
        current = from_pyramid(pyramid)
        watch(current)
        loss_of(current).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return from_pyramid(pyramid).detach()


def hypercolumns(features: Iterable[Tensor], size: tuple[int, int]) -> Tensor:
    """Return the features of all layers at each position of a grid: (positions, channels).

    size: (width, height) of the grid.
    """
    columns = torch.cat([upsample(layer, size) for layer in features], 1)
    return columns.flatten(2)[0].t()


def cosine_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return 1 - cosine for each row of `a` and each row of `b`: (rows of a, rows of b)."""
    return 1 - F.normalize(a, dim=1) @ F.normalize(b, dim=1).t()
