"""What the painters' buttons look like in the browser's chat.

The catalog of the painters names a thumbnail of each. They are copied into a folder, where the chat
finds the picture of each button. Telegram's own buttons have no pictures.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from bot import CATALOG_KEY, MODELS_PREFIX, Store
from local.files import write_private
from local.seaweedfs import s3_client
from local.telegram.button_pictures import picture_path

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
        for name, key in read_thumbnails(catalog).items():
            path = picture_path(self.folder, f"style:{name}")
            paths.add(path)
            self.copy(key, path)
        for path in set(self.folder.glob("*.jpg")) - paths:
            path.unlink()
        self.etag = etag

    def copy(self, key: str, path: Path) -> None:
        """Copy an object to a file. Where there is no such object, there is no file afterwards."""
        data, _ = self.store.get(key)
        if not data:
            path.unlink(missing_ok=True)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_private(path, data)


def read_thumbnails(catalog: bytes) -> dict[str, str]:
    """Return the key of each style's thumbnail, by the style's name; {} where it is no catalog."""
    try:
        styles = json.loads(catalog)["styles"]
        return {style["name"]: f"{MODELS_PREFIX}{style['thumbnail']}" for style in styles}
    except (ValueError, KeyError, TypeError):
        return {}
