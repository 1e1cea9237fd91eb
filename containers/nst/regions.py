"""Regions: masks that say where on the photograph each style is used.

Gatys, Ecker, Bethge, Hertzmann & Shechtman, "Controlling Perceptual Factors in Neural Style
Transfer" (CVPR 2017), section 4.1: Gram matrices that are guided by a mask.

A mask is (1, 1, H, W) in 0..1: 1 where its style is used, 0 where it is not, and a soft edge
between. Where no mask covers the photograph, it stays as it is.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .images import fit, resize

# The least mean of a mask. The statistics of fewer pixels are no style.
MIN_COVERAGE = 0.001
# By how many pixels a mask's shorter side may differ from the photograph's, at the mask's size.
ROUNDING = 1


def check_masks(masks: Sequence[Tensor], photograph_size: tuple[int, int]) -> None:
    """Raise ValueError, with a sentence for the user, for masks that do not fit the photograph.

    masks: each (1, 1, H, W). photograph_size: (width, height).
    """
    for number, mask in enumerate(masks, 1):
        height, width = mask.shape[-2:]
        longest = max(width, height)
        expected = fit(*photograph_size, longest, longest, enlarge=True)
        differences = (abs(width - expected[0]), abs(height - expected[1]))
        if max(differences) > ROUNDING:
            raise ValueError(
                f"Mask {number} is {width}x{height}, and the photograph "
                f"{photograph_size[0]}x{photograph_size[1]}. "
                "A mask needs the photograph's shape, at any size."
            )
        if mask.mean() < MIN_COVERAGE:
            raise ValueError(
                f"Mask {number} is black nearly everywhere. "
                "Make it white where its style is to be used."
            )


def prepare_masks(masks: Sequence[Tensor], content: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """Return the masks at the size (width, height), then padded as `content` is, on its device."""
    height, width = content.shape[-2:]
    prepared = []
    for mask in masks:
        resized = resize(mask.to(content.device), size)
        right = width - size[0]
        bottom = height - size[1]
        prepared.append(F.pad(resized, (0, right, 0, bottom), mode="replicate"))
    return prepared


def guidance(mask: Tensor, height: int, width: int) -> Tensor:
    """Return the factor (1, 1, height, width) of features that makes their Gram matrix guided.

    It is the root of the mask with a mean square of 1. So the Gram matrix of the product is the
    mean over the region, and not over the whole picture.
    """
    weights = F.interpolate(mask, (height, width), mode="area")
    return (weights / weights.mean()).sqrt()


def coverage(masks: Sequence[Tensor]) -> Tensor:
    """Return how much of each pixel is in any region, (1, 1, H, W) in 0..1."""
    return torch.stack(list(masks)).sum(0).clamp(max=1)
