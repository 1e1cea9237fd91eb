"""What the work is done on, and how precisely."""

import torch


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def working_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the GPU has tensor cores for it (Ampere and later), float16 on older ones, float32 on a CPU."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
