"""The check of the judge: pictures that are known to be better or worse must be ranked so."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.judge.measures import Judge, Verdict
from containers.nst.images import match_colors, resize

BLUR_SIDE = 5
NOISE = 0.08
# Rows and columns of the pieces that are shuffled.
PIECES = 12


@dataclass(frozen=True)
class Order:
    """By `what`, the picture `better` must be ahead of `worse`."""

    what: str
    better: str
    worse: str

    def __str__(self) -> str:
        return f"{self.what}: {self.better} above {self.worse}"


ORDERS = [
    Order("effectiveness", "the style picture", "stylized"),
    Order("effectiveness", "the style picture", "shuffled style"),
    Order("effectiveness", "stylized", "few steps"),
    Order("effectiveness", "few steps", "the photograph"),
    Order("effectiveness", "stylized", "blurred"),
    Order("effectiveness", "stylized", "noisy"),
    Order("effectiveness", "stylized", "recolored photograph"),
    Order("effectiveness", "recolored photograph", "the photograph"),
    Order("coherence", "the photograph", "stylized"),
    Order("coherence", "recolored photograph", "stylized"),
    Order("coherence", "stylized", "the style picture"),
    Order("coherence", "stylized", "shuffled"),
    Order("grain", "noisy", "stylized"),
    Order("grain", "stylized", "blurred"),
]


def known_pictures(
    photograph: Tensor, style: Tensor, stylized: Tensor, few_steps: Tensor
) -> dict[str, Tensor]:
    """Return the pictures that ORDERS names, each (3, H, W), RGB in 0..1.

    stylized: a finished picture. few_steps: the same after a few steps.
    """
    size = stylized.shape[2], stylized.shape[1]
    small_style = resize(style[None], size)[0]
    random = torch.Generator().manual_seed(0)
    noise = NOISE * torch.randn(stylized.shape, generator=random)
    return {
        "the photograph": photograph,
        "the style picture": small_style,
        "stylized": stylized,
        "few steps": few_steps,
        "blurred": blur(stylized),
        "noisy": (stylized + noise).clamp(0, 1),
        "shuffled": shuffle(stylized),
        "shuffled style": shuffle(small_style),
        "recolored photograph": match_colors(photograph[None], style[None])[0],
    }


def blur(image: Tensor) -> Tensor:
    """Return the means of squares of BLUR_SIDE pixels."""
    half = BLUR_SIDE // 2
    padded = F.pad(image[None], (half, half, half, half), mode="replicate")
    return F.avg_pool2d(padded, BLUR_SIDE, stride=1)[0]


def shuffle(image: Tensor) -> Tensor:
    """Return the image cut into PIECES x PIECES pieces, in random order."""
    channels, height, width = image.shape
    side_y = max(1, height // PIECES)
    side_x = max(1, width // PIECES)
    cut = image[:, : side_y * PIECES, : side_x * PIECES]
    pieces = cut.view(channels, PIECES, side_y, PIECES, side_x).permute(1, 3, 0, 2, 4).flatten(0, 1)
    order = torch.randperm(PIECES**2, generator=torch.Generator().manual_seed(0))
    grid = pieces[order].view(PIECES, PIECES, channels, side_y, side_x)
    return grid.permute(2, 0, 3, 1, 4).reshape(cut.shape)


def check(judge: Judge, pictures: dict[str, Tensor]) -> dict[str, bool]:
    """Return for each order whether the judge keeps to it."""
    verdicts = {name: figures(judge(picture)) for name, picture in pictures.items()}
    kept = {}
    for order in ORDERS:
        better = verdicts[order.better][order.what]
        worse = verdicts[order.worse][order.what]
        kept[str(order)] = better > worse
    return kept


def figures(verdict: Verdict) -> dict[str, float]:
    """Return what the orders compare, by name."""
    return {
        "effectiveness": verdict.effectiveness,
        "coherence": verdict.coherence,
        "grain": verdict.grain,
    }
