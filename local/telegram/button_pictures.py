"""Pictures on the buttons of an inline keyboard, which Telegram itself does not have.

They are files in a folder that another program keeps up to date. A button without one is a button
without a picture.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from local.telegram.store import Message


def picture_path(folder: Path, callback_data: str) -> Path:
    """Return the JPEG file of the buttons with this callback data, whatever characters it has.

    A second colon and what follows it tell what the button acts on, and not what it shows.
    """
    shown = ":".join(callback_data.split(":")[:2])
    return folder / f"{quote(shown, safe='')}.jpg"


def add_pictures(message: Message, folder: Path) -> None:
    """Add the member "picture" to each button that has one: the version of its file."""
    for row in message.get("reply_markup", {}).get("inline_keyboard", []):
        for button in row:
            if version := find_version(picture_path(folder, button["callback_data"])):
                button["picture"] = version


def find_version(path: Path) -> str:
    """Return a text that differs after each change of the file; "" where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_mtime_ns}-{status.st_size}"
