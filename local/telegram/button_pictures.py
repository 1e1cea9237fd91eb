"""Pictures on the buttons of an inline keyboard, which Telegram itself does not have.

They are files in a folder that another program keeps up to date. A button without one is a button
without a picture. The file painters.json beside them names the buttons that start a painting, so
that the page can offer them before the bot does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict
from urllib.parse import quote

from local.telegram.store import Message

PAINTERS = "painters.json"


class Painter(TypedDict):
    """A button that starts a painting."""

    # What people read on it.
    text: str
    callback_data: str
    # The version of its picture; "" where there is none.
    picture: str


def picture_path(folder: Path, callback_data: str) -> Path:
    """Return the JPEG file of the buttons with this callback data, whatever characters it has.

    A second colon and what follows it tell what the button acts on, and not what it shows.
    """
    shown = ":".join(callback_data.split(":")[:2])
    return folder / f"{quote(shown, safe='')}.jpg"


def painters_json(labels: Mapping[str, str]) -> bytes:
    """Return the contents of painters.json: the labels by the callback data of their buttons."""
    return json.dumps(labels).encode()


def read_painters(folder: Path) -> list[Painter]:
    """Return the painters that the folder names, in their order; [] where it names none."""
    try:
        labels = json.loads((folder / PAINTERS).read_text())
    except (OSError, ValueError):
        return []
    return [
        {"text": text, "callback_data": data, "picture": find_version(picture_path(folder, data))}
        for data, text in labels.items()
    ]


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
