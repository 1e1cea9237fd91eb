"""What a GPU's faults mean to the server: memory that is short for now, or a context that is broken for good."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from containers.serving.errors import RequestError
from containers.serving.model import FatalError


@contextmanager
def gpu_faults() -> Iterator[None]:
    """Raises RequestError 503 for an out of memory that no smaller picture mended, FatalError for a CUDA error."""
    try:
        yield
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        message = "The GPU's memory is too small for this picture, even a smaller one. Try again with a smaller size."
        raise RequestError(503, "out_of_memory", message, retry_after=30) from None
    except RuntimeError as error:
        if "CUDA error" in str(error):
            raise FatalError(str(error).splitlines()[0]) from error
        raise


def device_report(device: torch.device) -> dict[str, str]:
    """What the work is done on, for the log; and what is wrong where a GPU is there that PyTorch cannot use."""
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device)}
    report = {"device": f"CPU, {torch.get_num_threads()} threads"}
    if os.path.exists("/dev/nvidiactl"):
        report["warning"] = (
            f"There is an NVIDIA GPU, but PyTorch for CUDA {torch.version.cuda or '(none)'} cannot use it: its driver "
            "is too old. Update it, or on SageMaker choose a newer InferenceAmiVersion."
        )
    return report


def gpu_memory() -> dict[str, int]:
    """The most that PyTorch has held on the GPU since the last call, in MB; nothing where there is no GPU."""
    if not torch.cuda.is_available():
        return {}
    peak = torch.cuda.max_memory_allocated() >> 20
    torch.cuda.reset_peak_memory_stats()
    return {"gpu_memory_mb": peak}
