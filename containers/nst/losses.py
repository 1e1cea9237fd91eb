"""The losses of neural style transfer: content, style (Gram matrices) and total variation.

Gatys, Ecker & Bethge, "Image Style Transfer Using Convolutional Neural Networks" (CVPR 2016).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .vgg import VGG19

# Image (1, 3, H, W) -> loss
Objective = Callable[[Tensor], Tensor]

CONTENT_LAYER = "relu4_2"
# The weight of each layer's error, relative to its target. With Gatys' 1e3 / C^2, relu4_1 decides
# almost alone. More weight for the other layers brings the palette, the grain of the strokes and
# the large swirls.
STYLE_LAYERS = {
    "relu1_1": 0.0075,
    "relu2_1": 0.155,
    "relu3_1": 0.058,
    "relu4_1": 0.77,
    "relu5_1": 0.0075,
}

LOSS_LAYERS = {CONTENT_LAYER, *STYLE_LAYERS}

# Features before their ReLU, as in stylebot's first version
GATYS_2015_CONTENT_LAYER = "conv5_1"
GATYS_2015_STYLE_LAYERS = ["conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"]


def gram(features: Tensor) -> Tensor:
    """Return the Gram matrix (C, C) of features (1, C, H, W), as a mean over the pixels.

    It is float32, as its entries leave the range of float16.
    """
    matrix: Tensor = Gram.apply(features)  # type: ignore[no-untyped-call]
    return matrix


class Gram(torch.autograd.Function):
    """The Gram matrix with a gradient that takes one product in the features' own precision.

    Autograd would compute two products in float32 and add them.
    """

    @staticmethod
    def forward(context: Any, features: Tensor) -> Tensor:  # noqa: ANN401 - autograd's own
        context.save_for_backward(features)
        flat = flatten_pixels(features).float()
        return flat.t() @ flat / len(flat)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401 - autograd's own
        (features,) = context.saved_tensors
        flat = flatten_pixels(features)
        # float16 cannot hold such small factors
        if flat.dtype == torch.float16:
            flat = flat.float()
        factor = (gradient + gradient.t()) / len(flat)
        product = flat @ factor.to(flat.dtype)
        _, _, height, width = features.shape
        return product.to(features.dtype).view(1, height, width, -1).permute(0, 3, 1, 2)


def flatten_pixels(features: Tensor) -> Tensor:
    """(1, C, H, W) -> (H W, C), without a copy if the memory format is channels_last."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def blended_grams(
    styles: list[Tensor],
    weights: list[float] | None,
    network: VGG19,
    layers: list[str],
    replicate: bool = True,
) -> list[Tensor]:
    """Return for each layer the mean of the styles' Gram matrices.

    weights: of the styles; None: all alike.
    """
    if weights is None:
        weights = [1.0] * len(styles)
    blended: list[Tensor] = []
    for style, weight in zip(styles, weights, strict=True):
        share = weight / sum(weights)
        grams = [matrix * share for matrix in grams_of(style, network, layers, replicate)]
        if blended:
            grams = [a + b for a, b in zip(blended, grams, strict=True)]
        blended = grams
    return blended


def grams_of(style: Tensor, network: VGG19, layers: list[str], replicate: bool) -> list[Tensor]:
    """Return the Gram matrix of each layer. The features, which are large, are gone afterwards."""
    features = network(style, set(layers), replicate)
    return [gram(features[layer]) for layer in layers]


def total_variation(image: Tensor) -> Tensor:
    """Return the mean squared difference of neighboring pixels, vertical plus horizontal."""
    vertical = image[..., 1:, :] - image[..., :-1, :]
    horizontal = image[..., 1:] - image[..., :-1]
    return vertical.pow(2).mean() + horizontal.pow(2).mean()


@dataclass(frozen=True)
class RelativeTarget:
    """What features are compared with, and the factor of their mean squared error.

    The factor is the weight of the error divided by the mean square of the target. So a loss is the
    same for any pair of pictures that differ as much.
    """

    value: Tensor
    factor: Tensor

    def error(self, found: Tensor) -> Tensor:
        return self.factor * F.mse_loss(found, self.value)


def content_target(content: Tensor, weight: float, network: VGG19) -> RelativeTarget:
    """Return the target of the features of CONTENT_LAYER. content: (1, 3, H, W), RGB in 0..1."""
    with torch.no_grad():
        value = network(content, {CONTENT_LAYER})[CONTENT_LAYER].float()
        return RelativeTarget(value, weight / value.pow(2).mean().clamp_min(1e-8))


def style_targets(
    styles: list[Tensor], style_weights: list[float] | None, network: VGG19
) -> list[RelativeTarget]:
    """Return the targets of the Gram matrices of STYLE_LAYERS, in that order.

    styles: each (1, 3, H, W), RGB in 0..1, at the size at which they are compared.
    """
    with torch.no_grad():
        grams = blended_grams(styles, style_weights, network, list(STYLE_LAYERS))
        targets = []
        for value, weight in zip(grams, STYLE_LAYERS.values(), strict=True):
            factor = weight / value.pow(2).mean().clamp_min(1e-12)
            targets.append(RelativeTarget(value, factor))
        return targets


def content_loss(features: dict[str, Tensor], target: RelativeTarget) -> Tensor:
    return target.error(features[CONTENT_LAYER].float())


def style_loss(features: dict[str, Tensor], targets: list[RelativeTarget]) -> Tensor:
    errors = [
        target.error(gram(features[layer]))
        for layer, target in zip(STYLE_LAYERS, targets, strict=True)
    ]
    return torch.stack(errors).sum()


def multiscale_objective(
    content: Tensor,
    styles: list[Tensor],
    style_weights: list[float] | None,
    network: VGG19,
    content_weight: float,
    total_variation_weight: float,
) -> Objective:
    """Return the objective of one scale: squared errors, each relative to the size of its target.

    So the balance of content and style is the same for any pair of pictures.
    content, styles: (1, 3, H, W), RGB in 0..1, at this scale.
    """
    photograph = content_target(content, content_weight, network)
    style = style_targets(styles, style_weights, network)

    def objective(image: Tensor) -> Tensor:
        features = network(image, LOSS_LAYERS)
        loss = content_loss(features, photograph) + style_loss(features, style)
        if total_variation_weight > 0:
            loss = loss + total_variation_weight * total_variation(image)
        return loss

    return objective


def gatys2015_objective(
    content: Tensor,
    styles: list[Tensor],
    style_weights: list[float] | None,
    network: VGG19,
    content_weight: float,
    style_weight: float,
) -> Objective:
    """Return the objective of stylebot's first version.

    Features before their ReLU, zero padding, Gram matrices divided by C H W, raw weights.
    """
    content_layer = GATYS_2015_CONTENT_LAYER
    layers = GATYS_2015_STYLE_LAYERS
    with torch.no_grad():
        features = network(content, {content_layer}, replicate=False)
        content_target = features[content_layer].float()
        style_targets = blended_grams(styles, style_weights, network, layers, replicate=False)

    def objective(image: Tensor) -> Tensor:
        features = network(image, set(layers), replicate=False)
        loss = content_weight * F.mse_loss(features[content_layer].float(), content_target)
        for layer, target in zip(layers, style_targets, strict=True):
            channels = len(target)
            error = F.mse_loss(gram(features[layer]) / channels, target / channels)
            loss = loss + style_weight * error
        return loss

    return objective
