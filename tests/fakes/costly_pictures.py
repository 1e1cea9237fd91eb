"""Small files that are costly to decode, each made by code."""

import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image
from pillow_heif import register_heif_opener

register_heif_opener()

# 39.9 megapixels: just what is allowed.
SIDE = 6320


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


# --- JPEG ---


def progressive_jpeg(scans: int = 1500) -> bytes:
    """A progressive JPEG of 84 bytes a scan. Each scan says of every block that it stays as it is.

    1,500 scans take 17 s, 4,500 take 94 s.
    """
    header = marker(0xC2, struct.pack(">BHHB3B", 8, SIDE, SIDE, 1, 1, 0x11, 0))
    quantization = marker(0xDB, b"\0" + b"\1" * 64)
    # One symbol with the code 0: 14 bits follow, and so many blocks + 16384 are at their end
    huffman = marker(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\xe0")
    blocks = ((SIDE + 7) // 8) ** 2
    bits = -(-blocks // 16384) * 15
    scan = marker(0xDA, bytes([1, 1, 0x00, 1, 63, 0])) + bytes(bits // 8 + 1)
    return b"\xff\xd8" + quantization + huffman + header + scan * scans + b"\xff\xd9"


def jpeg_of_markers(count: int) -> bytes:
    """A JPEG with so many empty comments before its picture."""
    picture = saved(Image.new("RGB", (64, 64), "teal"), "JPEG")
    return picture[:2] + marker(0xFE, b"") * count + picture[2:]


def marker(kind: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, kind, len(data) + 2) + data


# --- GIF ---


def gif_of_comments(count: int = 600_000) -> bytes:
    """A GIF of 5 bytes a comment. Pillow joins each to all before: 600,000 take 150 s."""
    picture = saved(Image.new("P", (64, 64)), "GIF")
    # After the header and the color table
    start = 13 + 3 * 2 ** ((picture[10] & 7) + 1) if picture[10] & 0x80 else 13
    return picture[:start] + b"\x21\xfe\x01a\0" * count + picture[start:]


def gif_of_frames(count: int = 1000) -> bytes:
    frames = [Image.new("RGB", (64, 64), (number % 256, 0, 0)) for number in range(count)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


# --- BMP ---


def bmp_of_deltas(width: int = 2_400_000, height: int = 16) -> bytes:
    """A BMP of 1,082 bytes with run lengths, and one jump over 255 lines: 612 MB of zeros."""
    return bmp(width, height, b"\0\2\xff\xff")


def bmp(width: int, height: int, data: bytes) -> bytes:
    palette = bytes(1024)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    offset = 14 + len(info) + len(palette)
    header = b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset)
    return header + info + palette + data


# --- PNG ---


def png(width: int, height: int, mode: int = 6, depth: int = 8, extra: bytes = b"") -> bytes:
    """A PNG of one color: 40 megapixels in 155 kB.

    mode: 0 for gray, 2 for RGB, 6 for RGB with alpha. extra: chunks before the pixels.
    """
    channels = {0: 1, 2: 3, 6: 4}[mode]
    line = b"\0" * (1 + width * channels * depth // 8)
    compressor = zlib.compressobj(9)
    pixels = b"".join([compressor.compress(line) for _ in range(height)]) + compressor.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, mode, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_texts(kind: bytes) -> bytes:
    """A PNG with 200 texts that become 1 MB each. kind: b"zTXt" or b"iTXt"."""
    text = zlib.compress(b"a" * 1_000_000)
    start = b"key\0\0" if kind == b"zTXt" else b"key\0\1\0\0\0"
    return png(64, 64, extra=chunk(kind, start + text) * 200)


def png_with_profile(size: int = 200 << 20) -> bytes:
    return png(64, 64, extra=chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(size), 9)))


# --- TIFF ---


def tiff(width: int, height: int, tags: dict[int, list[int]], more: bytes = b"") -> bytes:
    """A gray TIFF. tags: numbers of 32 bits by the tag's number; `more` comes at offset 8."""
    entries: dict[int, list[int]] = {
        256: [width],
        257: [height],
        258: [8],
        259: [1],
        262: [1],
        277: [1],
        **tags,
    }
    values = more
    directory = struct.pack("<H", len(entries))
    for tag, numbers in sorted(entries.items()):
        if len(numbers) == 1:
            directory += struct.pack("<HHII", tag, 4, 1, numbers[0])
            continue
        directory += struct.pack("<HHII", tag, 4, len(numbers), 8 + len(values))
        values += struct.pack(f"<{len(numbers)}I", *numbers)
    return b"II*\0" + struct.pack("<I", 8 + len(values)) + values + directory + bytes(4)


def tiff_of_strips() -> bytes:
    """A line in each strip, all at the same place."""
    line = bytes(SIDE)
    tags = {273: [8] * SIDE, 278: [1], 279: [SIDE] * SIDE}
    return tiff(SIDE, SIDE, tags, line)


def tiff_of_tiles() -> bytes:
    """150,000 tiles of 16x16, all at the same place."""
    count = (SIDE // 16) ** 2
    tags = {322: [16], 323: [16], 324: [8] * count, 325: [256] * count}
    return tiff(SIDE // 16 * 16, SIDE // 16 * 16, tags, bytes(256))


def tiff_of_tiny_tiles() -> bytes:
    """A million tiles of one pixel."""
    tags = {322: [1], 323: [1], 324: [8] * 1_000_000, 325: [1] * 1_000_000}
    return tiff(1000, 1000, tags, bytes(16))


def tiff_in_a_circle() -> bytes:
    """A TIFF whose next directory is its first one, and whose tags are nowhere."""
    data = tiff(64, 64, {273: [8], 278: [64], 279: [4096], 34665: [8], 330: [8]}, bytes(4096))
    return data[:-4] + data[4:8]


def tiff_of_tags(count: int = 64_000) -> bytes:
    return tiff(64, 64, {1000 + number: [7] for number in range(count)}, bytes(4096))


def tiff_deflated() -> bytes:
    """40 megapixels in one strip of zeros."""
    data = zlib.compress(bytes(SIDE * SIDE), 9)
    tags = {259: [8], 273: [8], 278: [SIDE], 279: [len(data)]}
    return tiff(SIDE, SIDE, tags, data)


def tiff_of_floats() -> bytes:
    """40 megapixels of 32 bits."""
    return saved(Image.new("F", (SIDE, SIDE)), "TIFF", compression="tiff_adobe_deflate")


# --- others ---


def webp() -> bytes:
    return saved(Image.new("RGBA", (SIDE, SIDE)), "WEBP", lossless=True, quality=0, method=0)


def avif() -> bytes:
    return saved(Image.new("RGB", (SIDE, SIDE)), "AVIF", speed=10, quality=10)


def heif_that_says(width: int, height: int) -> bytes:
    """A HEIC of 64x64 whose header says another size."""
    data = saved(Image.new("RGB", (64, 64), "teal"), "HEIF")
    return data.replace(
        b"ispe" + struct.pack(">III", 0, 64, 64), b"ispe" + struct.pack(">III", 0, width, height)
    )


# By a name for messages. Each is at most 40 megapixels and 20 MB.
COSTLY: dict[str, Callable[[], bytes]] = {
    "progressive JPEG": progressive_jpeg,
    "progressive JPEG of 4,500 scans": lambda: progressive_jpeg(4500),
    "JPEG of markers": lambda: jpeg_of_markers(4_000_000),
    "GIF of comments": gif_of_comments,
    "GIF of frames": gif_of_frames,
    "BMP of deltas": bmp_of_deltas,
    "PNG with alpha": lambda: png(SIDE, SIDE),
    "PNG of 16 bits": lambda: png(SIDE, SIDE, mode=0, depth=16),
    "PNG, wide": lambda: png(2_490_000, 16),
    "PNG, high": lambda: png(16, 2_490_000),
    "PNG of zTXt": lambda: png_of_texts(b"zTXt"),
    "PNG of iTXt": lambda: png_of_texts(b"iTXt"),
    "PNG with a large profile": png_with_profile,
    "TIFF of strips": tiff_of_strips,
    "TIFF of tiles": tiff_of_tiles,
    "TIFF of tiny tiles": tiff_of_tiny_tiles,
    "TIFF in a circle": tiff_in_a_circle,
    "TIFF of tags": tiff_of_tags,
    "TIFF deflated": tiff_deflated,
    "TIFF of floats": tiff_of_floats,
    "WebP": webp,
    "AVIF": avif,
    "HEIC that says it is large": lambda: heif_that_says(SIDE, SIDE),
    "HEIC that says it is small": lambda: heif_that_says(20, 20),
}
