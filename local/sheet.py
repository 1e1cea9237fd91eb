"""Pictures side by side."""

from PIL import Image, ImageDraw, ImageFont

HEIGHT = 360
GAP = 16
CAPTION_HEIGHT = 40
FONT_SIZE = 18


def sheet(pictures: list[tuple[str, Image.Image]]) -> Image.Image:
    """Return the pictures side by side at one height, each with its caption below it."""
    scaled = [scale_to_height(image) for _, image in pictures]
    width = GAP + sum(image.width + GAP for image in scaled)
    canvas = Image.new("RGB", (width, HEIGHT + GAP + CAPTION_HEIGHT), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(FONT_SIZE)

    left = GAP
    for (caption, _), image in zip(pictures, scaled, strict=True):
        canvas.paste(image, (left, GAP))
        middle = (left + image.width / 2, GAP + HEIGHT + CAPTION_HEIGHT / 2)
        draw.text(middle, caption, "black", font, anchor="mm")
        left += image.width + GAP
    return canvas


def scale_to_height(image: Image.Image) -> Image.Image:
    width = round(image.width * HEIGHT / image.height)
    return image.resize((width, HEIGHT), Image.Resampling.LANCZOS)
