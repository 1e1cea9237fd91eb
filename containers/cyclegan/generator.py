"""CycleGAN's ResNet-9 generator (Zhu et al. 2017): load a checkpoint, paint a picture of any size.

Knows tensors only, for inference only. Read from top to bottom: the network, its checkpoints, painting.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIP = 32  # rows that are worked on at once where feature maps have the size of the picture, or half of it
MARGIN = 4  # rows of context around a strip: as many as the layers that run in strips can see


class InstanceNorm(nn.Module):
    """Instance normalisation (Ulyanov et al. 2016) of one picture (1, C, H, W).

    For a single picture it is batch normalisation, whose kernels are ten times as fast as nn.InstanceNorm2d's, keep
    channels_last, and take their statistics in float32 whatever the precision of the input, as the weights are.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int, affine: bool, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1.0), ("bias", 0.0)):
            # On the CPU even where parameters are made without values: no checkpoint brings them
            values = torch.full((channels,), value, device=None if affine else "cpu")
            if affine:
                self.register_parameter(name, nn.Parameter(values))
            else:
                self.register_buffer(name, values, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        mean, variance = self.statistics(x)
        for rows in _rows(x):  # in place, as these maps are the large ones
            rows.copy_(self.normalise(rows, mean, variance))
        return x

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel, both (C,)."""
        return torch.batch_norm_update_stats(x, None, None, 0.0)

    def normalise(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)


def _rows(x: Tensor) -> tuple[Tensor, ...]:
    """x (N, C, H, W) in views of as many rows as are worked on at once."""
    return x.split(STRIP if x.is_cpu else x.shape[2], dim=2)


class _InOwnPrecision:
    """A convolution that takes its input in any precision."""

    weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))  # type: ignore[misc]


class Convolution(_InOwnPrecision, nn.Conv2d):
    pass


class UpConvolution(_InOwnPrecision, nn.ConvTranspose2d):  # type: ignore[misc]
    pass


class ResnetBlock(nn.Module):
    """x + conv_block(x), at constant size and number of channels; the sum in float32, and in place of x if x is."""

    def __init__(self, channels: int, affine: bool) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            Convolution(channels, channels, 3),
            InstanceNorm(channels, affine),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(1),
            Convolution(channels, channels, 3),
            InstanceNorm(channels, affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = x.to(next(self.parameters()).dtype)  # before it is padded
        for layer in self.conv_block:  # nn.Sequential would hold on to its input
            y = layer(y)
        x = x.float()
        for rows, change in zip(
            _rows(x), _rows(y), strict=True
        ):  # a sum of two precisions makes a copy of one
            rows.add_(change)
        return x


class ToPixels(nn.Conv2d):
    """A convolution to three channels, made for 2x2 pixels at a time.

    Vector units take 16 channels at once: three of them leave most lanes idle. Four kernels, each a pixel further
    in an 8x8 frame, give the twelve channels of 2x2 neighbours in one step of two pixels.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) with H and W even, already padded -> (N, 3, H - 6, W - 6)."""
        frames = [
            F.pad(self.weight, (right, 1 - right, down, 1 - down))
            for down in (0, 1)
            for right in (0, 1)
        ]
        weight = torch.stack(frames, dim=1).flatten(0, 1)
        y = F.conv2d(x, weight, self.bias.repeat_interleave(4), stride=2)  # type: ignore[union-attr]
        return F.pixel_shuffle(y, 2)


class Generator(nn.Module):
    """c7s1-64, d128, d256, 9 x R256, u128, u64, c7s1-3, with the names that the official checkpoints use.

    affine: whether the normalisations have a weight and a bias, as in vintagify's checkpoints and not in the
    official ones.
    """

    def __init__(self, affine: bool = False) -> None:
        super().__init__()

        def normalised(convolution: Convolution | UpConvolution) -> list[nn.Module]:
            return [
                convolution,
                InstanceNorm(convolution.out_channels, affine),
                nn.ReLU(inplace=True),
            ]

        self.model = nn.Sequential(
            nn.ReflectionPad2d(3),
            *normalised(Convolution(3, 64, 7)),
            *normalised(Convolution(64, 128, 3, stride=2, padding=1)),
            *normalised(Convolution(128, 256, 3, stride=2, padding=1)),
            *(ResnetBlock(256, affine) for _ in range(9)),
            *normalised(UpConvolution(256, 128, 3, stride=2, padding=1, output_padding=1)),
            *normalised(UpConvolution(128, 64, 3, stride=2, padding=1, output_padding=1)),
            nn.ReflectionPad2d(3),
            ToPixels(64, 3, 7),
            nn.Tanh(),
        )

    def to_precision(self, precision: torch.dtype) -> "Generator":
        """All convolutions on a GPU; on a CPU those between the first and the last two.

        These are nine tenths of the work and leave the picture within a grey level or so, where all together reach two.
        """
        layers = self.model[4:22] if self.device.type == "cpu" else self.model
        for layer in layers.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.to(precision)
        return self.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(
        self, x: Tensor, on_progress: Callable[[float], None] = lambda done: None
    ) -> Tensor:
        """(1, 3, H, W) in -1..1 to the same. H and W: multiples of 4, at least 8.

        On a CPU the first and last layers, whose feature maps would take half of all memory, run in strips.
        """
        layers = list(self.model)
        ends = _in_strips if x.is_cpu else _at_once
        x = ends(layers[:5], x)  # to 128 channels at half size
        inner = layers[5:22]
        for number, layer in enumerate(inner, 1):
            x = layer(x)
            on_progress(number / (len(inner) + 1))
        return ends(layers[22:], x).float()


def _at_once(layers: list[nn.Module], x: Tensor) -> Tensor:
    return nn.Sequential(*layers)(x)


def _in_strips(layers: list[nn.Module], x: Tensor) -> Tensor:
    """The layers on x, one InstanceNorm among them, without holding what lies between the first and last as a whole.

    Strips overlap so far that each row comes out as it would in one piece, and a first pass over all of them
    takes the statistics of the whole picture: there is no seam to be blended.
    """
    position, norm = next(
        (i, layer) for i, layer in enumerate(layers) if isinstance(layer, InstanceNorm)
    )
    before, after = nn.Sequential(*layers[:position]), nn.Sequential(*layers[position + 1 :])

    parts = [(y.shape[2], *norm.statistics(y)) for _, y in _strips(before, x)]
    height = sum(rows for rows, _, _ in parts)
    mean = torch.stack([m * (rows / height) for rows, m, _ in parts]).sum(0)
    variance = torch.stack([(v + (m - mean) ** 2) * (rows / height) for rows, m, v in parts]).sum(0)

    for top, y in _strips(lambda strip: after(norm.normalise(before(strip), mean, variance)), x):
        if top == 0:
            scale = y.shape[2] / min(STRIP, x.shape[2])
            shape = (1, y.shape[1], round(x.shape[2] * scale), y.shape[3])
            whole = torch.empty(
                shape, dtype=y.dtype, device=y.device, memory_format=torch.channels_last
            )
        whole[:, :, round(top * scale) :][:, :, : y.shape[2]] = y
    return whole


def _strips(function: Callable[[Tensor], Tensor], x: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The first row of each strip of x, and function's result for that strip."""
    height = x.shape[2]
    for top in range(0, height, STRIP):
        first, bottom, last = (
            max(0, top - MARGIN),
            min(height, top + STRIP),
            min(height, top + STRIP + MARGIN),
        )
        y = function(x[:, :, first:last])
        scale = y.shape[2] / (last - first)  # 1/2, 1 or 2
        yield top, y[:, :, round((top - first) * scale) : round((bottom - first) * scale)]


class CheckpointError(ValueError):
    """A file is no checkpoint of this generator. The message, for a person, names the first difference."""


def load_generator(
    path: Path, device: torch.device | str = "cpu", precision: torch.dtype = torch.float32
) -> Generator:
    """Read a checkpoint in the official layout or vintagify's, ready for `paint`.

    precision: see `Generator.to_precision`.
    The running statistics of old official checkpoints are left out, half precision becomes float32. Nothing
    that is pickled in the file is ever executed. Raises CheckpointError.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # of a dozen kinds, depending on where the file is broken
        raise CheckpointError(
            f"{path} is no checkpoint of tensors alone: it is damaged, or it holds code, which is never run."
        ) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f"{path} holds a {type(checkpoint).__name__} instead of tensors by name."
        )

    with torch.device("meta"):
        generator = Generator(affine="model.2.weight" in checkpoint)
    norms = [name for name, module in generator.named_modules() if isinstance(module, InstanceNorm)]
    unused = {
        f"{n}.{field}"
        for n in norms
        for field in ("running_mean", "running_var", "num_batches_tracked")
    }
    found = {
        str(key).replace(".block.", ".conv_block."): value for key, value in checkpoint.items()
    }
    expected = generator.state_dict()
    for name in [
        *expected,
        *(name for name in found if name not in expected and name not in unused),
    ]:
        problem = _difference(expected.get(name), found.get(name))
        if problem:
            raise CheckpointError(
                f"{path} is no CycleGAN generator with 9 blocks: {name} {problem}."
            )
    generator.load_state_dict({name: found[name].float() for name in expected}, assign=True)
    return generator.requires_grad_(False).eval().to(device).to_precision(precision)


def _difference(expected: Tensor | None, found: object) -> str | None:
    if found is None:
        return "is missing"
    if expected is None:
        return "does not belong there"
    if (
        not isinstance(found, Tensor)
        or found.is_nested
        or found.layout != torch.strided
        or found.is_meta
    ):
        return f"is a {type(found).__name__} without plain values"
    if found.shape != expected.shape:
        return f"has the shape {tuple(found.shape)} instead of {tuple(expected.shape)}"
    if not found.is_floating_point():
        return f"is of type {found.dtype}"
    if not torch.isfinite(found.float()).all():
        return "has values that are infinite or no numbers"
    return None


def find_styles(directory: Path) -> dict[str, Path]:
    """The checkpoints of a model directory by the name of their style: style_monet.pth is "monet".

    Sorted by name; files without the prefix go by their stem; hidden files and all else are passed over.
    """
    files = [path for path in directory.glob("[!.]*.pth") if path.is_file()]
    return dict(sorted((path.stem.removeprefix("style_") or path.stem, path) for path in files))


def paint(
    generator: Generator,
    image: Tensor,
    strength: float = 1.0,
    on_progress: Callable[[float], None] = lambda done: None,
) -> Tensor:
    """Paint `image`, (1, 3, H, W) in 0..1 with any H, W >= 1; returns the same shape, in float32 and 0..1.

    Works where the generator is and in its precision; in float32 where that gives no finite picture.
    On a CPU it holds 210 (large pictures, in bfloat16) to 470 bytes a pixel at its peak: 0.9 GB at 2048x2048.

    strength: 1 is the painting, 0 the photograph, between them they are blended.
    on_progress: called with the share of the work that is done, 0..1; what it raises ends the work.
    Raises ValueError on an unfit argument, FloatingPointError if the network gives no finite picture.
    """
    if (
        image.ndim != 4
        or image.shape[:2] != (1, 3)
        or not image.numel()
        or not image.is_floating_point()
    ):
        raise ValueError(
            f"image must be floats of shape (1, 3, H, W), not {image.dtype}, {tuple(image.shape)}"
        )
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be within 0..1, not {strength}")
    device = image.device
    image = image.to(generator.device).float().clamp(0, 1)
    if strength == 0:
        return image.to(device)
    height, width = image.shape[2:]
    with torch.inference_mode():
        x = _pad(image * 2 - 1).contiguous(memory_format=torch.channels_last)
        y = _finite(generator, x, on_progress)
        painting = y[:, :, :height, :width].add(1).div(2)
    on_progress(1.0)
    return image.lerp(painting, strength).clamp(0, 1).to(device)


def _pad(x: Tensor) -> Tensor:
    """Extend to the right and below to multiples of 4, at least 8, by reflection where there is enough to."""
    height, width = x.shape[2:]
    bottom, right = (max(8, -(-side // 4) * 4) - side for side in (height, width))
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(x, (0, right, 0, bottom), mode=mode)


def _finite(generator: Generator, x: Tensor, on_progress: Callable[[float], None]) -> Tensor:
    y = generator(x, on_progress)
    if not torch.isfinite(y).all():  # half precision has less room for what a checkpoint may do
        y = deepcopy(generator).to_precision(torch.float32)(x, on_progress)
    if not torch.isfinite(y).all():
        raise FloatingPointError(
            "the generator gave no finite picture; its checkpoint is not fit for use"
        )
    return y
