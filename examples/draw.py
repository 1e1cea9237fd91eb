"""Draw the style pictures of the examples, so that they belong to the project.

    python examples/draw.py                     # every picture, into examples/styles/
    python examples/draw.py swirls --size 1200  # one of them, larger

Each style is one function: it composes a scene as plain arrays (what colour, in which direction)
and hands it to a brush, a block print or a mosaic. Lengths are in units of the picture's width,
pictures are drawn at twice their size and shrunk, and every random choice comes from a seeded
generator.
"""

import argparse
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = NDArray[Any]
OVERSAMPLING = 2

# ---------------------------------------------------------------- tools shared by all pictures


def hexes(codes: str) -> Array:
    """Colours (n, 3) in 0..255 from words such as "0b1640 1d3c8f"."""
    rows = [[int(code[i : i + 2], 16) for i in (0, 2, 4)] for code in codes.split()]
    return np.array(rows, float)


def ramp(values: Array | float, colours: Array) -> Array:
    """Return colours (..., 3) at `values` in 0..1 along a palette (n, 3), interpolated."""
    stops = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(values, stops, channel) for channel in colours.T], axis=-1)


def mix(a: Array, b: Array, weight: Array) -> Array:
    """Return `a` where weight (h, w) is 0 or False, `b` where it is 1.

    a, b: (h, w, 3), or one colour (3,).
    """
    result: Array = a + (b - a) * weight[..., None]
    return result


def smoothstep(values: Array, low: float, high: float) -> Array:
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def plane(width: int, aspect: float) -> tuple[Array, Array]:
    """Coordinates x in 0..1 and y in 0..aspect, each (aspect * width, width)."""
    y, x = np.mgrid[: round(width * aspect), :width] / width
    return x, y


def resized(values: Array, shape: tuple[int, int]) -> Array:
    """Values (h, w) at another shape (h, w)."""
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize(shape[::-1], Image.Resampling.BICUBIC))


def as_image(colours: Array) -> Image.Image:
    return Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))


def inside(shape: tuple[int, int], outline: Array) -> Array:
    """1 inside the polygon (n, 2) in units of the width, else 0, as an (h, w) array."""
    mask = Image.new("L", shape[::-1])
    ImageDraw.Draw(mask).polygon((outline * shape[1]).ravel().tolist(), fill=1)
    return np.asarray(mask, float)


def noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    cell: float,
    stretch: float = 1,
    octaves: int = 3,
) -> Array:
    """Smooth noise (h, w) of about unit variance; `cell` is its grain in units of the width."""
    total = np.zeros(shape)
    for octave in range(octaves):
        step = cell * shape[1] / 2**octave
        grid = (int(shape[0] / step) + 3, int(shape[1] / step / stretch) + 3)
        total += resized(rng.normal(size=grid), shape) / 2**octave
    result: Array = total / total.std()
    return result


def blurred(values: Array, sigma: float) -> Array:
    """Gaussian blur of an (h, w) array, sigma in pixels, borders wrapped."""
    fy = np.fft.fftfreq(values.shape[0])[:, None]
    fx = np.fft.rfftfreq(values.shape[1])[None]
    kernel = np.exp(-2 * (np.pi * sigma) ** 2 * (fy**2 + fx**2))
    return np.fft.irfft2(np.fft.rfft2(values) * kernel, s=values.shape)


def sample(values: Array, points: Array) -> Array:
    """Values at the pixels (..., 2) as x, y, clamped to the picture."""
    h, w = values.shape[:2]
    column = np.clip(points[..., 0], 0, w - 1).astype(int)
    row = np.clip(points[..., 1], 0, h - 1).astype(int)
    result: Array = values[row, column]
    return result


def trace(start: Array, angle: Array, step: float, steps: int) -> Array:
    """Return paths (n, steps + 1, 2) along the directions (h, w) from n points in pixels."""
    path = [start]
    for _ in range(steps):
        direction = sample(angle, path[-1])
        path.append(path[-1] + step * np.stack([np.cos(direction), np.sin(direction)], axis=-1))
    return np.stack(path, axis=1)


def combed(values: Array, angle: Array, reach: float, steps: int = 24) -> Array:
    """Average values (h, w) along the directions, `reach` pixels each way: noise becomes hair."""
    h, w = values.shape
    total = values.copy()
    for sign in (1, -1):
        grid = np.meshgrid(np.arange(w, dtype=float), np.arange(h, dtype=float))
        points = np.stack(grid, axis=-1)
        for _ in range(steps):
            direction = sample(angle, points)
            unit = np.stack([np.cos(direction), np.sin(direction)], axis=-1)
            points += sign * reach / steps * unit
            total += sample(values, points)
    result: Array = (total - total.mean()) / total.std()
    return result


def spline(points: Array, count: int = 160) -> Array:
    """A smooth curve (count, 2) through the points (n, 2): Catmull-Rom."""
    p = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    u = np.linspace(0, len(points) - 1 - 1e-9, count)
    i = u.astype(int)
    f = (u % 1)[:, None]
    a, b, c, d = (p[i + k] for k in range(4))
    result: Array = b + 0.5 * f * (
        c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a))
    )
    return result


def polar(centre: Array, radius: Array | float, turn: Array | float) -> Array:
    """Points (..., 2) at these distances and angles from a centre."""
    x, y = np.broadcast_arrays(radius * np.cos(turn), radius * np.sin(turn))
    result: Array = centre + np.stack([x, y], axis=-1)
    return result


def disc(centre: Array, radius: float) -> Array:
    return polar(centre, radius, np.linspace(0, 2 * np.pi, 14))


# ---------------------------------------------------------------- oil paint


class Canvas:
    """Wet oil paint: its colour, and its thickness, which the light will rake across."""

    def __init__(self, ground: Array) -> None:
        self.colour = as_image(ground)
        self.relief = Image.new("L", self.colour.size, 90)

    def lit(self, strength: float = 1) -> Image.Image:
        """The painting under a lamp at the upper left."""
        w, _ = self.colour.size
        height = blurred(np.asarray(self.relief, float), w / 1600)
        slope_y, slope_x = np.gradient(height)
        slope = np.tanh((slope_x + 1.4 * slope_y) * strength / 30)[..., None]
        colour = np.asarray(self.colour, float)
        dark = colour * (1 + 0.5 * slope)
        light = colour + (255 - colour) * 0.45 * slope
        return as_image(np.where(slope < 0, dark, light))


def brush(
    canvas: Canvas, rng: np.random.Generator, path: Array, width: float, colour: Array
) -> None:
    """Draw a stroke along a path (n, 2): bristles with ragged ends, each with its own paint."""
    pen = ImageDraw.Draw(canvas.colour)
    chisel = ImageDraw.Draw(canvas.relief)
    tangent = np.gradient(path, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9
    bristles = max(4, round(width / 3.2))
    across = np.linspace(-1, 1, bristles)
    # paint is pushed to the rims of a stroke, and bristles leave grooves
    thickness = rng.uniform(70, 150) + 45 * across**4 + rng.normal(0, 26, bristles)
    shade = rng.normal(0, 0.10, bristles) - 0.07 * across
    ends = (1 - np.sqrt(1 - 0.95 * across**2)) * width / 2 / (np.linalg.norm(tangent[0]) + 1e-9)
    ends = ends[:, None] + np.abs(rng.normal(0, 0.06 * len(path), (bristles, 2)))
    for i in rng.permutation(bristles):
        first = round(ends[i, 0])
        last = len(path) - round(ends[i, 1])
        if last - first < 2:
            continue
        line = (path[first:last] + normal[first:last] * across[i] * width / 2).ravel().tolist()
        paint = np.clip(colour * (1 + shade[i]) + rng.normal(0, 4, 3), 0, 255).astype(int)
        thick = round(width / bristles * 1.7) + 1
        pen.line(line, fill=tuple(paint.tolist()), width=thick)
        chisel.line(line, fill=int(np.clip(thickness[i], 0, 255)), width=thick)


def paint(
    canvas: Canvas,
    rng: np.random.Generator,
    scene: Array,
    angle: Array,
    width: float,
    length: float,
    cover: float = 2,
    where: Array | None = None,
    jitter: float = 12,
) -> None:
    """A layer of strokes over the scene (h, w, 3), laid along angle (h, w).

    `width` and `length` of a stroke are in units of the picture's width; `cover` is how many
    strokes lie over a point on average; `where` (h, w) in 0..1 is the chance that a stroke starts
    there.
    """
    h, w = angle.shape
    count = int(cover * h / w / (width * length))
    start = rng.uniform(-0.02, 1.02, (count, 2)) * (w, h)
    if where is not None:
        start = start[rng.uniform(size=count) < sample(where, start)]
    steps = max(4, round(length / width * 3))
    sizes = width * w * rng.uniform(0.7, 1.25, len(start))
    ahead, behind = (trace(start, angle, sign * length * w / steps / 2, steps) for sign in (1, -1))
    paths = np.concatenate([behind[:, :0:-1], ahead], axis=1)
    colours = sample(scene, start) * rng.normal(1, jitter / 160, (len(start), 1))
    colours += rng.normal(0, jitter, colours.shape)
    for path, size, colour in zip(paths, sizes, colours, strict=True):
        brush(canvas, rng, path, size, colour)


def swirls(width: int, rng: np.random.Generator) -> Image.Image:
    """A night wind over a lake, in thick oil."""
    x, y = plane(width, 0.8)
    shape = x.shape

    # The wind is the curl of a stream function: a steady breeze, eddies, and a small eddy around
    # each light.
    stream = -(y + 0.035 * np.sin(7 * x + 1) + 0.02 * np.sin(13 * x - 9 * y))
    spiral = np.zeros(shape)
    eddies = [(0.43, 0.27, 0.105, 1), (0.63, 0.33, 0.075, -1)]
    eddies += [(0.10, 0.40, 0.08, -1), (0.93, 0.42, 0.07, 1)]
    for cx, cy, radius, spin in eddies:
        bump = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * radius**2))
        stream += spin * radius * 4.5 * bump
        spiral += -spin * 0.22 * bump
    lights = [
        (0.83, 0.14, 0.050),
        (0.17, 0.13, 0.026),
        (0.31, 0.08, 0.017),
        (0.60, 0.09, 0.022),
        (0.27, 0.43, 0.018),
        (0.50, 0.45, 0.014),
        (0.045, 0.24, 0.016),
        (0.70, 0.23, 0.013),
        (0.79, 0.40, 0.019),
        (0.96, 0.30, 0.014),
    ]
    for cx, cy, radius in lights:
        stream += radius * 11 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * (1.8 * radius) ** 2))
    along_y, along_x = np.gradient(stream)
    angle = np.arctan2(-along_x, along_y) + spiral

    hair = combed(noise(rng, shape, 0.035), angle, 0.12 * width)
    blues = hexes("0a1238 12205c 183388 2450ab 3a78c4 6aa9d6 b4d8dc e8e6b8")
    bright = 0.33 + 0.17 * hair + 1.4 * np.abs(spiral) + 0.4 * smoothstep(y, 0.36, 0.58)
    scene = ramp(bright, blues)
    gold = hexes("fffbe0 fff0a8 ffd75a f5ac2c e39a34 e8c860 a9b070 4f86a8")
    for cx, cy, radius in lights:
        distance = np.hypot(x - cx, y - cy) / radius + 0.15 * hair
        scene = mix(scene, ramp(distance / 3.4, gold), 1 - smoothstep(distance, 2.2, 3.5))

    canvas = Canvas(scene)
    paint(canvas, rng, scene, angle, 0.030, 0.13, cover=2.5)
    paint(canvas, rng, scene, angle, 0.017, 0.09, cover=2.0)
    paint(canvas, rng, scene, angle, 0.010, 0.05, cover=1.4)

    # Two ranges of hills, then the lake, each painted over what lies behind it.
    greens = hexes("050a20 0a1a34 0f2c40 1a4a4c 3a7458 86a865")
    for height, roll, haze in [(0.575, 0.040, 0.5), (0.635, 0.028, 0.0)]:
        ridge = height + roll * np.sin(8 * x + 40 * height) + 0.4 * roll * np.sin(19 * x + height)
        slope = np.arctan(np.gradient(ridge, axis=1) * width) + 0.35 * np.sin(14 * x + 3)
        fur = combed(noise(rng, shape, 0.03), slope, 0.08 * width)
        land = ramp(0.33 + 0.17 * fur + 0.2 * haze - 2.2 * (y - ridge), greens)
        land = mix(land, hexes("23489a")[0], np.full(shape, haze))
        paint(canvas, rng, land, slope, 0.016, 0.06, cover=3, where=y > ridge + 0.008)
        paint(canvas, rng, land, slope, 0.009, 0.04, cover=2, where=y > ridge)

    shore = 0.675 + 0.012 * np.sin(5 * x + 2)
    level = 0.10 * np.sin(16 * x + 30 * y)
    ripple = combed(noise(rng, shape, 0.02, stretch=4), level, 0.06 * width)
    lake = ramp(0.34 + 0.17 * ripple - 1.5 * (y - 0.72), blues)
    for cx, _, radius in lights:
        track = np.exp(-(((x - cx - 0.006 * ripple) / (0.008 + 0.5 * radius)) ** 2))
        lake = mix(lake, hexes("f6c34a")[0], track * smoothstep(ripple, -1.2, 0))
    paint(canvas, rng, lake, level, 0.016, 0.08, cover=3, where=y > shore + 0.006)
    paint(canvas, rng, lake, level, 0.009, 0.04, cover=2, where=y > shore)
    return canvas.lit()


def dabs(width: int, rng: np.random.Generator) -> Image.Image:
    """A harbour at sunset, in small touches of unmixed colour."""
    x, y = plane(width, 0.8)
    shape = x.shape
    horizon = 0.46
    sun_x = 0.60
    sun_y = 0.345
    cloud = noise(rng, shape, 0.10, stretch=3)
    glow = hexes("fffbd0 ffe98a ffc95e ff9f5a f7848a d77fb4 9a86cc 6f9fd8 58bcd0 3f9fc4")
    from_sun = np.hypot(x - sun_x, 1.25 * (y - sun_y))
    sky = ramp(1.15 * from_sun**0.8 + 0.07 * cloud, glow)

    # The water mirrors the sky, a little deeper and broken by ripples.
    across = (x - sun_x) * (1 - 0.5 * smoothstep(y, horizon, 0.8))
    mirrored = np.hypot(across, 0.7 * (y - horizon) + 0.11)
    ripple = noise(rng, shape, 0.022, stretch=5)
    water = ramp(1.45 * mirrored**0.75 + 0.08 * ripple, 0.80 * glow + hexes("001030")[0])
    track = np.exp(-(((x - sun_x) / (0.035 + 0.20 * (y - horizon))) ** 2))
    track = track * smoothstep(ripple, -0.4, 0.9)
    water = mix(water, hexes("fff0a0")[0], 0.9 * track)
    scene = mix(sky, water, y > horizon)
    disc = np.hypot(x - sun_x, y - sun_y)
    scene = mix(scene, hexes("fffde8")[0], 1 - smoothstep(disc, 0.040, 0.048))

    for centre, height, hues in [
        (0.02, 0.12, "9a86d0 8a7cc8 b58ac4"),
        (0.24, 0.06, "5a55ac 4c5fb8 7a5aa8"),
    ]:
        hill = np.clip(1 - np.abs(x - centre) / 0.34, 0, 1) ** 1.3
        ridge = horizon - height * hill - 0.006 * np.sin(40 * x)
        scene = mix(scene, ramp(0.5 + 0.25 * cloud, hexes(hues)), (y > ridge) & (y < horizon))
    boats = np.zeros(shape)
    for outline, colour, keel in sails():
        there = inside(shape, outline)
        scene = mix(scene, colour + 14 * cloud[..., None], there)
        boats = np.maximum(boats, there)
        mirror_image = (outline - (0, keel)) * (1, -0.9) + (0, keel)
        shaken = inside(shape, mirror_image) * smoothstep(ripple, -0.9, 0.3)
        scene = mix(scene, colour * 0.85, shaken * (y > keel))

    around_sun = np.arctan2(y - sun_y, x - sun_x) + np.pi / 2
    angle = np.where(y < horizon, around_sun, 0.08 * np.sin(20 * x + 50 * y))
    canvas = Canvas(scene)
    paint(canvas, rng, scene, angle, 0.020, 0.040, cover=2.0, jitter=12)
    paint(canvas, rng, scene, angle, 0.0115, 0.021, cover=2.6, jitter=17)
    upright = np.where(y < horizon, 1.9, 0)
    paint(canvas, rng, scene, upright, 0.007, 0.013, cover=4, where=boats, jitter=13)
    pine(canvas, rng, x, y)
    return canvas.lit(0.8)


def sails() -> list[tuple[Array, Array, float]]:
    """Return the parts of four boats from back to front.

    Each has an outline (n, 2), a colour, and the height of the water line.
    """
    main = np.array([(0.0, -1.25), (0.03, -0.10), (0.52, -0.14), (0.36, -0.55)])
    jib = np.array([(-0.03, -1.12), (-0.42, -0.10), (-0.04, -0.12)])
    hull = np.array([(-0.50, -0.09), (0.56, -0.09), (0.44, 0.06), (-0.36, 0.06)])
    violet, red, warm, cool, night = hexes("43358f c23a2c d8582e 5a55a8 1b1a48")
    parts = []
    for x, y, size, main_sail, fore_sail in [
        (0.335, 0.468, 0.050, violet, cool),
        (0.43, 0.475, 0.075, red, warm),
        (0.90, 0.472, 0.060, red, violet),
        (0.76, 0.500, 0.170, violet, warm),
    ]:
        for outline, colour in [(main, main_sail), (jib, fore_sail), (hull, night)]:
            parts.append((outline * size + (x, y), colour, y))
    return parts


def pine(canvas: Canvas, rng: np.random.Generator, x: Array, y: Array) -> None:
    """Draw a pine that leans in from the left: trunk and boughs, then clumps of needles."""
    bark = hexes("2a1c4a 5a2c5a 8a4a4a c8703c")
    for thick, points in [
        (0.016, [(0.045, 0.82), (0.075, 0.60), (0.115, 0.40), (0.165, 0.26), (0.24, 0.15)]),
        (0.010, [(0.10, 0.46), (0.06, 0.32), (0.03, 0.20)]),
        (0.009, [(0.135, 0.33), (0.20, 0.275), (0.275, 0.235)]),
    ]:
        bough = spline(np.array(points), 24)
        for _ in range(50):
            start = rng.integers(0, 18)
            path = bough[start : start + 6] + rng.normal(0, 0.35 * thick, 2)
            colour = ramp(rng.uniform(), bark)
            brush(canvas, rng, path * x.shape[1], 0.6 * thick * x.shape[1], colour)
    clumps = [(0.03, 0.20, 0.11), (0.15, 0.10, 0.13), (0.28, 0.09, 0.11), (0.34, 0.205, 0.085)]
    clumps += [(0.20, 0.215, 0.08), (0.07, 0.06, 0.12), (0.40, 0.10, 0.06)]
    ragged = noise(rng, x.shape, 0.05)
    speckle = noise(rng, x.shape, 0.02)
    needles = np.zeros(x.shape)
    light = np.zeros(x.shape)
    for cx, cy, radius in clumps:
        dx = (x - cx) / radius
        dy = (y - cy) / (0.48 * radius)
        clump = smoothstep(1 - dx**2 - dy**2 + 0.22 * ragged, 0.0, 0.25)
        needles = np.maximum(needles, clump)
        light += (0.38 + 0.22 * dx + 0.16 * dy + 0.12 * speckle - light) * clump
    foliage = ramp(light, hexes("101c3c 1c2c5c 1f4a58 2c6e56 5a8e4a b0a440 e8963c"))
    fanned = np.arctan2(y - 0.30, x - 0.16)
    paint(canvas, rng, foliage, fanned, 0.012, 0.022, cover=4.5, where=needles, jitter=16)


# ---------------------------------------------------------------- woodblock print


def ribbon(path: Array, widths: Array) -> Array:
    """The outline of a path (n, 2) with the given width (n,) at each point."""
    tangent = np.gradient(path, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=-1)
    normal *= (widths / 2 / (np.linalg.norm(normal, axis=-1) + 1e-9))[:, None]
    return np.concatenate([path + normal, (path - normal)[::-1]])


class Print:
    """A woodblock print: blocks of flat colour, and a key block that carries the lines."""

    def __init__(self, ground: Array) -> None:
        self.blocks = as_image(ground)
        self.key = Image.new("L", self.blocks.size)
        self.colour = ImageDraw.Draw(self.blocks)
        self.line = ImageDraw.Draw(self.key)

    def fill(self, outline: Array, colour: Array, edge: float = 0) -> None:
        """Print a flat shape (n, 2) that hides the lines behind it. edge: width of its outline."""
        points = (outline * self.blocks.width).ravel().tolist()
        self.colour.polygon(points, fill=tuple(colour.astype(int).tolist()))
        self.line.polygon(points, fill=0)
        if edge:
            self.line.line(points + points[:4], 255, round(edge * self.key.width), "curve")

    def cut(self, path: Array, width: float) -> None:
        """A line that swells and tapers."""
        swell = width * (0.25 + 0.75 * np.sin(np.pi * np.linspace(0.06, 0.94, len(path))))
        self.line.polygon((ribbon(path, swell) * self.key.width).ravel().tolist(), fill=255)

    def pulled(self, rng: np.random.Generator, ink: Array) -> Image.Image:
        """Return the print on its paper, with mottled ink, grain, and blocks slightly shifted."""
        shape = self.key.size[::-1]
        mottle = noise(rng, shape, 0.012)
        grain = noise(rng, shape, 0.004, stretch=40)
        fibre = noise(rng, shape, 0.003)
        slip = 1 + shape[1] // 1600
        shifted = np.asarray(self.blocks, float)[:-slip, slip:]
        colour = np.pad(shifted, ((slip, 0), (0, slip), (0, 0)), "edge")
        worn = 0.10 + 0.035 * mottle + 0.045 * grain + 0.02 * fibre
        colour = mix(colour, hexes("f4e8cc")[0], np.clip(worn, 0, 1))
        lines = blurred(np.asarray(self.key, float) / 255, 1.2)
        inked = smoothstep(lines + 0.05 * mottle + 0.05 * fibre, 0.32, 0.62)
        colour = mix(colour, ink, inked * 0.94)
        return as_image(colour * (1 + 0.012 * fibre)[..., None])


def claw(
    rng: np.random.Generator, at: Array, heading: float, radius: float, curl: float
) -> list[Array]:
    """A paw of foam: outlines (n, 2) of its palm and of the hooked fingers that fan out of it."""
    t = np.linspace(0, 1, 16)
    outlines = [polar(at, radius * rng.uniform(0.9, 1.1, 14), np.linspace(0, 6, 14))]
    for fan in rng.permutation([-1.25, -0.45, 0.4, 1.2]):
        turn = heading + fan + rng.normal(0, 0.12) + curl * t**1.3
        length = radius * rng.uniform(2.2, 3.2) * (1.15 - 0.25 * abs(fan))
        steps = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
        path = at + np.cumsum(steps, axis=0) * length / len(t)
        outlines.append(ribbon(path, 1.05 * radius * (1 - t**1.6) ** 0.8))
    return outlines


def fringe(
    sheet: Print, rng: np.random.Generator, curve: Array, lean: float, radius: float, foams: Array
) -> None:
    """Print a row of foam claws along a curve (n, 2), to its right, leaning forward by `lean`."""
    ahead = np.gradient(curve, axis=0)
    ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True) + 1e-9
    reach = np.stack([-ahead[:, 1], ahead[:, 0]], axis=-1) + lean * ahead
    walked = np.cumsum(np.linalg.norm(np.diff(curve, axis=0, prepend=curve[:1]), axis=-1))
    at = rng.uniform(0, radius)
    while at < walked[-1] - radius:
        i = int(np.searchsorted(walked, at))
        heading = np.arctan2(reach[i, 1], reach[i, 0]) + rng.normal(0, 0.22)
        size = radius * rng.uniform(0.7, 1.25)
        curl = rng.uniform(1.0, 1.9) * rng.choice([1, -1], p=[0.75, 0.25])
        outlines = claw(rng, curve[i], heading, size, curl)
        # Shadow, then foam; of each the lines first, so that the fills melt their shapes into one.
        for shift, foam in ((0.35 * size, foams[1]), (0.0, foams[0])):
            for edge in (0.0036, 0):
                for outline in outlines:
                    sheet.fill(outline + np.array([-shift, shift]), foam, edge)
        at += size * rng.uniform(1.5, 2.1)


def breaker(
    sheet: Print,
    rng: np.random.Generator,
    back: Array,
    face: Array,
    blues: Array,
    foams: Array,
    size: float,
) -> None:
    """Print a breaking wave between back and face, two curves (n, 2) that meet at the tip."""
    back = spline(back)
    face = spline(face)
    t = np.linspace(0, 1, len(back))

    def between(share: Array | float) -> Array:
        sway = share + 0.02 * np.sin(np.pi * share) * np.sin(9 * t + 7 * share)
        return back + (face - back) * sway[:, None]

    # The water is drawn up the wave in bands that narrow towards the tip.
    count = round(9 + 6 * size)
    cuts = np.cumsum(np.concatenate([[0], rng.uniform(0.4, 1.6, count)]))
    cuts /= cuts[-1]
    curves = [between(share) for share in cuts]
    sheet.fill(np.concatenate([back, face[::-1]]), blues[0], 0.006)
    for i, (one, other) in enumerate(pairwise(curves)):
        sheet.fill(np.concatenate([one, other[::-1]]), blues[i % len(blues)])
    for i, curve in enumerate(curves):
        sheet.cut(curve, 0.0045 if i in (0, count) else 0.0032)
    for start in rng.integers(0, 110, round(70 * size)):
        sheet.cut(between(rng.uniform(0.03, 0.97))[start : start + rng.integers(12, 40)], 0.002)

    # Foam pours over the crest in rows of claws, the lowest first.
    depth = 0.5 * smoothstep(t, 0.36, 0.75) + 0.5 * smoothstep(t, 0.70, 0.88)
    radius = 0.004 + 0.013 * size
    for share in (1.0, 0.66, 0.34):
        hem = between(share * depth)
        crest = share * depth > 0.05
        fringe(sheet, rng, hem[crest], 0.3, radius * (0.5 + 0.5 * share), foams)
        sheet.fill(np.concatenate([back[crest], hem[crest][::-1]]), foams[0])
    sheet.cut(back, 0.005)
    for i in rng.integers(len(t) // 2, len(t), round(60 * size)):
        fleck = back[i] + (hem[i] - back[i]) * rng.uniform(0.1, 0.9)
        sheet.fill(disc(fleck, rng.uniform(0.002, 0.0045)), blues[rng.integers(1, 4)])
    for i in rng.integers(len(t) // 2, len(t), round(110 * size)):
        drop = back[i] + np.abs(rng.normal(0, size, 2)) * (0.072, -0.042)
        sheet.fill(disc(drop, rng.uniform(0.0018, 0.0048)), foams[0], 0.0015)


def lowered(curve: Array, drop: Array) -> Array:
    result: Array = curve + np.stack([np.zeros(len(curve)), drop], axis=-1)
    return result


def swell(sheet: Print, rng: np.random.Generator, ridge: Array, blues: Array, foams: Array) -> None:
    """A rolling wave below its ridge, a curve (n, 2) from left to right, with foam along it."""
    ridge = spline(ridge, 200)
    floor = np.stack([ridge[:, 0], np.full(len(ridge), 1.2)], axis=-1)
    sheet.fill(np.concatenate([ridge, floor[::-1]]), blues[0], 0.005)
    for i, drop in enumerate(np.cumsum(rng.uniform(0.010, 0.026, 9)) - 0.010):
        top = lowered(ridge, drop + 0.004 * i * np.sin(15 * ridge[:, 0] + i))
        sheet.fill(np.concatenate([top, floor[::-1]]), blues[i % len(blues)])
        sheet.cut(top, 0.004)
    start = rng.integers(0, 12)
    while start < len(ridge) - 12:
        top = ridge[start : start + rng.integers(35, 80)]
        belly = np.sin(np.pi * np.linspace(0, 1, len(top))) ** 0.7
        hem = lowered(top, rng.uniform(0.006, 0.014) * belly)
        fringe(sheet, rng, hem, 0.5, 0.0070, foams)
        fringe(sheet, rng, top[::-1], -1.2, 0.0055, foams)
        sheet.fill(np.concatenate([top, hem[::-1]]), foams[0])
        start += len(top) + rng.integers(4, 16)


def waves(width: int, rng: np.random.Generator) -> Image.Image:
    """A breaking sea under a red sun, cut in wood."""
    x, y = plane(width, 0.72)
    grain = noise(rng, x.shape, 0.01, stretch=14)
    sky = ramp(1.9 * y + 0.03 * grain, hexes("3f5f86 8fa6ae d9cfae f2dcae f3d3a0 efc795"))
    sky = mix(sky, hexes("d8452c")[0], 1 - smoothstep(np.hypot(x - 0.73, y - 0.20), 0.0985, 0.1))
    sheet = Print(sky)
    blues = hexes("16305e 2c5a92 16305e 6f9fbe 1f4478 c9d8cc 2c5a92")
    foams = hexes("f7eed6 a9c6cc")
    left = [(-0.16, 0.80), (-0.06, 0.50), (0.04, 0.27), (0.18, 0.12)]
    back = np.array([*left, (0.34, 0.085), (0.47, 0.14), (0.53, 0.235)])
    right = [(0.75, 0.80), (0.52, 0.66), (0.36, 0.53), (0.30, 0.38)]
    face = np.array([*right, (0.345, 0.27), (0.44, 0.225), (0.53, 0.235)])

    def ridge(height: float, roll: float, phase: float) -> Array:
        x = np.linspace(-0.05, 1.05, 12)
        y = height + roll * (np.sin(9 * x + phase) + 0.4 * np.sin(21 * x + phase))
        return np.stack([x, y], axis=-1)

    swell(sheet, rng, ridge(0.50, 0.014, 1.0), blues[3:], foams)
    for scale, dx, dy in [(0.46, 0.60, 0.27), (0.36, 0.31, 0.36)]:
        breaker(sheet, rng, back * scale + (dx, dy), face * scale + (dx, dy), blues, foams, scale)
    swell(sheet, rng, ridge(0.60, 0.022, 3.2), blues, foams)
    breaker(sheet, rng, back, face, blues, foams, 1.0)
    swell(sheet, rng, ridge(0.665, 0.026, 5.6), blues[1:], foams)
    return sheet.pulled(rng, hexes("101c38")[0])


# ---------------------------------------------------------------- mosaic


def nearest_tiles(
    sites: Array, turns: Array, sizes: Array, shape: tuple[int, int]
) -> tuple[Array, Array]:
    """Return each pixel's tile (h, w), by its index, and its distance from the tile's edge.

    Tiles are square: the distance to a site is the larger of the two coordinates in the site's own
        frame.
    """
    owner = np.zeros(shape, int)
    first = np.full(shape, 9.0)
    second = np.full(shape, 9.0)
    for index, ((cx, cy), turn, size) in enumerate(zip(sites, turns, sizes, strict=True)):
        reach = 1.7 * size
        top = max(0, int(cy - reach))
        left = max(0, int(cx - reach))
        box = slice(top, max(0, int(cy + reach) + 2)), slice(left, max(0, int(cx + reach) + 2))
        near = first[box]
        next_near = second[box]
        dy = np.arange(near.shape[0])[:, None] + top - cy
        dx = np.arange(near.shape[1]) + left - cx
        along = dx * np.cos(turn) + dy * np.sin(turn)
        across = dy * np.cos(turn) - dx * np.sin(turn)
        distance = (np.maximum(abs(along), abs(across)) + 0.15 * np.hypot(along, across)) / size
        closer = distance < near
        np.minimum(next_near, np.where(closer, near, distance), out=next_near)
        owner[box][closer] = index
        near[closer] = distance[closer]
    return owner, second - first


def tiled(
    rng: np.random.Generator, scene: Array, region: Array, spacing: Array, turn: Array
) -> Image.Image:
    """The scene (h, w, 3) set in tiles, twice as large.

    No tile crosses from one region (h, w) into another; a tile is about `spacing` (h, w) pixels
    wide and lies along `turn` (h, w). These are centroidal Voronoi cells under a turned square
    metric, kept off the borders: A. Hausner, "Simulating Decorative Mosaics", SIGGRAPH 2001.
    """
    h, w = region.shape
    border = (region != np.roll(region, 1, axis=0)) | (region != np.roll(region, 1, axis=1))
    sites = rng.uniform(0, 1, (w * h // 10, 2)) * (w, h)
    sites = sites[rng.uniform(size=len(sites)) < 10 / sample(spacing, sites) ** 2]
    rows, columns = np.nonzero(~border)
    for _ in range(14):
        owner, _ = nearest_tiles(sites, sample(turn, sites), sample(spacing, sites), (h, w))
        owner = owner[rows, columns]
        weight = np.bincount(owner, minlength=len(sites))
        middle_x = np.bincount(owner, columns, len(sites)) / np.maximum(weight, 1)
        middle_y = np.bincount(owner, rows, len(sites)) / np.maximum(weight, 1)
        middle = np.stack([middle_x, middle_y], axis=-1)
        sites = np.where(weight[:, None] > 0, middle, sites)

    # Each tile has one colour, leans its own way under the light, and is parted from the next by
    # grout.
    glass = sample(scene, sites) * rng.normal(1, 0.12, (len(sites), 1))
    glass = glass + rng.normal(0, 11, (len(sites), 3))
    lean = rng.normal(0, 8 / w, (len(sites), 2))
    turns = sample(turn, sites)
    sizes = 2 * sample(spacing, sites)
    owner, rim = nearest_tiles(2 * sites, turns, sizes, (2 * h, 2 * w))
    rows, columns = np.mgrid[: 2 * h, : 2 * w]
    offset = np.stack([columns, rows], axis=-1) - 2 * sites[owner]
    vein = noise(rng, owner.shape, 0.006)
    colours = glass[owner] * (1 + (lean[owner] * offset).sum(axis=-1) + 0.05 * vein)[..., None]
    grout = hexes("3a3430")[0] + 10 * vein[..., None]
    canvas = Canvas(mix(grout, colours, smoothstep(rim + 0.02 * vein, 0.10, 0.17)))
    canvas.relief = as_image(60 + 90 * smoothstep(rim, 0.08, 0.34) + 5 * vein)
    return canvas.lit(0.9)


def limb(x: Array, y: Array, spine: Array, widths: list[float]) -> tuple[Array, Array, Array]:
    """A limb around a spine (n, 2) whose half width runs through `widths`.

    Returns, for each point of x and y, the distance to the limb's outline (negative inside), the
    place along it in 0..1, and the signed distance from its spine.
    """
    t = np.linspace(0, 1, 28)
    place_of_point = np.linspace(0, 1, len(spine))
    spine = np.stack([np.interp(t, place_of_point, axis) for axis in spine.T], axis=-1)
    tangent = np.gradient(spine, axis=0)
    tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)
    halves = np.interp(t, np.linspace(0, 1, len(widths)), widths)
    edge = np.full(x.shape, np.inf)
    along = np.zeros(x.shape)
    side = np.zeros(x.shape)
    for place, (px, py), (tx, ty), half in zip(t, spine, tangent, halves, strict=True):
        dx = x - px
        dy = y - py
        distance = np.hypot(dx, dy) - half
        closer = distance < edge
        edge[closer] = distance[closer]
        along[closer] = place
        side[closer] = (tx * dy - ty * dx)[closer]
    return edge, along, side


# From back to front, each with the distance to its outline (h, w) and its colours (h, w, 3)
Shapes = list[tuple[Array, Array]]


def carp(x: Array, y: Array, spine: Array, blot: Array, skin: Array, fin: Array) -> Shapes:
    shapes = []
    heading = np.arctan2(*np.gradient(spine, axis=0).T[::-1])
    tail = [(38, 0.16, -0.5), (38, 0.15, 0.45)]
    breast = [(10, 0.17, 1.7), (10, 0.18, -1.1)]
    belly = [(23, 0.11, 0.7)]
    for place, reach, lean in tail + breast + belly:
        turn = heading[place] + lean * np.linspace(1, 0.65, 8)
        ray = polar(spine[place], np.linspace(0, reach, 8), turn)
        edge, along, side = limb(x, y, ray, [0.012, 0.018, 0.024, 0.019, 0.003])
        shapes.append((edge, ramp(1 - 1.1 * along + 0.2 * np.sin(500 * side), fin)))
    body = [0.032, 0.056, 0.070, 0.075, 0.074, 0.066, 0.052, 0.037, 0.024, 0.018]
    edge, along, side = limb(x, y, spine, body)
    shapes.append((edge, ramp(0.42 + 0.34 * blot + 0.16 * np.sin(22 * along), skin)))
    back_fin = np.where((along > 0.32) & (along < 0.62), abs(side) - 0.008, 1)
    shapes.append((back_fin, ramp(along, hexes("8a1c24 c43a1c"))))
    for cheek in (-0.034, 0.034):
        eye_x, eye_y = polar(spine[3], cheek, heading[3] + np.pi / 2)
        shapes.append((np.hypot(x - eye_x, y - eye_y) - 0.012, ramp(blot, hexes("0a0a18 141428"))))
    return shapes


def lily_pad(x: Array, y: Array, radius: float, notch: float, blot: Array) -> Shapes:
    """A leaf around the origin, slit towards the angle `notch`."""
    apart = np.abs((np.arctan2(y, x) - notch + np.pi) % (2 * np.pi) - np.pi)
    reach = np.hypot(x, y)
    edge = np.maximum(reach - radius, 0.6 * reach * (0.28 - apart))
    shade = 0.35 + 0.25 * blot + 0.15 * np.cos(9 * apart) + 0.4 * reach / radius
    return [(edge, ramp(shade, hexes("0c3a2a 155a34 2c7c38 5ca040 a8c45a")))]


def lotus(x: Array, y: Array, radius: float) -> Shapes:
    """A flower around the origin."""
    shapes = []
    for turn, petals, reach in [(0.0, 9, 1.0), (0.35, 7, 0.62)]:
        for petal in range(petals):
            heading = turn + 2 * np.pi * petal / petals
            ray = polar(np.zeros(2), np.linspace(0.2, reach, 6) * radius, heading)
            edge, along, side = limb(x, y, ray, [0.006, 0.012, 0.017, 0.012, 0.002])
            shade = 0.9 - along + 0.3 * (petal % 2) + 8 * side
            shapes.append((edge, ramp(shade, hexes("fff0ee fbc4d0 f07aa8 d23c84"))))
    middle = np.hypot(x, y) - 0.3 * radius
    return [*shapes, (middle, ramp(-middle / radius, hexes("f09a1c ffc830")))]


def mosaic(width: int, rng: np.random.Generator) -> Image.Image:
    """Two carp in a pond, set in glass and stone."""
    x, y = plane(width // OVERSAMPLING, 1.0)
    blot = noise(rng, x.shape, 0.08)
    swimming = [(0.155, 0.36), (0.24, 0.255), (0.38, 0.20)]
    swimming += [(0.53, 0.22), (0.66, 0.28), (0.77, 0.27)]
    spine = spline(np.array(swimming), 40)
    gold = hexes("fff0b0 ffdc5c fdb92c f59a1c e8741c c94a1c")
    fire = hexes("fff6e6 fff0dc fbe3c4 ee5a2c d8301c b81e1c")
    shapes = carp(x, y, spine, blot, gold, hexes("fff0b8 ffc850 ee8a24"))
    shapes += carp(x, y, 1 - spine, blot, fire, hexes("fbe9d0 f6b890 e8583a"))
    pads = [(0.10, 0.13, 0.105, 0.8), (0.91, 0.88, 0.12, 3.9), (0.90, 0.09, 0.075, 2.2)]
    for pad_x, pad_y, radius, notch in [*pads, (0.07, 0.90, 0.085, -0.8), (0.50, 0.50, 0.07, 1.9)]:
        shapes += lily_pad(x - pad_x, y - pad_y, radius, notch, blot)
    shapes += lotus(x - 0.12, y - 0.15, 0.068) + lotus(x - 0.90, y - 0.87, 0.078)

    # The water: deep and shallow, rings that spread from every shape, and a dark row of tiles
    # around each.
    outline = np.minimum.reduce([edge for edge, _ in shapes])
    rings = np.sin(70 * outline + 0.9 * blot) ** 8
    shade = 0.50 - 0.9 * np.abs(np.hypot(x - 0.5, y - 0.5) - 0.28) + 0.12 * blot + 0.30 * rings
    scene = ramp(shade, hexes("101a5c 123c8c 0e66a8 1492b0 3cb8b0 9adcc0 eef4d0"))
    scene = mix(scene, hexes("0a1440")[0], outline < 0.013)
    region = np.zeros(x.shape)
    for index, (edge, colours) in enumerate(shapes):
        scene = np.where(edge[..., None] < 0, colours, scene)
        region[edge < 0] = index + 1
    spacing = np.where(outline < 0.013, 0.0125, 0.0175) * x.shape[1]
    slope_y, slope_x = np.gradient(blurred(outline, x.shape[1] / 320))
    return tiled(rng, scene, region, spacing, np.arctan2(slope_y, slope_x))


STYLES: dict[str, Callable[[int, np.random.Generator], Image.Image]] = {
    "swirls": swirls,
    "dabs": dabs,
    "waves": waves,
    "mosaic": mosaic,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the style pictures into examples/styles/.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which to draw, of: {', '.join(STYLES)}"
    )
    parser.add_argument("--size", type=int, default=800, help="long side in pixels (default 800)")
    arguments = parser.parse_args()
    if arguments.size < 100:
        parser.error("--size must be at least 100")
    unknown = set(arguments.names) - set(STYLES)
    if unknown:
        parser.error(f"no such style: {', '.join(sorted(unknown))}; there are {', '.join(STYLES)}")
    folder = Path(__file__).parent / "styles"
    folder.mkdir(exist_ok=True)
    for name in arguments.names or STYLES:
        picture = STYLES[name](arguments.size * OVERSAMPLING, np.random.default_rng(7))
        size = (picture.width // OVERSAMPLING, picture.height // OVERSAMPLING)
        path = folder / f"{name}.jpg"
        picture.resize(size, Image.Resampling.LANCZOS).save(path, quality=90, optimize=True)
        print(f"{path}: {size[0]}x{size[1]}, {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
