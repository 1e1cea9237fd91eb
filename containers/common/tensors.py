"""Conversion between Pillow images and PyTorch tensors."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_tensor(image: Image.Image, device: torch.device | str = "cpu") -> Tensor:
    """Return an RGB image as a tensor (3, H, W) on `device`, float32 in 0..1.

    The bytes are copied to the device first and become floats there, which moves a quarter of the
    data.
    """
    levels = torch.from_numpy(np.array(image)).to(device)
    return levels.permute(2, 0, 1).float().div_(255)


def to_image(tensor: Tensor) -> Image.Image:
    """Return a tensor (3, H, W) in 0..1, on any device, as an RGB image."""
    levels = tensor.detach().clamp(0, 1).mul(255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy())
