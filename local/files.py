"""Files and sockets that only their owner can use."""

from __future__ import annotations

import os
from pathlib import Path

from local.processes import StackError

# The longest path of a Unix socket in bytes, less the end of the string.
SOCKET_PATH_BYTES = 107


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read."""
    # A file that is renamed is complete, even if this process is killed in between.
    new = path.with_name(f"{path.name}.new")
    new.touch(mode=0o600)
    new.write_bytes(content)
    new.replace(path)


def socket_path(folder: Path, name: str) -> Path:
    """Return the path of a Unix socket in a folder, which is made for this user only.

    Raises StackError where the path is too long for a socket.
    """
    path = folder / name
    excess = len(os.fsencode(path)) - SOCKET_PATH_BYTES
    if excess > 0:
        raise StackError(
            f"The path of the data is {excess} bytes too long for a socket: {path}. "
            "Choose a shorter one: --data DIR"
        )
    folder.mkdir(mode=0o700, exist_ok=True)
    return path
