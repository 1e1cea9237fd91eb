"""What the painters' buttons look like in the browser's chat.

The catalog of the painters names a thumbnail of each. They are copied into a folder, where the chat
finds the picture of each button, and the painters' names. Telegram's own buttons have no pictures.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from bot import CATALOG_KEY, MODELS_PREFIX, Store
from local.files import write_private
from local.seaweedfs import s3_client
from local.telegram.button_pictures import PAINTERS, painters_json, picture_path

LOOK_SECONDS = 1.0


class Thumbnails:
    """Keeps the folder like the catalog, in a thread of its own."""

    def __init__(self, folder: Path, bucket: str, environment: Mapping[str, str]) -> None:
        """`environment` has the storage's address and keys."""
        self.folder = folder
        self.store = Store(s3_client(environment), bucket)
        self.stopping = threading.Event()
        # The ETag of the catalog that the folder shows. Used by the thread only.
        self.etag = ""

    def start(self) -> None:
        threading.Thread(target=self.run, daemon=True).start()

    def stop(self) -> None:
        self.stopping.set()

    def run(self) -> None:
        while not self.stopping.is_set():
            # While the storage is down, or the disk is full, a later look may succeed.
            with contextlib.suppress(BotoCoreError, ClientError, OSError):
                self.step()
            self.stopping.wait(LOOK_SECONDS)

    def step(self) -> None:
        """Copy the thumbnails if the catalog has changed. Raises the errors of S3, and OSError."""
        changed = self.store.get_if_changed(CATALOG_KEY, self.etag)
        if changed is None:
            return
        catalog, etag = changed
        paths = set()
        labels = {}
        for style in read_styles(catalog):
            data = f"style:{style.name}"
            labels[data] = style.label
            path = picture_path(self.folder, data)
            paths.add(path)
            self.copy(style.thumbnail, path)
        for path in set(self.folder.glob("*.jpg")) - paths:
            path.unlink()
        if labels:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_private(self.folder / PAINTERS, painters_json(labels))
        else:
            (self.folder / PAINTERS).unlink(missing_ok=True)
        self.etag = etag

    def copy(self, key: str, path: Path) -> None:
        """Copy an object to a file. Where there is no such object, there is no file afterwards."""
        data, _ = self.store.get(key)
        if not data:
            path.unlink(missing_ok=True)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_private(path, data)


class CatalogStyle(NamedTuple):
    name: str
    label: str
    # The key of its thumbnail.
    thumbnail: str


def read_styles(catalog: bytes) -> list[CatalogStyle]:
    """Return the styles in their order; [] where it is no catalog."""
    try:
        return [read_style(style) for style in json.loads(catalog)["styles"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def read_style(style: Mapping[str, str]) -> CatalogStyle:
    name = style["name"]
    label = style.get("label", "").strip() or name.title()
    return CatalogStyle(name, label, f"{MODELS_PREFIX}{style['thumbnail']}")
