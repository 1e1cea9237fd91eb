"""Between Pillow's pictures and PyTorch's tensors."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_tensor(image: Image.Image, device: torch.device | str = "cpu") -> Tensor:
    """An RGB picture as (3, H, W), float32 in 0..1, on `device`, where its bytes become floats."""
    return torch.from_numpy(np.array(image)).to(device).permute(2, 0, 1).float().div_(255)


def to_image(tensor: Tensor) -> Image.Image:
    """(3, H, W) in 0..1, on any device, as an RGB picture."""
    levels = tensor.detach().clamp(0, 1).mul(255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy())
