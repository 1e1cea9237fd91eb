"""The catalog of a model's styles: a picture in each, all of them on one sheet, and a JSON file.

docs/contract.md describes the files.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from PIL import Image, ImageDraw, ImageFont

from . import images, storage

VERSION = 1
THUMBNAIL_SIDE = 240
# Telegram takes photographs whose width and height are 10,000 pixels together.
MAX_STYLES = 60

COLUMNS = 2
GAP = 12
LABEL_HEIGHT = 36
FONT_SIZE = 24
PAPER = "white"
INK = "#202020"


@dataclass(frozen=True)
class Sample:
    """The catalog's photograph in one style."""

    name: str
    label: str
    image: Image.Image


class StyleEntry(TypedDict):
    name: str
    label: str
    thumbnail: str


class Catalog(TypedDict):
    """The JSON file. The paths of its pictures are relative to its folder."""

    version: int
    styles: list[StyleEntry]
    sheet: str


def write(url: str, samples: Sequence[Sample]) -> None:
    """Write the catalog to `url`, and its pictures into the same folder. Raises ApiError.

    The JSON file comes last: who reads it finds all pictures that it names.
    """
    folder = url.rpartition("/")[0]
    entries: list[StyleEntry] = []
    for sample in samples:
        thumbnail = f"thumbnails/{sample.name}.jpg"
        write_jpeg(f"{folder}/{thumbnail}", images.shrink(sample.image, THUMBNAIL_SIDE))
        entries.append({"name": sample.name, "label": sample.label, "thumbnail": thumbnail})

    sheet = "catalog.jpg"
    write_jpeg(f"{folder}/{sheet}", draw_sheet(samples))
    catalog: Catalog = {"version": VERSION, "styles": entries, "sheet": sheet}
    data = json.dumps(catalog, ensure_ascii=False, indent=1).encode()
    storage.write(url, data, "application/json", "catalog_url")


def write_jpeg(url: str, image: Image.Image) -> None:
    storage.write(url, images.encode(image, "image/jpeg"), "image/jpeg", "catalog_url")


def draw_sheet(samples: Sequence[Sample]) -> Image.Image:
    """Return all samples on one picture, two a row, in order, each above its label."""
    width = max((sample.image.width for sample in samples), default=THUMBNAIL_SIDE)
    height = max((sample.image.height for sample in samples), default=THUMBNAIL_SIDE)
    rows = max(1, -(-len(samples) // COLUMNS))
    step_right = width + GAP
    step_down = height + LABEL_HEIGHT
    sheet = Image.new("RGB", (GAP + COLUMNS * step_right, GAP + rows * step_down), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)

    for number, sample in enumerate(samples):
        row, column = divmod(number, COLUMNS)
        left = GAP + column * step_right
        top = GAP + row * step_down
        sheet.paste(sample.image, (left, top))
        middle = (left + width // 2, top + height + LABEL_HEIGHT // 2)
        draw.text(middle, sample.label, fill=INK, font=font, anchor="mm")
    return sheet
