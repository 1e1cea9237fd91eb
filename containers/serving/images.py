"""Files of strangers in, RGB pictures out, and back: Pillow does the work, this module sets its limits."""

import io
import warnings

import numpy as np
from PIL import Image, ImageCms, ImageOps
from pillow_heif import register_heif_opener

from .errors import RequestError

register_heif_opener()
Image.MAX_IMAGE_PIXELS = None  # decode() has a stricter limit, and a clearer message

MEGAPIXELS = 40
SMALLEST_SIDE = 16
# Photographs' formats only: Pillow knows dozens more, some of which start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
ENCODINGS = {
    "image/jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    "image/png": ("PNG", {}),
    "image/webp": ("WEBP", {"quality": 95}),
}
EXTENSIONS = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
SRGB = ImageCms.createProfile("sRGB")


def decode(data: bytes, longest: int, what: str = "picture") -> Image.Image:
    """The first picture of a file as upright sRGB on white, at most `longest` pixels on its longer side.

    what: how messages call it ("content image"). Raises RequestError: 422 where it is no readable image or is smaller
    than 16 pixels on a side, 413 where it has more than 40 megapixels, which is checked before any pixel is decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = opened(data, what)
        width, height = image.size
        if width * height > MEGAPIXELS * 1_000_000:
            raise RequestError(
                413,
                "image_too_large",
                f"The {what} has {width * height / 1e6:.0f} megapixels ({width}x{height}); at most {MEGAPIXELS} are "
                "taken. Send a smaller one.",
            )
        if min(width, height) < SMALLEST_SIDE:
            raise RequestError(
                422,
                "image_too_small",
                f"The {what} is {width}x{height}; at least {SMALLEST_SIDE} pixels are needed on each side.",
            )
        try:
            image.draft(
                None, (longest, longest)
            )  # a JPEG is decoded at a fraction of its size where that suffices
            return shrunk(to_rgb(ImageOps.exif_transpose(image) or image), longest)
        except Exception:  # a decoder can raise anything on a damaged file
            raise unreadable(what) from None


def opened(data: bytes, what: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception:  # a decoder can raise anything on a damaged file
        raise unreadable(what) from None


def unreadable(what: str) -> RequestError:
    return RequestError(
        422,
        "image_unreadable",
        f"The {what} could not be read as an image; it may be damaged or of another kind. "
        "JPEG, PNG, WebP, HEIC, AVIF, GIF, TIFF and BMP are understood.",
    )


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit sRGB without alpha, whatever the file held: profiles converted, 16 bits scaled, alpha over white."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        full_scale = 65535 if image.mode.startswith("I;16") else None
        image = Image.fromarray(to_8_bits(np.asarray(image), full_scale))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return converted(Image.alpha_composite(white, image).convert("RGB"), profile)
    if image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    return converted(image, profile)


def to_8_bits(pixels: np.ndarray, full_scale: float | None) -> np.ndarray:
    """Grey levels of 16 or 32 bits or floats, as bytes; a scale that the file leaves open is told from its largest."""
    pixels = np.nan_to_num(pixels.astype(np.float32), posinf=0, neginf=0)
    if full_scale is None:
        largest = pixels.max()
        full_scale = next((scale for scale in (1, 255, 65535) if largest <= scale), largest)
    return np.clip(pixels / full_scale * 255 + 0.5, 0, 255).astype(np.uint8)


def converted(image: Image.Image, profile: bytes | None) -> Image.Image:
    """From the file's own colour profile to sRGB; a profile that is damaged or of another mode is left aside."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(image, source, SRGB, outputMode="RGB") or image
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass
    return image.convert("RGB")


def shrunk(image: Image.Image, longest: int) -> Image.Image:
    if max(image.size) <= longest:
        return image
    scale = longest / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def encode(image: Image.Image, content_type: str) -> bytes:
    """The picture as a file of one of `ENCODINGS`, without metadata."""
    kind, options = ENCODINGS[content_type]
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
