"""The losses of a training as a picture: logarithmic, over minutes."""

import math

from PIL import Image, ImageDraw, ImageFont

from .loop import Losses

SIZE = (900, 500)
# Left, top, right and bottom of the frame
FRAME = (90, 40, 870, 440)
COLORS = ("#1f4e79", "#c0392b", "#27833b", "#8e44ad", "#b9770e")
FONT_SIZE = 16


def draw_curve(points: list[tuple[int, float, Losses]]) -> Image.Image:
    """Return the plot of (step, seconds, losses) at two points or more."""
    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(FONT_SIZE)
    names = list(points[0][2])
    values = [losses[name] for _, _, losses in points for name in names if losses[name] > 0]
    low = math.floor(math.log10(min(values)))
    high = max(low + 1, math.ceil(math.log10(max(values))))
    last_minute = points[-1][1] / 60

    left, top, right, bottom = FRAME

    def x_of(seconds: float) -> float:
        return left + (right - left) * seconds / 60 / max(last_minute, 1e-9)

    def y_of(loss: float) -> float:
        share = (math.log10(max(loss, 10.0**low)) - low) / (high - low)
        return bottom - (bottom - top) * share

    for power in range(low, high + 1):
        y = y_of(10.0**power)
        draw.line((left, y, right, y), "#dddddd")
        draw.text((left - 10, y), f"{10.0**power:g}", "black", font, anchor="rm")
    for number in range(6):
        minutes = last_minute * number / 5
        x = x_of(60 * minutes)
        draw.line((x, bottom, x, bottom + 6), "black")
        draw.text((x, bottom + 12), f"{minutes:.1f}", "black", font, anchor="mt")
    draw.rectangle(FRAME, outline="black")
    draw.text(((left + right) / 2, bottom + 34), "minutes of training", "black", font, anchor="mt")

    for number, name in enumerate(names):
        color = COLORS[number % len(COLORS)]
        line = [(x_of(seconds), y_of(losses[name])) for _, seconds, losses in points]
        draw.line(line, color, width=2, joint="curve")
        draw.text((right - 150, top + 12 + 22 * number), name, color, font)
    return image
