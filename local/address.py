"""The address of the chat in the browser, which stays the same from one start to the next."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from local.files import write_private


@dataclass(frozen=True)
class Address:
    # On 127.0.0.1.
    port: int
    # Who has it may use the chat.
    key: str

    @property
    def url(self) -> str:
        """The URL of the Bot API server, without the key."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def page(self) -> str:
        """The URL of the page, with the key."""
        return f"{self.url}/#{self.key}"


def make_key() -> str:
    return secrets.token_hex(16)


def read_address(path: Path) -> Address | None:
    """Return the address of the last start; None where there was none, or it cannot be read."""
    try:
        address = Address(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    is_valid = isinstance(address.port, int) and isinstance(address.key, str)
    if not is_valid or not 0 < address.port < 2**16 or not address.key:
        return None
    return address


def write_address(path: Path, address: Address) -> None:
    """Keep the address for the next start, readable by the file's owner only."""
    write_private(path, json.dumps(asdict(address)).encode())
