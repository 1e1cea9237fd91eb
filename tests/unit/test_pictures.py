"""Reading strangers' files and writing ours."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.JpegImagePlugin import JpegImageFile

from containers.serving import images
from containers.serving.errors import ApiError


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(width: int = 64, height: int = 48) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=2).astype(np.uint8))


def pixel(image: Image.Image, x: int, y: int) -> tuple[int, int, int]:
    value = image.getpixel((x, y))
    assert isinstance(value, tuple)
    red, green, blue = value
    return int(red), int(green), int(blue)


def refusal(data: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        images.decode(data, 2048, "content image")
    assert "content image" in caught.value.message
    return caught.value


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"])
def test_every_format_is_read(kind: str) -> None:
    decoded = images.decode(saved(photograph(), kind), 2048)
    assert (decoded.mode, decoded.size) == ("RGB", (64, 48))
    difference = np.abs(np.asarray(decoded, float) - np.asarray(photograph(), float)).mean()
    assert difference < (30 if kind == "GIF" else 6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = photograph()
    # The transposition that a camera would have made
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright
    if orientation > 1:
        stored = upright.transpose(Image.Transpose(inverse[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = images.decode(saved(stored, "PNG", exif=exif), 2048)
    assert decoded.size == upright.size
    assert np.array_equal(np.asarray(decoded), np.asarray(upright))


def grey_16(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image.convert("L")).astype(np.uint16)) * 257)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda image: image.convert("L"), "PNG"),
        (lambda image: image.convert("1"), "PNG"),
        (lambda image: image.convert("P"), "PNG"),
        (lambda image: image.convert("CMYK"), "JPEG"),
        (lambda image: image.convert("CMYK"), "TIFF"),
        (lambda image: image.convert("YCbCr"), "JPEG"),
        (lambda image: image.convert("LAB"), "TIFF"),
        (grey_16, "PNG"),
        (grey_16, "TIFF"),
        (lambda image: image.convert("F"), "TIFF"),
        (lambda image: image.convert("I"), "TIFF"),
    ],
)
def test_every_mode_becomes_rgb_of_the_same_brightness(
    make: Callable[[Image.Image], Image.Image], kind: str
) -> None:
    decoded = images.decode(saved(make(photograph()), kind), 2048)
    assert decoded.mode == "RGB"
    brightness = np.asarray(photograph().convert("L")).mean()
    assert np.asarray(decoded.convert("L")).mean() == pytest.approx(brightness, abs=8)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white(mode: str) -> None:
    image = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    image.paste((0, 0, 0, 255), (16, 0, 32, 32))
    if mode == "LA":
        data = saved(image.convert("LA"), "PNG")
    elif mode == "P":
        palette = Image.new("P", (32, 32), 1)
        palette.putpalette([0, 0, 0, 255, 0, 0])
        palette.paste(0, (16, 0, 32, 32))
        data = saved(palette, "PNG", transparency=1)
    else:
        data = saved(image, "PNG")
    decoded = images.decode(data, 2048)
    assert decoded.getpixel((4, 16)) == (255, 255, 255)
    assert decoded.getpixel((28, 16)) == (0, 0, 0)


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        data = saved(
            frames[0],
            kind,
            save_all=True,
            append_images=frames[1:],
            **({"lossless": True} if kind == "WEBP" else {}),
        )
        red, green, blue = pixel(images.decode(data, 2048), 16, 16)
        assert red > 200, kind
        assert green < 60, kind
        assert blue < 60, kind


def test_a_colour_profile_is_converted_to_srgb() -> None:
    lab = ImageCms.createProfile("LAB")
    wide = ImageCms.ImageCmsProfile(lab).tobytes()
    data = saved(Image.new("RGB", (32, 32), (200, 100, 50)), "PNG", icc_profile=wide)
    # A profile of another mode is ignored
    assert images.decode(data, 2048).getpixel((0, 0)) == (200, 100, 50)
    data = saved(Image.new("RGB", (32, 32), (200, 100, 50)), "PNG", icc_profile=b"no profile")
    assert images.decode(data, 2048).getpixel((0, 0)) == (200, 100, 50)
    lab_image = ImageCms.profileToProfile(
        Image.new("RGB", (32, 32), (200, 100, 50)),
        ImageCms.createProfile("sRGB"),
        lab,
        outputMode="LAB",
    )
    assert lab_image is not None
    decoded = images.decode(saved(lab_image, "TIFF", icc_profile=wide), 2048)
    assert np.abs(np.array(pixel(decoded, 0, 0)) - (200, 100, 50)).max() <= 4


def test_a_large_photograph_is_shrunk_while_it_is_read() -> None:
    decoded = images.decode(saved(photograph(4000, 3000), "JPEG"), 800)
    assert decoded.size == (800, 600)
    assert images.decode(saved(photograph(3000, 16), "PNG"), 100).size == (100, 1)


def bomb(width: int, height: int) -> bytes:
    """A PNG of some hundred bytes that says it has `width` x `height` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def test_too_large_and_too_small_are_told_apart_from_unreadable() -> None:
    too_large = refusal(bomb(8000, 5001))
    assert (too_large.status, too_large.code) == (413, "image_too_large")
    assert refusal(bomb(60_000, 60_000)).code == "image_too_large"
    too_small = refusal(bomb(15, 400))
    assert (too_small.status, too_small.code) == (422, "image_too_small")
    assert images.decode(saved(photograph(16, 16), "PNG"), 2048).size == (16, 16)


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"%PDF-1.4", b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xff\xd8\xff\xe0"],
)
def test_what_is_no_photograph_is_refused(data: bytes) -> None:
    error = refusal(data)
    assert (error.status, error.code) == (422, "image_unreadable")


SAMPLES = {
    kind: saved(photograph(), kind)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
}


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(SAMPLES)),
    st.floats(0, 1),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
)
def test_a_damaged_file_is_read_or_refused_but_never_breaks(
    kind: str, kept: float, flips: list[tuple[float, int]]
) -> None:
    data = bytearray(SAMPLES[kind])
    for where, value in flips:
        data[int(where * len(data))] = value
    try:
        outcome = images.decode(bytes(data[: int(kept * len(data))]), 2048).mode
    except ApiError as error:
        outcome = error.code
    assert outcome in ("RGB", "image_unreadable", "image_too_large", "image_too_small")


@pytest.mark.parametrize(
    ("content_type", "kind"), [("image/jpeg", "JPEG"), ("image/png", "PNG"), ("image/webp", "WEBP")]
)
def test_pictures_leave_without_metadata(content_type: str, kind: str) -> None:
    image = photograph()
    image.info["exif"] = b"Exif\0\0secret place"
    encoded = images.encode(image, content_type)
    written = Image.open(io.BytesIO(encoded))
    assert written.format == kind
    assert b"secret place" not in encoded
    assert not written.getexif()
    assert np.abs(np.asarray(written, float) - np.asarray(image, float)).mean() < 3
    if kind == "JPEG":
        # 4:4:4: color is not subsampled
        assert isinstance(written, JpegImageFile)
        assert written.layer[0][1:3] == written.layer[1][1:3]
