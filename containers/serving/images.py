"""Reading and writing image files.

Pillow does the work; this module sets limits, as files come from strangers.
"""

import io
import warnings

import numpy as np
from PIL import Image, ImageCms, ImageOps
from pillow_heif import register_heif_opener

from containers.common.errors import ErrorCode

from .errors import ApiError
from .limits import MAX_MEGAPIXELS, MIN_SIDE

register_heif_opener()
# decode() has a stricter limit, with a clearer message.
Image.MAX_IMAGE_PIXELS = None

# Only formats of photographs: Pillow knows dozens more, and some of them start other programs.
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
MODES_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
SRGB = ImageCms.createProfile("sRGB")
SRGB_BYTES = ImageCms.ImageCmsProfile(SRGB).tobytes()


def decode(data: bytes, longest: int, what: str = "picture") -> Image.Image:
    """Return the first frame of a file, upright, in sRGB, on white, as RGB.

    longest: the limit of the longer side in pixels; a larger image is shrunk.
    what: the image's name in messages, such as "content image".
    Raises ApiError: image_unreadable, image_too_small, or image_too_large. The size is checked
    before any pixel is decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = open_image(data, what)
        check_size(image, what)
        try:
            # A JPEG can be decoded at a fraction of its size, where that suffices
            image.draft(None, (longest, longest))
            upright = ImageOps.exif_transpose(image) or image
            return to_rgb(upright, longest)
        except MemoryError:
            raise too_costly(what) from None
        except Exception:  # A decoder can raise anything on a damaged file
            raise unreadable(what) from None


def open_image(data: bytes, what: str) -> Image.Image:
    """Read a file's header only. Raises ApiError image_unreadable."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception:  # A decoder can raise anything on a damaged file
        raise unreadable(what) from None


def check_size(image: Image.Image, what: str) -> None:
    width, height = image.size
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        raise ApiError(
            ErrorCode.IMAGE_TOO_LARGE,
            f"The {what} has {width * height / 1e6:.0f} megapixels ({width}x{height}); "
            f"at most {MAX_MEGAPIXELS} are taken. Send a smaller one.",
        )
    if min(width, height) < MIN_SIDE:
        raise ApiError(
            ErrorCode.IMAGE_TOO_SMALL,
            f"The {what} is {width}x{height}; at least {MIN_SIDE} pixels are needed on each side.",
        )


def unreadable(what: str) -> ApiError:
    return ApiError(
        ErrorCode.IMAGE_UNREADABLE,
        f"The {what} could not be read as an image; it may be damaged or of another kind. "
        "JPEG, PNG, WebP, HEIC, AVIF, GIF, TIFF and BMP are understood.",
    )


def too_costly(what: str) -> ApiError:
    return ApiError(
        ErrorCode.IMAGE_UNREADABLE,
        f"The {what} would take too much time or memory to decode; "
        "save it again as an ordinary JPEG.",
    )


def to_rgb(image: Image.Image, longest: int) -> Image.Image:
    """Shrink any mode and convert it to 8-bit sRGB: 16 bits are scaled, alpha lies on white.

    The color profile comes last, as 40 megapixels would take seconds.
    """
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        full_scale = 65535 if image.mode.startswith("I;16") else None
        image = Image.fromarray(to_8_bits(np.asarray(image), full_scale))

    if image.mode in MODES_WITH_ALPHA or "transparency" in image.info:
        if image.mode != "RGBA":  # Pillow would copy it
            image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        image = white
    elif image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    return to_srgb(shrink(image, longest), profile)


def to_8_bits(pixels: np.ndarray, full_scale: float | None) -> np.ndarray:
    """Scale gray levels of 16 or 32 bits, or floats, to bytes.

    full_scale: the value of white. If the file leaves it open, the largest value decides.
    """
    # In place, as each copy of 40 megapixels takes 160 MB
    pixels = pixels.astype(np.float32)
    np.nan_to_num(pixels, copy=False, posinf=0, neginf=0)
    if full_scale is None:
        largest = float(pixels.max())
        full_scale = next((scale for scale in (1, 255, 65535) if largest <= scale), largest)
    pixels *= 255 / full_scale
    pixels += 0.5
    return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert from the file's color profile.

    A damaged profile, or one of another mode, is ignored.
    """
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(image, source, SRGB, outputMode="RGB") or image
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass
    return image.convert("RGB")


def shrink(image: Image.Image, longest: int) -> Image.Image:
    """Return `image` with at most `longest` pixels on its longer side."""
    if max(image.size) <= longest:
        return image
    scale = longest / max(image.size)
    width = max(1, round(image.width * scale))
    height = max(1, round(image.height * scale))
    return image.resize((width, height), Image.Resampling.LANCZOS)


def encode(image: Image.Image, content_type: str) -> bytes:
    """Return the image as a file of one of `ENCODINGS`, without metadata."""
    file_format, options = ENCODINGS[content_type]
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()
