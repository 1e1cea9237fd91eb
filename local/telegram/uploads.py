"""Uploads, made into the files that Telegram makes of them."""

from __future__ import annotations

import contextlib
import io
import mimetypes
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from werkzeug.datastructures import FileStorage

from containers.serving.errors import ApiError as ImageError
from containers.serving.images import decode, open_image, shrink
from local.telegram.errors import bad_request
from local.telegram.store import FileInfo, Upload

# The limits of a photo that a bot sends: its bytes, width + height in pixels, and the ratio of its
# sides.
PHOTO_BYTES = 10 * 2**20
PHOTO_SIDES = 10_000
PHOTO_RATIO = 20
# Telegram's sizes of a photo: the longer side in pixels.
SIZES = (90, 320, 800, 1280)
JPEG_QUALITY = 87


def prepare_document(upload: FileStorage) -> list[Upload]:
    """Return the file as it is. Raises ApiError where it is empty."""
    data = read(upload)
    name = file_name(upload)
    guessed, _ = mimetypes.guess_type(name)
    info: FileInfo = {
        "file_name": name,
        "mime_type": guessed or upload.mimetype or "application/octet-stream",
    }
    return [Upload(data, name, info)]


def prepare_animation(upload: FileStorage, told: Mapping[str, int]) -> list[Upload]:
    """Return a GIF or an MP4 without sound as it is. Raises ApiError where it is empty.

    `told`: the width, the height in pixels and the duration in seconds, as far as the bot tells
    them. Of a GIF the size is read from the file.
    """
    (animation,) = prepare_document(upload)
    size: FileInfo = {"width": 0, "height": 0, "duration": 0}
    # What Pillow cannot read is a video.
    with contextlib.suppress(ImageError):
        size["width"], size["height"] = open_image(animation.data, "animation").size
    for name in ("width", "height", "duration"):
        size[name] = told[name] or size[name]
    animation.info.update(size)
    return [animation]


def prepare_photo(upload: FileStorage, from_bot: bool) -> list[Upload]:
    """Return the photo as JPEGs from small to large, none larger than the photo itself.

    The limits are for bots only: a telephone scales a photo before it sends it. Raises ApiError.
    """
    data = read(upload)
    if from_bot and len(data) > PHOTO_BYTES:
        raise bad_request(f"file of size {len(data)} bytes is too big for a photo")
    try:
        width, height = open_image(data, "photo").size
        if from_bot:
            check_dimensions(width, height)
        full = decode(data, SIZES[-1], "photo")
    except ImageError as error:
        words = f"IMAGE_PROCESS_FAILED. {error.message}"
        raise bad_request(words, error.code.value) from None

    images = [shrink(full, size) for size in SIZES if size < max(full.size)]
    images.append(full)
    return [to_upload(image) for image in images]


def check_dimensions(width: int, height: int) -> None:
    is_too_large = width + height > PHOTO_SIDES
    is_too_long = max(width, height) > PHOTO_RATIO * min(width, height)
    if is_too_large or is_too_long:
        raise bad_request("PHOTO_INVALID_DIMENSIONS")


def to_upload(image: Image.Image) -> Upload:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return Upload(buffer.getvalue(), "photo.jpg", {"width": image.width, "height": image.height})


def read(upload: FileStorage) -> bytes:
    data: bytes = upload.read()
    if not data:
        raise bad_request("file must be non-empty", "file_empty")
    return data


def file_name(upload: FileStorage) -> str:
    """Return the name without any folder."""
    return Path(upload.filename or "file").name
