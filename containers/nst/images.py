"""Operations on image tensors: resizing, padding and color transfer.

All are (1, 3, H, W), RGB in 0..1.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .options import MIN_SIDE

# The features of a style take less than a third of the memory of an evaluation of the same size,
# as they need no gradient.
MAX_STYLE_AREA = 3.0

# --- size ---


def fit(
    width: int, height: int, box_width: int, box_height: int, enlarge: bool = False
) -> tuple[int, int]:
    """Return the largest (width, height) of the same shape that fits into the box."""
    scale = min(box_width / width, box_height / height)
    if not enlarge:
        scale = min(scale, 1.0)
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the image at the size (width, height), without aliasing where it shrinks."""
    width, height = size
    if image.shape[-2:] == (height, width):
        return image
    resized = F.interpolate(
        image, (height, width), mode="bicubic", antialias=True, align_corners=False
    )
    return resized.clamp(0, 1)


def scaled_size(image: Tensor, share: float) -> tuple[int, int]:
    """Return the image's (width, height) times `share`, each at least MIN_SIDE."""
    height, width = image.shape[-2:]
    return max(MIN_SIDE, round(width * share)), max(MIN_SIDE, round(height * share))


def resize_style(style: Tensor, longest: float) -> Tensor:
    """Return the style with a longer side of `longest` pixels.

    It is never enlarged, as that would only blur its strokes.
    """
    height, width = style.shape[-2:]
    side = max(1, round(longest))
    return pad_to_min_side(resize(style, fit(width, height, side, side)))


def shrink_style(style: Tensor, size: tuple[int, int]) -> Tensor:
    """Return no more of the style than a result of this size (width, height) can use.

    That is its longer side, and MAX_STYLE_AREA times its pixels. So a panorama does not need the
    memory for a square of its width.
    """
    width, height = size
    small = resize_style(style, max(size))
    pixels = small.shape[-2] * small.shape[-1]
    share = MAX_STYLE_AREA * width * height / pixels
    if share >= 1:
        return small
    return resize_style(small, max(small.shape[-2:]) * math.sqrt(share))


def pad_to_min_side(image: Tensor) -> Tensor:
    """Extend the image to the right and below by its border pixels, to MIN_SIDE on each side."""
    height, width = image.shape[-2:]
    right = max(0, MIN_SIDE - width)
    bottom = max(0, MIN_SIDE - height)
    if right == 0 and bottom == 0:
        return image
    return F.pad(image, (0, right, 0, bottom), mode="replicate")


def enlarge(image: Tensor, content: Tensor) -> Tensor:
    """Return the result of a coarse scale at the size of `content`, plus the detail of `content`.

    The coarse scale could not hold that detail, and L-BFGS would spend its first steps to bring it
    back.
    """
    height, width = image.shape[-2:]
    size = content.shape[3], content.shape[2]
    coarse_content = resize(resize(content, (width, height)), size)
    detail = content - coarse_content
    return (resize(image, size) + detail).clamp(0, 1)


# --- color ---


def initial_image(content: Tensor, matched: Tensor, strength: float, seed: int) -> Tensor:
    """Return the image that the optimization starts at, which saves it finding the colors.

    matched: the photograph in the style's palette. At a low strength it has a smaller share. A
    little noise is added.
    """
    share = min(1.0, 2 * strength)
    image = content.lerp(matched, share)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(content.shape, generator=generator).to(content.device)
    return (image + 0.01 * noise).clamp(0, 1)


def match_colors(
    image: Tensor,
    palette: Tensor,
    image_mask: Tensor | None = None,
    palette_mask: Tensor | None = None,
) -> Tensor:
    """Return `image` with the mean and covariance of the colors of `palette`, by the least change.

    image_mask, palette_mask: (1, 1, H, W), how much each pixel counts; None: all alike.

    Pitié & Kokaram, "The linear Monge-Kantorovitch linear colour mapping for example-based colour
    transfer" (2007).
    """
    mean, covariance = color_moments(image, image_mask)
    target_mean, target_covariance = color_moments(palette, palette_mask)
    root = matrix_root(covariance)
    inverse = torch.linalg.inv(root)
    transform = inverse @ matrix_root(root @ target_covariance @ root) @ inverse
    pixels = image.flatten(2)[0].double()
    matched: Tensor = transform @ (pixels - mean) + target_mean
    return matched.clamp(0, 1).to(image.dtype).view_as(image)


def color_moments(image: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the mean (3, 1) and covariance (3, 3) of the pixels.

    mask: (1, 1, H, W), how much each pixel counts; None: all alike. A little is added to the
    covariance, so that a gray image has an inverse.
    """
    pixels = image.flatten(2)[0].double()
    if mask is None:
        mean = pixels.mean(1, keepdim=True)
        centered = pixels - mean
        covariance = centered @ centered.t() / pixels.shape[1]
    else:
        weights = mask.flatten().double() / mask.double().sum()
        mean = pixels @ weights[:, None]
        centered = pixels - mean
        covariance = centered * weights @ centered.t()
    return mean, covariance + 1e-5 * torch.eye(3, dtype=pixels.dtype, device=pixels.device)


def matrix_root(matrix: Tensor) -> Tensor:
    """Return the square root of a symmetric matrix without negative eigenvalues."""
    eigenvalues, eigenvectors = torch.linalg.eigh(matrix)
    roots = torch.diag(eigenvalues.clamp_min(0).sqrt())
    root: Tensor = eigenvectors @ roots @ eigenvectors.t()
    return root
