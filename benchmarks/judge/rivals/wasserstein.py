"""Style as the Wasserstein-2 distance between Gaussians fitted to the features of each layer.

The distance is Dowson & Landau, "The Frechet distance between multivariate normal distributions"
(1982). The layers, weights and steps are those that the program style-transfer-pytorch documents.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.eager import Watch
from benchmarks.judge.rivals.pyramid import size_of
from containers.nst.images import matrix_root, resize, resize_style
from containers.nst.losses import total_variation
from containers.nst.vgg import VGG19

STYLE_WEIGHTS = {"relu1_1": 256, "relu2_1": 64, "relu3_1": 16, "relu4_1": 4, "relu5_1": 1}
CONTENT_LAYER = "relu4_2"
CONTENT_WEIGHT = 0.015
TOTAL_VARIATION_WEIGHT = 2.0
LEARNING_RATE = 0.02
# Of the running mean of the iterates, which is the picture.
AVERAGE_DECAY = 0.99
COARSEST_SIDE = 128


@dataclass(frozen=True)
class Gaussian:
    """mean: (C). covariance, root: (C, C); root is the square root of the covariance."""

    mean: Tensor
    covariance: Tensor
    root: Tensor


def wasserstein(content: Tensor, style: Tensor, network: VGG19, watch: Watch, steps: int) -> Tensor:
    """Return the content in the style.

    steps: of each scale, and twice as many of the first; the program makes 500.
    """
    count = 0
    image = None
    for size in sizes(size_of(content)):
        scaled_content = resize(content, size)
        scaled_style = resize_style(style, max(size))
        evaluations = steps
        if image is None:
            image = scaled_content
            evaluations = 2 * steps
        image = resize(image, size).clone().requires_grad_(True)
        loss_of = Loss(scaled_content, scaled_style, network)
        optimizer = torch.optim.Adam([image], LEARNING_RATE)
        average = torch.zeros_like(image)
        for step in range(1, evaluations + 1):
            optimizer.zero_grad()
            loss_of(image).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                image.clamp_(0, 1)
                average.lerp_(image, 1 - AVERAGE_DECAY)
            count += 1
            watch(count, average / (1 - AVERAGE_DECAY**step))
        image = average / (1 - AVERAGE_DECAY**evaluations)
    assert image is not None
    return image.detach().clamp(0, 1)


def sizes(full: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the (width, height) of each scale, the smallest first, each sqrt(2) times the last."""
    width, height = full
    found = [full]
    share = 0.5**0.5
    while max(full) * share >= COARSEST_SIDE:
        found.insert(0, (round(width * share), round(height * share)))
        share *= 0.5**0.5
    return found


class Loss:
    """The loss of one scale."""

    def __init__(self, content: Tensor, style: Tensor, network: VGG19) -> None:
        self.network = network
        with torch.no_grad():
            self.content = network(content, {CONTENT_LAYER})[CONTENT_LAYER].float()
            features = network(style, set(STYLE_WEIGHTS))
            self.targets = {layer: gaussian(features[layer]) for layer in STYLE_WEIGHTS}

    def __call__(self, image: Tensor) -> Tensor:
        features = self.network(image, {CONTENT_LAYER, *STYLE_WEIGHTS})
        loss = CONTENT_WEIGHT * scaled_error(features[CONTENT_LAYER].float(), self.content)
        for layer, weight in STYLE_WEIGHTS.items():
            share = weight / sum(STYLE_WEIGHTS.values())
            loss = loss + share * squared_distance(features[layer], self.targets[layer])
        return loss + TOTAL_VARIATION_WEIGHT * total_variation(image)


def scaled_error(found: Tensor, target: Tensor) -> Tensor:
    """Return the sum of squares over the sum of absolute values of the differences.

    Its gradient has about the same size for any pair of pictures.
    """
    difference = found - target
    return difference.square().sum() / difference.abs().sum().clamp_min(1e-8)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (C) and the covariance (C, C) of features (1, C, H, W)."""
    flat = features.flatten(2)[0].float()
    mean = flat.mean(1)
    centered = flat - mean[:, None]
    covariance = centered @ centered.t() / flat.shape[1]
    return mean, covariance + 1e-4 * torch.eye(len(mean), device=mean.device)


def gaussian(features: Tensor) -> Gaussian:
    mean, covariance = moments(features)
    return Gaussian(mean, covariance, matrix_root(covariance))


def squared_distance(features: Tensor, target: Gaussian) -> Tensor:
    """Return the squared Wasserstein-2 distance, a mean over the channels."""
    mean, covariance = moments(features)
    with torch.no_grad():
        # The optimal map between the Gaussians. The trace of the root that the distance subtracts
        # is the trace of map times covariance, and its gradient is half of the map.
        product = target.root @ covariance @ target.root
        eigenvalues, eigenvectors = torch.linalg.eigh(product)
        inverse_roots = eigenvalues.clamp_min(1e-8).rsqrt()
        middle = eigenvectors @ torch.diag(inverse_roots) @ eigenvectors.t()
        optimal_map = target.root @ middle @ target.root
    overlap = (optimal_map * covariance).sum()
    trace_of_root = (overlap + overlap.detach()) / 2
    spread = covariance.trace() + target.covariance.trace() - 2 * trace_of_root
    squared: Tensor = ((mean - target.mean).pow(2).sum() + spread) / len(mean)
    return squared
