"""Style transfer by relaxed optimal transport and self-similarity (STROTSS).

Kolkin, Salavon & Shakhnarovich, "Style Transfer by Relaxed Optimal Transport and Self-Similarity"
(CVPR 2019), arXiv 1904.12785, sections 2 and 3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.eager import Watch
from benchmarks.judge.rivals.pyramid import (
    cosine_distances,
    minimize,
    scaled_size,
    to_pyramid,
)
from containers.nst.images import resize, resize_style
from containers.nst.vgg import VGG19

LAYERS = [
    "relu1_1",
    "relu1_2",
    "relu2_1",
    "relu2_2",
    "relu3_1",
    "relu3_3",
    "relu4_1",
    "relu4_3",
    "relu5_1",
]
SAMPLES = 1024
SCALES = 4
PYRAMID_LEVELS = 5
LEARNING_RATE = 2e-3
LAST_LEARNING_RATE = 1e-3
# At the first scale; halved for each next one.
FIRST_CONTENT_WEIGHT = 16.0
# RGB to a luminance and two color differences, so that the three are hardly correlated.
DECORRELATE = torch.tensor([[0.577, 0.577, 0.577], [-0.577, 0.789, -0.211], [0.577, 0.211, -0.789]])


def strotss(content: Tensor, style: Tensor, network: VGG19, watch: Watch, steps: int) -> Tensor:
    """Return the content in the style. steps: of each scale; the paper makes 250."""
    random = torch.Generator().manual_seed(0)
    count = 0

    def count_and_watch(image: Tensor) -> None:
        nonlocal count
        count += 1
        watch(count, image)

    image = None
    content_weight = FIRST_CONTENT_WEIGHT
    for scale in range(SCALES):
        share = 2.0 ** (scale + 1 - SCALES)
        size = scaled_size(content, share)
        scaled_content = resize(content, size)
        scaled_style = resize_style(style, max(size))
        detail = to_pyramid(scaled_content, 1)[0]
        if image is None:
            image = detail + scaled_style.mean((2, 3), keepdim=True)
        else:
            image = detail + resize(image.clamp(0, 1), size)

        rate = LAST_LEARNING_RATE if scale == SCALES - 1 else LEARNING_RATE
        loss = Loss(scaled_content, scaled_style, content_weight, network, random)

        def rmsprop(parameters: list[Tensor], rate: float = rate) -> torch.optim.Optimizer:
            return torch.optim.RMSprop(parameters, rate)

        image = minimize(image, PYRAMID_LEVELS, rmsprop, loss, steps, count_and_watch)
        content_weight /= 2
    assert image is not None
    return image.clamp(0, 1)


class Loss:
    """The loss of one scale. It samples other positions at each call."""

    def __init__(
        self,
        content: Tensor,
        style: Tensor,
        content_weight: float,
        network: VGG19,
        random: torch.Generator,
    ) -> None:
        self.content_weight = content_weight
        self.network = network
        self.random = random
        with torch.no_grad():
            self.content = self.features(content)
            self.style = self.features(style)

    def features(self, image: Tensor) -> list[Tensor]:
        """Return the pixels, then the features of each layer."""
        features = self.network(image, set(LAYERS))
        return [image, *(features[layer].float() for layer in LAYERS)]

    def positions(self) -> Tensor:
        """Return random positions as grid_sample takes them: (1, SAMPLES, 1, 2), in -1..1."""
        uniform = torch.rand(1, SAMPLES, 1, 2, generator=self.random)
        return (2 * uniform - 1).to(self.content[0].device)

    def __call__(self, image: Tensor) -> Tensor:
        where = self.positions()
        found = sample(self.features(image), where)
        content = sample(self.content, where)
        style = sample(self.style, self.positions())

        weight = self.content_weight
        loss = weight * self_similarity_loss(found, content)
        loss = loss + moment_loss(found, style, self.network.precision)
        loss = loss + relaxed_transport(cosine_distances(found, style))
        loss = loss + relaxed_transport(color_distances(found, style)) / weight
        return loss / (2 + weight + 1 / weight)


def sample(features: list[Tensor], where: Tensor) -> Tensor:
    """Return the hypercolumns at these positions: (SAMPLES, channels), pixels first."""
    columns = [
        F.grid_sample(layer, where, padding_mode="border", align_corners=False)[0, :, :, 0]
        for layer in features
    ]
    return torch.cat(columns).t()


def relaxed_transport(distances: Tensor) -> Tensor:
    """Return the relaxed earth mover's distance (section 2.2, equation 6)."""
    return torch.maximum(distances.amin(1).mean(), distances.amin(0).mean())


def color_distances(found: Tensor, style: Tensor) -> Tensor:
    """Return the distances of the pixels of two sets of hypercolumns."""
    rotation = DECORRELATE.to(found.device)
    return torch.cdist(found[:, :3] @ rotation.t(), style[:, :3] @ rotation.t())


def moment_loss(found: Tensor, style: Tensor, precision: torch.dtype) -> Tensor:
    """Return the mean absolute differences of mean and covariance (equation 7).

    precision: of the products, which are most of the work at small sizes.
    """
    mean_error = (found.mean(0) - style.mean(0)).abs().mean()
    covariance_error = covariance(found, precision) - covariance(style, precision)
    return mean_error + covariance_error.abs().mean()


def covariance(columns: Tensor, precision: torch.dtype) -> Tensor:
    centered = (columns - columns.mean(0)).to(precision)
    return (centered.t() @ centered).float() / len(columns)


def self_similarity_loss(found: Tensor, content: Tensor) -> Tensor:
    """Return the mean absolute difference of the normalized distances (equation 9)."""
    distances = []
    for columns in (found, content):
        matrix = cosine_distances(columns, columns)
        distances.append(matrix / matrix.sum(0).clamp_min(1e-8))
    return len(found) * (distances[0] - distances[1]).abs().mean()
