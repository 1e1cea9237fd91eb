"""Between Pillow's pictures and PyTorch's tensors, and the device that the work is done on."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB picture as (3, H, W), float32 in 0..1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255)


def to_image(tensor: Tensor) -> Image.Image:
    """(3, H, W) in 0..1, on any device, as an RGB picture."""
    levels = tensor.detach().clamp(0, 1).mul(255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy())


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def working_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the GPU has tensor cores for it (Ampere and later), float16 on older ones, float32 on a CPU."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
