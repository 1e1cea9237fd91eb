"""How far a picture is from its style and its photograph, by a measure that no rival optimizes.

Gatys' two losses on the original VGG-19, with zero padding and max pooling, at the picture's own
size, for pixels in 0..255. Style: the sum over relu1_1 to relu5_1 of the mean squared difference of
the Gram matrices (over H W), divided by their n^2. Content: the mean squared difference of relu4_2.
Lower is closer.
"""

from pathlib import Path

import torch
from PIL import Image, ImageOps

from containers.common.device import best_device
from containers.common.tensors import to_tensor
from containers.nst.losses import gram
from containers.nst.vgg import ORIGINAL_UNIT, VGG19

STYLE_LAYERS = [f"relu{block}_1" for block in range(1, 6)]
CONTENT_LAYER = "relu4_2"


@torch.no_grad()
def judge(content: Path, style: Path, pictures: list[Path]) -> list[dict[str, float]]:
    """Return {"style", "content"}, the losses, for each picture."""
    network = VGG19().to(best_device())

    def features(image: Image.Image) -> dict[str, torch.Tensor]:
        pixels = to_tensor(image, network.device)[None]
        found = network(pixels, {CONTENT_LAYER, *STYLE_LAYERS}, replicate=False)
        return {layer: value * ORIGINAL_UNIT for layer, value in found.items()}

    def mean_square(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a - b).square().mean())

    def load(path: Path) -> Image.Image:
        return ImageOps.exif_transpose(Image.open(path)).convert("RGB")

    photograph = load(content)
    painting = load(style)
    targets = {}
    losses = []
    for path in pictures:
        image = Image.open(path).convert("RGB")
        if image.size not in targets:
            longest = max(image.size)
            style_image = painting.copy()
            style_image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
            style_features = features(style_image)
            resized = photograph.resize(image.size, Image.Resampling.LANCZOS)
            content_target = features(resized)[CONTENT_LAYER]
            style_targets = {layer: gram(style_features[layer]) for layer in STYLE_LAYERS}
            targets[image.size] = (content_target, style_targets)
        target, grams = targets[image.size]
        made = features(image)
        style_loss = sum(
            mean_square(gram(made[k]), grams[k]) / len(grams[k]) ** 2 for k in STYLE_LAYERS
        )
        losses.append({"style": style_loss, "content": mean_square(made[CONTENT_LAYER], target)})
    return losses
