"""What the work is done on, and how precisely."""

import torch


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def working_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, at twice the rate of float32 or more; otherwise, on a GPU
    float16 (before Ampere), on a CPU float32.

    The processors: Zen 4 and Cooper Lake (AVX-512 BF16), Sapphire Rapids (AMX), and their successors.
    """
    if device.type == "cuda":
        return (
            torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
        )
    capabilities = torch.cpu.get_capabilities()
    return (
        torch.bfloat16
        if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
        else torch.float32
    )
