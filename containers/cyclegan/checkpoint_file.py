"""A checkpoint's file, checked before PyTorch reads it: a small file must not take much memory.

torch.load with weights_only runs no code. It still makes what a pickle asks for, such as a
bytearray of 3 GB, and unpacks what is compressed.
"""

import io
import pickletools
import zipfile
from pathlib import Path

from .generator import CheckpointError

# The largest generator, with 256 filters, has 727 MB.
MAX_BYTES = 800 << 20
# Of the names and shapes. A generator's have 15 KB.
MAX_PICKLE_BYTES = 1 << 20
# What a checkpoint of tensors is made of. A storage is read from the file, and has its size there.
ALLOWED_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch FloatStorage",
    "torch HalfStorage",
    "torch BFloat16Storage",
    "torch DoubleStorage",
    "torch LongStorage",
}
# Before version 1.6, PyTorch wrote so many pickles, and the tensors' values after them.
OLD_FORMAT_PICKLES = 5
ZIP_START = b"PK"


def check_file(path: Path) -> None:
    """Raise CheckpointError if the file could take much more memory than it has bytes."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise CheckpointError(
                f"{path} has {size >> 20} MB; a checkpoint has at most {MAX_BYTES >> 20}."
            )
        with path.open("rb") as file:
            start = file.read(MAX_PICKLE_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error

    if start.startswith(ZIP_START):
        check_zip(path, size)
    else:
        check_pickles(path, start, OLD_FORMAT_PICKLES)


def check_zip(path: Path, size: int) -> None:
    """Check the format of today: a ZIP file with a pickle, and the tensors' values as they are."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > size:
                raise CheckpointError(
                    f"{path} is compressed, and becomes {unpacked >> 20} MB. "
                    "Save it with torch.save."
                )
            for member in members:
                if member.filename.endswith(".pkl"):
                    with archive.open(member) as file:
                        check_pickles(path, file.read(MAX_PICKLE_BYTES), 1)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise damaged(path) from error


def check_pickles(path: Path, data: bytes, count: int) -> None:
    try:
        found = find_globals(data, count)
    except (ValueError, OverflowError, EOFError) as error:
        raise damaged(path) from error
    if others := found - ALLOWED_GLOBALS:
        raise CheckpointError(
            f"{path} is no checkpoint of tensors alone: it holds {min(others)[:60]!r}. "
            "Save the generator's state_dict."
        )


def find_globals(data: bytes, count: int) -> set[str]:
    """Return what so many pickles, one after the other, import; without running them."""
    file = io.BytesIO(data)
    found = set()
    for _ in range(count):
        for operation, argument, _ in pickletools.genops(file):
            if "GLOBAL" in operation.name:
                found.add(str(argument))
    return found


def damaged(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is no checkpoint of tensors alone: "
        "it is damaged, or it holds code, which is never run."
    )
