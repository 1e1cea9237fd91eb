"""Neural neighbor style transfer, the variant that optimizes the picture (NNST-Opt).

Kolkin, Kucera, Paris, Sykora, Shechtman & Shakhnarovich, "Neural Neighbor Style Transfer" (2022),
arXiv 2203.13215, section 3.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.eager import Watch
from benchmarks.judge.rivals.pyramid import (
    cosine_distances,
    hypercolumns,
    minimize,
    scaled_size,
    size_of,
)
from containers.nst.images import resize, resize_style
from containers.nst.vgg import VGG19

# VGG-16's, up to relu4_3.
CHANNELS = {
    "relu1_1": 64,
    "relu1_2": 64,
    "relu2_1": 128,
    "relu2_2": 128,
    "relu3_1": 256,
    "relu3_2": 256,
    "relu3_3": 256,
    "relu4_1": 512,
    "relu4_2": 512,
    "relu4_3": 512,
}
LAYERS = list(CHANNELS)
# Hypercolumns are compared at a quarter of the width and height.
GRID = 4
SCALES = 4
PYRAMID_LEVELS = 8
LEARNING_RATE = 2e-3
# The content's share of the features that look for their neighbor.
CONTENT_SHARE = 0.75


def nnst(content: Tensor, style: Tensor, network: VGG19, watch: Watch, steps: int) -> Tensor:
    """Return the content in the style. steps: of each scale; the paper makes 200."""
    count = 0

    def count_and_watch(image: Tensor) -> None:
        nonlocal count
        count += 1
        watch(count, image)

    image = content
    for share in [2.0**-level for level in reversed(range(SCALES))]:
        size = scaled_size(content, share)
        scaled_content = resize(content, size)
        scaled_style = resize_style(style, max(size))
        image = resize(image, size)
        loss = matched_loss(scaled_content, image, scaled_style, network)
        image = minimize(image, PYRAMID_LEVELS, adam, loss, steps, count_and_watch)

    loss = layerwise_loss(resize_style(style, max(size)), network)
    image = minimize(image, PYRAMID_LEVELS, adam, loss, steps, count_and_watch)
    return image.clamp(0, 1)


def adam(parameters: list[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, LEARNING_RATE)


def describe(image: Tensor, network: VGG19) -> Tensor:
    """Return hypercolumns (positions, channels)."""
    width, height = size_of(image)
    features = network(image, set(LAYERS))
    grid = max(1, width // GRID), max(1, height // GRID)
    return hypercolumns([features[layer] for layer in LAYERS], grid)


def centered(columns: Tensor) -> Tensor:
    return columns - columns.mean(0)


def nearest(query: Tensor, bank: Tensor) -> Tensor:
    """Return for each row of `query` the row of `bank` at the smallest cosine distance."""
    return bank[cosine_distances(query, bank).argmin(1)]


@torch.no_grad()
def matched_loss(
    content: Tensor, image: Tensor, style: Tensor, network: VGG19
) -> Callable[[Tensor], Tensor]:
    """Return the distance to the style's features that are nearest at the start of a scale.

    The style is turned by 90, 180 and 270 degrees as well.
    """
    turned = [torch.rot90(style, turns, (2, 3)) for turns in range(4)]
    bank = torch.cat([describe(picture, network) for picture in turned])
    query = CONTENT_SHARE * describe(content, network)
    query = query + (1 - CONTENT_SHARE) * describe(image, network)
    target = nearest(centered(query), centered(bank))

    def loss(image: Tensor) -> Tensor:
        found = centered(describe(image, network))
        return (1 - F.cosine_similarity(found, target, dim=1).float()).mean()

    return loss


@torch.no_grad()
def layerwise_loss(style: Tensor, network: VGG19) -> Callable[[Tensor], Tensor]:
    """Return the distance to the nearest features of each layer alone, found anew each time."""
    banks = split_by_layer(describe(style, network))

    def loss(image: Tensor) -> Tensor:
        errors = []
        layers = split_by_layer(describe(image, network))
        for found, bank in zip(layers, banks, strict=True):
            with torch.no_grad():
                target = nearest(found, bank)
            errors.append((1 - F.cosine_similarity(found, target, dim=1).float()).mean())
        return torch.stack(errors).sum()

    return loss


def split_by_layer(columns: Tensor) -> list[Tensor]:
    """Return the part of each layer, centered."""
    parts = torch.split(columns, list(CHANNELS.values()), dim=1)
    return [centered(part) for part in parts]
