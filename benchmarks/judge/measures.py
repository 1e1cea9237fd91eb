"""How well a picture has a style and keeps its photograph, by statistics that nobody optimizes.

No algorithm of this project minimizes a distance between distributions, and none uses the layers
below. NNST and STROTSS use all layers of a VGG, so for them the statistics of pixels count more.

Yeh, Tang, Bhattad, Zou & Forsyth, "Improving Style Transfer with Calibrated Metrics" (2019),
arXiv 1910.09447, separate the two: effectiveness (has the style) and coherence (keeps the
photograph).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from containers.nst.images import resize, resize_style
from containers.nst.vgg import VGG19

# Outside of the losses of containers/nst.
LAYERS = ("relu3_2", "relu3_4", "relu4_4")
CONTENT_LAYERS = ("relu3_4", "relu4_4")
# Of the size at which pictures are compared.
SCALES = (1.0, 0.5)
PROJECTIONS = 128
QUANTILES = 256
PATCH_SIDE = 8
PATCH_STRIDE = 3
# Positions along the longer side at which content features are compared.
SIMILARITY_GRID = 32


@dataclass(frozen=True)
class Description:
    """The statistics of a picture.

    quantiles: {what: (PROJECTIONS, QUANTILES)}, of the distribution along each random direction.
    patches: for each scale, (patches, PATCH_SIDE^2 * 3), CIELAB.
    similarity: (positions, positions), cosine distances of features, each column with sum 1.
    grain: mean absolute Laplacian of the lightness, 0..100 for each pixel.
    """

    quantiles: dict[str, Tensor]
    patches: dict[str, Tensor]
    similarity: Tensor
    grain: float


@dataclass(frozen=True)
class Verdict:
    """What the judge says about a picture.

    effectiveness: 0 is as far from the style as the photograph, 1 is the style's own statistics;
        less than 0 is farther than the photograph.
    coherence: 1 is the photograph, 0 is as far from it as the style picture is.
    grain: relative to the style's; 1 is as much fine contrast as the style has.
    parts: the effectiveness by each statistic.
    """

    effectiveness: float
    coherence: float
    grain: float
    parts: dict[str, float]


class Judge:
    """Compares pictures with one photograph and one style.

    photograph, style: (3, H, W), RGB in 0..1, of any size. size: (width, height) of the pictures.
    """

    def __init__(
        self, photograph: Tensor, style: Tensor, size: tuple[int, int], network: VGG19
    ) -> None:
        self.network = network
        self.size = size
        self.photograph = describe(resize(photograph[None], size), network)
        self.style = describe(resize_style(style[None], max(size)), network)
        # As a picture that has the style and nothing of the photograph
        stretched = describe(resize(style[None], size), network)
        self.distances = style_distances(self.photograph, self.style)
        self.content_distance = similarity_distance(stretched, self.photograph)

    def __call__(self, picture: Tensor) -> Verdict:
        """Judge a picture (3, H, W), RGB in 0..1. It is brought to the judge's size."""
        found = describe(resize(picture[None], self.size), self.network)
        distances = style_distances(found, self.style)
        parts = {name: 1 - distance / self.distances[name] for name, distance in distances.items()}
        lost = similarity_distance(found, self.photograph) / self.content_distance
        return Verdict(
            effectiveness=sum(parts.values()) / len(parts),
            coherence=1 - lost,
            grain=found.grain / self.style.grain,
            parts=parts,
        )


@torch.no_grad()
def describe(image: Tensor, network: VGG19) -> Description:
    """Return the statistics of an image (1, 3, H, W), RGB in 0..1."""
    height, width = image.shape[-2:]
    quantiles = {}
    patches = {}
    for scale in SCALES:
        size = max(16, round(width * scale)), max(16, round(height * scale))
        scaled = resize(image, size)
        features = network(scaled, set(LAYERS))
        for layer in LAYERS:
            points = features[layer].flatten(2)[0]
            quantiles[f"{layer} at {scale:g}"] = projected_quantiles(points)
        lab = to_lab(scaled)
        patches[f"at {scale:g}"] = F.unfold(lab, PATCH_SIDE, stride=PATCH_STRIDE)[0].t()
        if scale == 1.0:
            quantiles["colors"] = projected_quantiles(lab.flatten(2)[0])
            similarity = self_similarity([features[layer] for layer in CONTENT_LAYERS])
            grain = laplacian(lab[:, :1])
    return Description(quantiles, patches, similarity, grain)


def projected_quantiles(points: Tensor) -> Tensor:
    """Return quantiles of the points along random directions: (PROJECTIONS, QUANTILES).

    points: (C, points). The directions depend on C alone.
    """
    random = torch.Generator().manual_seed(0)
    directions = torch.randn(PROJECTIONS, len(points), generator=random)
    directions = F.normalize(directions, dim=1).to(points)
    ordered = (directions @ points).sort(1).values
    return F.interpolate(ordered[None], QUANTILES, mode="linear", align_corners=True)[0]


def sliced_wasserstein(found: Tensor, target: Tensor) -> float:
    """Return the sliced Wasserstein-2 distance, relative to the spread of the target.

    Rabin, Peyré, Delon & Bernot, "Wasserstein Barycenter and Its Application to Texture Mixing"
    (2011). Both are quantiles of `projected_quantiles`.
    """
    spread = target.std(1).square().mean().clamp_min(1e-12)
    return float(((found - target).square().mean() / spread).sqrt())


def patch_distances(patches: Tensor, others: Tensor) -> float:
    """Return the root mean square distance of each patch to the nearest one of the others."""
    # The nearest by one product of matrices; constant terms of a row do not change its minimum
    norms = others.square().sum(1)
    nearest = [
        others[(norms - 2 * rows @ others.t()).argmin(1)] - rows
        for rows in torch.split(patches, 2048)
    ]
    return float(torch.cat(nearest).square().mean().sqrt())


def style_distances(found: Description, style: Description) -> dict[str, float]:
    """Return how far a picture's style is from the style, by each statistic.

    The patches are compared both ways, as in Simakov, Caspi, Shechtman & Irani, "Summarizing Visual
    Data Using Bidirectional Similarity" (2008): what the picture lacks of the style, and what it
    has beyond it.
    """
    by_layer = {
        name: sliced_wasserstein(found.quantiles[name], target)
        for name, target in style.quantiles.items()
    }
    distances = {"colors": by_layer.pop("colors")}
    for scale in SCALES:
        at_scale = [by_layer[f"{layer} at {scale:g}"] for layer in LAYERS]
        distances[f"features at {scale:g}"] = sum(at_scale) / len(LAYERS)
    for name, patches in style.patches.items():
        distances[f"patches lacking {name}"] = patch_distances(patches, found.patches[name])
        distances[f"patches foreign {name}"] = patch_distances(found.patches[name], patches)
    return distances


def self_similarity(features: list[Tensor]) -> Tensor:
    """Return the cosine distances between all positions, each column with sum 1.

    Kolkin, Salavon & Shakhnarovich, "Style Transfer by Relaxed Optimal Transport and
    Self-Similarity" (CVPR 2019), section 2.3. Mean over the layers.
    """
    height, width = features[0].shape[-2:]
    share = SIMILARITY_GRID / max(width, height)
    grid = max(1, round(height * share)), max(1, round(width * share))
    matrices = []
    for layer in features:
        points = F.interpolate(layer, grid, mode="bilinear", align_corners=False)
        points = F.normalize(points.flatten(2)[0], dim=0)
        distances = (1 - points.t() @ points).clamp_min(0)
        matrices.append(distances / distances.sum(0).clamp_min(1e-8))
    return torch.stack(matrices).mean(0)


def similarity_distance(found: Description, photograph: Description) -> float:
    """Return the mean absolute difference of the self-similarities, times the positions."""
    difference = (found.similarity - photograph.similarity).abs()
    return float(difference.mean() * len(difference))


def laplacian(lightness: Tensor) -> float:
    kernel = torch.tensor([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]])
    return float(F.conv2d(lightness, kernel.to(lightness)[None, None]).abs().mean())


def to_lab(image: Tensor) -> Tensor:
    """Return CIELAB (D65) of sRGB in 0..1, both (1, 3, H, W).

    IEC 61966-2-1 for sRGB; CIE 15 for CIELAB.
    """
    linear = torch.where(
        image <= 0.04045, image / 12.92, ((image.clamp_min(0) + 0.055) / 1.055) ** 2.4
    )
    to_xyz = torch.tensor(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    # Each row's sum is the white point's coordinate
    to_xyz = (to_xyz / to_xyz.sum(1, keepdim=True)).to(image)
    xyz = torch.einsum("ij,bjhw->bihw", to_xyz, linear)
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp_min(1e-8) ** (1 / 3), 7.787 * xyz + 16 / 116)[0]
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])[None]
