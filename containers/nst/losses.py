"""The losses of neural style transfer: content, style (Gram matrices) and total variation.

Gatys, Ecker & Bethge, "Image Style Transfer Using Convolutional Neural Networks" (CVPR 2016).
A large picture is computed in tiles, see tiles.py: mean squares and Gram matrices of its parts add
up to those of the whole.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .regions import guidance
from .tiles import Tile, split, stride
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
    tile_side: int | None = None,
) -> list[Tensor]:
    """Return for each layer the mean of the styles' Gram matrices.

    weights: of the styles; None: all alike.
    """
    blended: list[Tensor] = []
    for style, share in zip(styles, style_shares(weights, len(styles)), strict=True):
        grams = grams_of(style, network, layers, replicate, tile_side)
        grams = [matrix * share for matrix in grams]
        blended = add_grams(blended, grams)
    return blended


def style_shares(weights: list[float] | None, style_count: int) -> list[float]:
    """Return the weights of the styles with a sum of 1. None: all alike."""
    if weights is None:
        weights = [1.0] * style_count
    return [weight / sum(weights) for weight in weights]


def grams_of(
    style: Tensor, network: VGG19, layers: list[str], replicate: bool, tile_side: int | None
) -> list[Tensor]:
    """Return the Gram matrix of each layer. The features, which are large, are gone afterwards."""
    grams: list[Tensor] = []
    for tile in split(style, tile_side):
        features = tile.features(style, network, set(layers), replicate)
        grams = add_grams(grams, [gram(features[k]) * tile.share(stride(k)) for k in layers])
    return grams


def add_grams(total: list[Tensor], grams: list[Tensor]) -> list[Tensor]:
    """Return the sums of the matrices. total: empty means zeros."""
    if not total:
        return grams
    return [a + b for a, b in zip(total, grams, strict=True)]


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
        return self.factor * F.mse_loss(found.float(), self.value.float())


@dataclass(frozen=True)
class StyleTarget:
    """The Gram matrix that the features of a layer should have, in a region or everywhere.

    guidance: (1, 1, h, w) for features (1, C, h, w), see regions.py; None: everywhere.
    """

    layer: str
    gram: RelativeTarget
    guidance: Tensor | None = None

    def found(self, features: dict[str, Tensor], tile: Tile | None = None) -> Tensor:
        """Return the Gram matrix of the features, of the tile alone if one is given."""
        values = features[self.layer]
        if self.guidance is None:
            return gram(values)
        factors = self.guidance
        if tile is not None:
            factors = tile.part(factors, stride(self.layer))
        return gram(values * factors.to(values.dtype))


def content_target(
    content: Tensor, weight: float, network: VGG19, tile_side: int | None = None
) -> RelativeTarget:
    """Return the target of the features of CONTENT_LAYER. content: (1, 3, H, W), RGB in 0..1."""
    with torch.no_grad():
        value = torch.empty(0)
        for tile in split(content, tile_side):
            part = tile.features(content, network, {CONTENT_LAYER})[CONTENT_LAYER]
            value = tile.put(part, value, stride(CONTENT_LAYER))
        return RelativeTarget(value, weight / value.float().pow(2).mean().clamp_min(1e-8))


def style_targets(
    styles: list[Tensor],
    style_weights: list[float] | None,
    network: VGG19,
    tile_side: int | None = None,
) -> list[StyleTarget]:
    """Return the targets of the Gram matrices of STYLE_LAYERS.

    styles: each (1, 3, H, W), RGB in 0..1, at the size at which they are compared.
    """
    with torch.no_grad():
        layers = list(STYLE_LAYERS)
        grams = blended_grams(styles, style_weights, network, layers, tile_side=tile_side)
        return [
            StyleTarget(layer, relative_gram(layer, matrix))
            for layer, matrix in zip(layers, grams, strict=True)
        ]


def regional_style_targets(
    styles: list[Tensor],
    masks: list[Tensor],
    style_weights: list[float] | None,
    network: VGG19,
    size: tuple[int, int],
    tile_side: int | None = None,
) -> list[StyleTarget]:
    """Return the targets of the guided Gram matrices: STYLE_LAYERS of each style in its region.

    masks: one for each style, see regions.py. size: (width, height) of the image.
    style_weights: with equal weights, a pixel feels its style as much as without masks. So the
        error of a region counts by its area.
    """
    width, height = size
    targets = []
    shares = style_shares(style_weights, len(styles))
    for style, mask, share in zip(styles, masks, shares, strict=True):
        importance = share * len(styles) * mask.mean()
        with torch.no_grad():
            grams = blended_grams([style], None, network, list(STYLE_LAYERS), tile_side=tile_side)
        for layer, matrix in zip(STYLE_LAYERS, grams, strict=True):
            factors = guidance(mask, height // stride(layer), width // stride(layer))
            target = relative_gram(layer, matrix, importance)
            targets.append(StyleTarget(layer, target, factors))
    return targets


def relative_gram(layer: str, matrix: Tensor, importance: Tensor | float = 1.0) -> RelativeTarget:
    """Return the target of a layer's Gram matrix, by its weight in STYLE_LAYERS."""
    factor = STYLE_LAYERS[layer] / matrix.pow(2).mean().clamp_min(1e-12)
    return RelativeTarget(matrix, factor * importance)


def content_loss(features: dict[str, Tensor], target: RelativeTarget) -> Tensor:
    return target.error(features[CONTENT_LAYER])


def style_loss(features: dict[str, Tensor], targets: list[StyleTarget]) -> Tensor:
    errors = [target.gram.error(target.found(features)) for target in targets]
    return torch.stack(errors).sum()


def multiscale_objective(
    content: Tensor,
    styles: list[Tensor],
    style_weights: list[float] | None,
    network: VGG19,
    content_weight: float,
    total_variation_weight: float,
    masks: list[Tensor] | None = None,
    tile_side: int | None = None,
) -> Objective:
    """Return the objective of one scale: squared errors, each relative to the size of its target.

    So the balance of content and style is the same for any pair of pictures.
    content, styles: (1, 3, H, W), RGB in 0..1, at this scale.
    masks: one for each style, see regions.py; empty or None: the styles are blended everywhere.
    tile_side: in pixels; None: the picture in one piece.
    """
    photograph = content_target(content, content_weight, network, tile_side)
    if masks:
        size = content.shape[3], content.shape[2]
        style = regional_style_targets(styles, masks, style_weights, network, size, tile_side)
    else:
        style = style_targets(styles, style_weights, network, tile_side)
    tiles = split(content, tile_side)

    def feature_loss(image: Tensor) -> Tensor:
        if len(tiles) > 1:
            return tiled_loss(image, tiles, photograph, style, network)
        features = network(image, LOSS_LAYERS)
        return content_loss(features, photograph) + style_loss(features, style)

    def objective(image: Tensor) -> Tensor:
        loss = feature_loss(image)
        if total_variation_weight > 0:
            loss = loss + total_variation_weight * total_variation(image)
        return loss

    return objective


# --- in tiles ---


class TiledLoss(torch.autograd.Function):
    """A loss whose gradient is computed along with it, so that no features have to be kept."""

    @staticmethod
    def forward(
        context: Any,  # noqa: ANN401 - autograd's own
        image: Tensor,
        evaluate: Callable[[Tensor], tuple[Tensor, Tensor]],
    ) -> Tensor:
        loss, gradient = evaluate(image)
        context.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(context: Any, factor: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - autograd's
        (gradient,) = context.saved_tensors
        return gradient * factor, None


def tiled_loss(
    image: Tensor,
    tiles: list[Tile],
    photograph: RelativeTarget,
    style: list[StyleTarget],
    network: VGG19,
) -> Tensor:
    """Return the content and style loss, with the memory for the features of one tile.

    The features are computed twice: first for the Gram matrices of the whole image, which the
    gradient of each tile depends on, then for the gradient.
    """

    def evaluate(image: Tensor) -> tuple[Tensor, Tensor]:
        image = image.detach()
        grams = whole_grams(image, tiles, style, network)
        style_loss, slopes = loss_and_slopes(grams, style)
        content_loss = torch.zeros_like(style_loss)
        gradient = torch.zeros_like(image)
        for tile in tiles:
            error, part = tile_gradient(tile, image, photograph, style, slopes, network)
            content_loss += error
            tile.crop(gradient).add_(part)
        return content_loss + style_loss, gradient

    loss: Tensor = TiledLoss.apply(image, evaluate)  # type: ignore[no-untyped-call]
    return loss


@torch.no_grad()
def whole_grams(
    image: Tensor, tiles: list[Tile], style: list[StyleTarget], network: VGG19
) -> list[Tensor]:
    """Return the image's Gram matrix for each target."""
    grams: list[Tensor] = []
    for tile in tiles:
        features = tile.features(image, network, set(STYLE_LAYERS))
        found = [each.found(features, tile) * tile.share(stride(each.layer)) for each in style]
        grams = add_grams(grams, found)
    return grams


@torch.enable_grad()
def loss_and_slopes(grams: list[Tensor], style: list[StyleTarget]) -> tuple[Tensor, list[Tensor]]:
    """Return the style loss, and its derivative with respect to each Gram matrix."""
    variables = [matrix.requires_grad_() for matrix in grams]
    errors = [
        target.gram.error(variable) for target, variable in zip(style, variables, strict=True)
    ]
    loss = torch.stack(errors).sum()
    return loss.detach(), list(torch.autograd.grad(loss, variables))


@torch.enable_grad()
def tile_gradient(
    tile: Tile,
    image: Tensor,
    photograph: RelativeTarget,
    style: list[StyleTarget],
    slopes: list[Tensor],
    network: VGG19,
) -> tuple[Tensor, Tensor]:
    """Return the tile's part of the content loss, and what it adds to the gradient of both losses.

    The latter is for the pixels of `tile.crop`.
    """
    crop = tile.crop(image).clone().requires_grad_()
    features = tile.core(network(crop, LOSS_LAYERS))
    step = stride(CONTENT_LAYER)
    target = RelativeTarget(tile.part(photograph.value, step), photograph.factor)
    content_error = content_loss(features, target) * tile.share(step)
    loss = content_error
    for each, slope in zip(style, slopes, strict=True):
        found = each.found(features, tile) * tile.share(stride(each.layer))
        loss = loss + (slope * found).sum()
    # As in optimizers.py, so that float16 holds the gradients
    (gradient,) = torch.autograd.grad(loss * image.numel(), crop)
    return content_error.detach(), gradient / image.numel()


# --- stylebot's first version ---


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
