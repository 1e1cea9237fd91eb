"""How far a picture is from its style and from its photograph, by a measure that none of the rivals optimises exactly.

Gatys' two losses on the original VGG-19, zero padding, max pooling, at the picture's own size: the sum over relu1_1 to
relu5_1 of the mean squared difference of Gram matrices (over H W) divided by their n^2, and the mean squared
difference of relu4_2, both for pixels of 0..255. Lower is closer.
"""

from pathlib import Path

import torch
from PIL import Image, ImageOps

from containers.common.tensors import to_tensor
from containers.nst.nst import gram
from containers.nst.vgg import ORIGINAL_UNIT, VGG19

STYLE_LAYERS = [f"relu{block}_1" for block in range(1, 6)]
CONTENT_LAYER = "relu4_2"


@torch.no_grad()
def judge(content: Path, style: Path, pictures: list[Path]) -> list[dict[str, float]]:
    """{"style", "content"}: the losses of each picture."""
    network = VGG19()

    def features(image: Image.Image) -> dict[str, torch.Tensor]:
        found = network(to_tensor(image)[None], {CONTENT_LAYER, *STYLE_LAYERS}, replicate=False)
        return {layer: value * ORIGINAL_UNIT for layer, value in found.items()}

    def mean_square(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a - b).square().mean())

    photograph, painting = (
        ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in (content, style)
    )
    targets, losses = {}, []
    for path in pictures:
        image = Image.open(path).convert("RGB")
        if image.size not in targets:
            at_size = painting.copy()
            at_size.thumbnail((max(image.size),) * 2, Image.Resampling.LANCZOS)
            wanted = features(at_size)
            targets[image.size] = (
                features(photograph.resize(image.size, Image.Resampling.LANCZOS))[CONTENT_LAYER],
                {layer: gram(wanted[layer]) for layer in STYLE_LAYERS},
            )
        target, grams = targets[image.size]
        made = features(image)
        style_loss = sum(
            mean_square(gram(made[k]), grams[k]) / len(grams[k]) ** 2 for k in STYLE_LAYERS
        )
        losses.append({"style": style_loss, "content": mean_square(made[CONTENT_LAYER], target)})
    return losses
