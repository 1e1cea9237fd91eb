"""Pictures side by side."""

from PIL import Image, ImageDraw, ImageFont


def sheet(pictures: list[tuple[str, Image.Image]]) -> Image.Image:
    """The pictures side by side at one height, with their captions below."""
    height, gap, caption = 360, 16, 40
    scaled = [
        image.resize((round(image.width * height / image.height), height), Image.Resampling.LANCZOS)
        for _, image in pictures
    ]
    canvas = Image.new(
        "RGB", (sum(image.width + gap for image in scaled) + gap, height + gap + caption), "white"
    )
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(18)
    left = gap
    for (title, _), image in zip(pictures, scaled, strict=True):
        canvas.paste(image, (left, gap))
        draw.text(
            (left + image.width / 2, gap + height + caption / 2), title, "black", font, anchor="mm"
        )
        left += image.width + gap
    return canvas
