"""Styles that were trained later: checkpoints in S3, at MODELS_URL.

A checkpoint that is put there is a style of every running server, without a restart: it is listed,
downloaded, proved like any other, and kept in memory while it is among those used last.
"""

import re
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from containers.common.errors import ErrorCode, UnknownStyleError
from containers.common.log import write_log
from containers.serving import storage
from containers.serving.errors import ApiError
from containers.serving.limits import MAX_FILE_MEGABYTES

from .generator import CheckpointError, Generator
from .styles import NAME_PATTERN, Style, load_style

MODELS_URL_PATTERN = re.compile(r"s3://[a-z0-9][a-z0-9.-]+(/[\x21-\x7e]*)?")
SECONDS_BETWEEN_LISTINGS = 10.0
# Generators in memory; each takes 12 MB with 32 filters, 45 MB with 64, 180 MB with 128.
MAX_LOADED = 12


@dataclass
class StoredStyle:
    """A checkpoint in the bucket, as it was listed last.

    etag: the same as long as the object is the same.
    data: the checkpoint, downloaded and not yet loaded.
    refused: why this checkpoint cannot be used.
    last_use: larger than that of every style that was used before.
    """

    name: str
    etag: str
    data: bytes | None = None
    generator: Generator | None = None
    refused: str | None = None
    last_use: int = 0

    def needs_download(self) -> bool:
        return self.data is None and self.generator is None and self.refused is None


class BucketStyles:
    """The styles of the bucket.

    `look` and `prepare` do what needs the network, in the threads of requests. `generator` does
    what needs the device; the model calls it for one picture at a time.

    Two locks, always taken in this order:
    network: held while S3 is listed or read, so that this happens once for all who wait for it.
    lock: guards what both kinds of threads touch. It is never held while something takes time.
    """

    def __init__(
        self,
        url: str,
        device: torch.device,
        working_precision: torch.dtype,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """url: such as s3://bucket/models/. Raises ValueError for anything else."""
        if not MODELS_URL_PATTERN.fullmatch(url):
            raise ValueError("MODELS_URL must be an address such as s3://bucket/models/.")
        self.url = url.rstrip("/") + "/"
        self.device = device
        self.working_precision = working_precision
        self.clock = clock
        self.network = threading.Lock()
        self.last_listing: float | None = None  # guarded by network
        self.listing_error: ApiError | None = None  # guarded by network
        self.ignored: set[str] = set()  # file names that are no style's; guarded by network
        self.lock = threading.Lock()
        # The dictionary, and all that is in its values
        self.styles: dict[str, StoredStyle] = {}  # guarded by lock
        self.uses = 0  # guarded by lock

    def names(self) -> list[str]:
        """Return the styles that were listed last, without those that were refused."""
        with self.lock:
            return [style.name for style in self.styles.values() if style.refused is None]

    # --- the network ---

    def look(self) -> None:
        """List the bucket now. If that fails, the styles that are known stay."""
        with self.network:
            self.list_bucket()

    def prepare(self, name: str) -> None:
        """Download the style's checkpoint if it is new or has changed.

        Lists the bucket if it was not listed in the last ten seconds. Does nothing if there is no
        such style. Raises ApiError if S3 fails and the style is not in memory.
        """
        if not NAME_PATTERN.fullmatch(name):
            return
        # A style in memory does not wait until another one is downloaded
        if not self.network.acquire(blocking=not self.is_here(name)):
            return
        try:
            if self.is_listing_due():
                self.list_bucket()
            if not self.is_here(name):
                self.fetch(name)
        finally:
            self.network.release()

    def is_here(self, name: str) -> bool:
        """Return whether the style needs no download, also because it was refused."""
        with self.lock:
            style = self.styles.get(name)
            return style is not None and not style.needs_download()

    def is_listing_due(self) -> bool:
        """The caller holds `network`."""
        if self.last_listing is None:
            return True
        return self.clock() - self.last_listing >= SECONDS_BETWEEN_LISTINGS

    def list_bucket(self) -> None:
        """Bring `styles` up to date. The log tells an error. The caller holds `network`."""
        self.listing_error = None
        prefix = f"{self.url}style_"
        try:
            objects = storage.list_s3(prefix, "MODELS_URL")
        except ApiError as error:
            self.listing_error = error
            write_log("styles not listed", error=error.code, reason=error.message)
            return
        finally:
            # After an error too: it is not asked again at once
            self.last_listing = self.clock()

        listed: dict[str, StoredStyle] = {}
        ignored: set[str] = set()
        for item in objects:
            file_name = item.url.removeprefix(prefix)
            name = file_name.removesuffix(".pth")
            if name == file_name or not NAME_PATTERN.fullmatch(name):
                ignored.add(file_name)
                continue
            style = StoredStyle(name, item.etag)
            if item.size > MAX_FILE_MEGABYTES << 20:
                style.refused = f"Its checkpoint is larger than {MAX_FILE_MEGABYTES} MB."
            listed[name] = style
        for file_name in sorted(ignored - self.ignored):
            write_log(
                "style ignored",
                file=f"style_{file_name}",
                reason="The name of a style has a-z, 0-9, _ and -, and at most 32 characters.",
            )
        self.ignored = ignored

        with self.lock:
            for name, style in listed.items():
                known = self.styles.get(name)
                if known and known.etag == style.etag:
                    listed[name] = known
            self.styles = listed

    def fetch(self, name: str) -> None:
        """Download the style's checkpoint, if there is one. The caller holds `network`."""
        with self.lock:
            style = self.styles.get(name)
        if style is None and self.listing_error:
            raise ApiError(
                self.listing_error.code,
                f"The style {name} is not built in, and the others cannot be listed. "
                f"{self.listing_error.message}",
            )
        if style is None:
            return

        started = time.monotonic()
        data = storage.read(self.checkpoint_url(style), f"style {name}")
        seconds = round(time.monotonic() - started, 3)
        write_log("style downloaded", style=name, bytes=len(data), seconds=seconds)
        with self.lock:
            style.data = data

    def checkpoint_url(self, style: StoredStyle) -> str:
        return f"{self.url}style_{style.name}.pth"

    # --- the device ---

    def generator(self, name: str) -> Generator | None:
        """Return the style's generator; None if there is no such style. `prepare` comes before it.

        Raises UnknownStyleError with the reason if its checkpoint cannot be used, ApiError if S3
        fails.
        """
        with self.lock:
            style = self.styles.get(name)
            has_left = style is not None and style.needs_download()
        if has_left:
            # It had to make room for others since `prepare`
            self.prepare(name)
        with self.lock:
            style = self.styles.get(name)
            if style is None:
                return None
            self.uses += 1
            style.last_use = self.uses
            if style.generator:
                return style.generator
            if style.refused:
                raise UnknownStyleError(f"The style {name} could not be loaded. {style.refused}")
            data = style.data
            style.data = None
        if data is None:
            # It was listed with a new checkpoint in between
            raise ApiError(
                ErrorCode.STORAGE_FAILED, f"The style {name} is being replaced. Try again."
            )
        return self.load(style, data)

    def load(self, style: StoredStyle, data: bytes) -> Generator:
        """Load and prove the checkpoint. Raises UnknownStyleError if it cannot be used."""
        try:
            loaded = self.load_bytes(style, data)
        except CheckpointError as error:
            with self.lock:
                style.refused = str(error)
            write_log("style refused", style=style.name, reason=str(error))
            raise UnknownStyleError(
                f"The style {style.name} could not be loaded. {error}"
            ) from None
        write_log("style", style=style.name, **loaded.facts())
        with self.lock:
            style.generator = loaded.generator
            self.make_room()
        return loaded.generator

    def load_bytes(self, style: StoredStyle, data: bytes) -> Style:
        """Raises CheckpointError; its message has the address of the checkpoint."""
        with tempfile.TemporaryDirectory(prefix="style-") as folder:
            path = Path(folder) / "checkpoint.pth"
            path.write_bytes(data)
            try:
                return load_style(path, self.device, self.working_precision)
            except CheckpointError as error:
                message = str(error).replace(str(path), self.checkpoint_url(style))
                raise CheckpointError(message) from None

    def make_room(self) -> None:
        """Let the styles go that were not used for longest. The caller holds `lock`."""
        loaded = [style for style in self.styles.values() if style.generator]
        loaded.sort(key=lambda style: style.last_use)
        for style in loaded[:-MAX_LOADED]:
            style.generator = None
