"""Files that only their owner can read, written as a whole."""

from __future__ import annotations

from pathlib import Path


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read."""
    # A file that is renamed is complete, even if this process is killed in between.
    new = path.with_name(f"{path.name}.new")
    new.touch(mode=0o600)
    new.write_bytes(content)
    new.replace(path)
