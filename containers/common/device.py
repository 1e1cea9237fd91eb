"""The device that models run on: which one, its precision, its memory, and what its errors mean."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from containers.common.errors import FatalError, OutOfMemoryError


def best_device() -> torch.device:
    """Return the GPU if PyTorch can use one, otherwise the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")


def working_precision(device: torch.device) -> torch.dtype:
    """Return the data type for convolutions on `device`.

    That is bfloat16 if the device multiplies it natively, at least twice as fast as float32.
    Otherwise it is float16 on a GPU (before Ampere) and float32 on a CPU.

    CPUs with bfloat16: Zen 4 and Cooper Lake (AVX-512 BF16), Sapphire Rapids (AMX), and their
        successors.
    """
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return torch.bfloat16
        return torch.float16

    capabilities = torch.cpu.get_capabilities()
    if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"):
        return torch.bfloat16
    return torch.float32


@contextmanager
def gpu_errors() -> Iterator[None]:
    """Translate PyTorch's errors within the block.

    Raises OutOfMemoryError if the GPU's memory is too small, and FatalError after a CUDA error,
    which breaks the process's CUDA context for good.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        raise OutOfMemoryError(
            "The GPU's memory is too small for this picture, even a smaller one. "
            "Try again with a smaller size."
        ) from None
    except RuntimeError as error:
        if "CUDA error" in str(error):
            raise FatalError(str(error).splitlines()[0]) from error
        raise


def device_report(device: torch.device) -> dict[str, str]:
    """Return the device's name for the log, and a warning if PyTorch cannot use the GPU."""
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device)}

    report = {"device": f"CPU, {torch.get_num_threads()} threads"}
    if os.path.exists("/dev/nvidiactl"):
        report["warning"] = (
            f"There is an NVIDIA GPU, but PyTorch for CUDA {torch.version.cuda or '(none)'} cannot "
            "use it: its driver is too old. Update it, or on SageMaker choose a newer "
            "InferenceAmiVersion."
        )
    return report


def peak_gpu_memory() -> int | None:
    """Return the peak of PyTorch's GPU memory since the last call, in MB; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    peak = torch.cuda.max_memory_allocated() >> 20
    torch.cuda.reset_peak_memory_stats()
    return peak
