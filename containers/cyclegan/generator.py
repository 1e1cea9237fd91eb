"""CycleGAN's ResNet-9 generator (Zhu et al. 2017): the network, its checkpoints, stylizing.

In eval mode it is built for speed and little memory, in train mode for autograd; both compute the
same. It knows tensors only. Read it from top to bottom.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# On a CPU, layers whose feature maps have the size of the picture, or half of it, work on so many
# rows at a time.
STRIP = 32
# Rows of context on both sides of a strip: as many as the layers that run in strips can see.
HALO = 4
# Of a checkpoint's first layer
MAX_FILTERS = 256

OnProgress = Callable[[float], None]


def no_progress(done: float) -> None:
    """Ignore the progress."""


# --- the network ---


class InstanceNorm(nn.Module):
    """Instance normalization (Ulyanov et al. 2016) of one picture (1, C, H, W).

    For a single picture it equals batch normalization. Those kernels are ten times as fast as those
    of nn.InstanceNorm2d and keep channels_last. They compute the statistics in float32, as the
    weights are, whatever the precision of the input.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int, affine: bool, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        if affine:
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))
        else:
            # On the CPU, even if the network is made on the meta device: no checkpoint brings these
            # values
            ones = torch.ones(channels, device="cpu")
            zeros = torch.zeros(channels, device="cpu")
            self.register_buffer("weight", ones, persistent=False)
            self.register_buffer("bias", zeros, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training or x.dtype != torch.float32:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        # In place, as these maps are the large ones
        mean, variance = self.statistics(x)
        for rows in split_rows(x):
            rows.copy_(self.normalize(rows, mean, variance))
        return x

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and variance of each channel, both (C,)."""
        mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0)
        return mean, variance

    def normalize(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)


def split_rows(x: Tensor) -> list[Tensor]:
    """Return views of x (N, C, H, W), each with the rows that are worked on at a time."""
    rows = STRIP if x.is_cpu else x.shape[2]
    return list(torch.split(x, rows, dim=2))


def to_precision_of(weight: Tensor, x: Tensor) -> Tensor:
    """Return x in the precision of the weight. Under autocast, PyTorch converts both itself."""
    if torch.is_autocast_enabled(x.device.type):
        return x
    return x.to(weight.dtype)


class Convolution(nn.Conv2d):
    """A convolution that converts its input to the precision of its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(to_precision_of(self.weight, x))


class TransposedConvolution(nn.ConvTranspose2d):
    """The official way to twice the size; it tends to leave a grid in flat areas."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, stride=2, padding=1, output_padding=1)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(to_precision_of(self.weight, x))


class ResizeConvolution(nn.Conv2d):
    """Twice the size by bilinear interpolation, then a convolution: no grid, no frame.

    Odena et al., "Deconvolution and Checkerboard Artifacts" (2016). After nearest neighbors the
    grid was fainter, but still there.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1, padding_mode="replicate")

    def forward(self, x: Tensor) -> Tensor:
        x = to_precision_of(self.weight, x)
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="bilinear"))


class ResnetBlock(nn.Module):
    """x + conv_block(x), with constant size and number of channels.

    The sum is in float32, and in place if x is float32.
    """

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
        # To the working precision before it is padded
        y = to_precision_of(next(self.parameters()), x)
        # Not self.conv_block(y): nn.Sequential would hold on to its input
        for layer in self.conv_block:
            y = layer(y)
        x = x.float()
        if self.training:
            return x + y
        # By rows, since a sum of two precisions makes a copy of one of them
        for rows, change in zip(split_rows(x), split_rows(y), strict=True):
            rows.add_(change)
        return x


class ToPixels(nn.Conv2d):
    """A convolution to three channels that computes 2x2 pixels at a time.

    Vector units compute 16 channels at once, and with three of them most lanes would idle. Four
    kernels, each shifted by a pixel in an 8x8 frame, give the twelve channels of 2x2 neighboring
    pixels with a stride of two.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) with H and W even, already padded -> (N, 3, H - 6, W - 6)."""
        shifted_kernels = []
        for down in (0, 1):
            for right in (0, 1):
                shifted_kernels.append(F.pad(self.weight, (right, 1 - right, down, 1 - down)))
        weight = torch.stack(shifted_kernels, dim=1).flatten(0, 1)
        assert self.bias is not None
        y = F.conv2d(x, weight, self.bias.repeat_interleave(4), stride=2)
        return F.pixel_shuffle(y, 2)


@dataclass(frozen=True)
class Layout:
    """What the checkpoints of the generator differ in. The defaults are the official layout.

    filters: the number of channels at full size.
    affine: whether the normalizations have a weight and a bias.
    resize: whether the decoder enlarges with ResizeConvolution or with TransposedConvolution.
    """

    filters: int = 64
    affine: bool = False
    resize: bool = False


class Generator(nn.Module):
    """c7s1-64, d128, d256, 9 x R256, u128, u64, c7s1-3, with the names of the official checkpoints.

    The numbers are those of 64 filters; another layout has other ones.
    """

    # Positions in self.model. Head and tail have the layers at full size and their neighbors at
    # half size; a CPU runs them in strips. The head ends with the convolution to 128 channels, the
    # tail starts with the transposed convolution to 64.
    HEAD = slice(0, 5)
    BODY = slice(5, 22)
    TAIL = slice(22, None)
    # Without the first and the last two convolutions
    INNER_CONVOLUTIONS = slice(4, 22)

    def __init__(self, layout: Layout = Layout()) -> None:
        super().__init__()
        self.layout = layout
        full = layout.filters
        half = 2 * full
        quarter = 4 * full
        up = ResizeConvolution if layout.resize else TransposedConvolution

        def normalized(convolution: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
            norm = InstanceNorm(convolution.out_channels, layout.affine)
            return [convolution, norm, nn.ReLU(inplace=True)]

        encoder = [
            nn.ReflectionPad2d(3),
            *normalized(Convolution(3, full, 7)),
            *normalized(Convolution(full, half, 3, stride=2, padding=1)),
            *normalized(Convolution(half, quarter, 3, stride=2, padding=1)),
        ]
        residual_blocks = [ResnetBlock(quarter, layout.affine) for _ in range(9)]
        decoder = [
            *normalized(up(quarter, half)),
            *normalized(up(half, full)),
            nn.ReflectionPad2d(3),
            ToPixels(full, 3, 7),
            nn.Tanh(),
        ]
        self.model = nn.Sequential(*encoder, *residual_blocks, *decoder)

    def to_precision(self, precision: torch.dtype) -> "Generator":
        """Convert all convolutions on a GPU; on a CPU those between the first and the last two.

        These are nine tenths of the work and change the picture by a gray level or so; all together
        would change it by two.
        """
        layers = list(self.model)
        if self.device.type == "cpu":
            layers = layers[self.INNER_CONVOLUTIONS]
        for layer in layers:
            for module in layer.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                    module.to(precision)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, x: Tensor, on_progress: OnProgress = no_progress) -> Tensor:
        """(1, 3, H, W) in -1..1 to the same. H and W are multiples of 4, at least 8.

        On a CPU the first and the last layers, whose feature maps would take half of all memory,
        run in strips, except in train mode.
        """
        layers = list(self.model)
        head = layers[self.HEAD]
        body = layers[self.BODY]
        tail = layers[self.TAIL]
        run = run_in_strips if x.is_cpu and not self.training else run_at_once

        x = run(head, x)
        for number, layer in enumerate(body, 1):
            x = layer(x)
            on_progress(number / (len(body) + 1))
        return run(tail, x).float()


def run_at_once(layers: list[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def run_in_strips(layers: list[nn.Module], x: Tensor) -> Tensor:
    """Return the result of the layers without holding the maps between them as a whole.

    layers: one of them is an InstanceNorm.
    Strips overlap so far that each row comes out as it would in one piece. A first pass over all
    strips computes the statistics of the whole picture. So there are no seams to blend.
    """
    position = [isinstance(layer, InstanceNorm) for layer in layers].index(True)
    before = layers[:position]
    after = layers[position + 1 :]
    norm = layers[position]
    assert isinstance(norm, InstanceNorm)

    mean, variance = statistics_of_strips(before, norm, x)

    def run_strip(strip: Tensor) -> Tensor:
        y = run_at_once(before, strip)
        return run_at_once(after, norm.normalize(y, mean, variance))

    result = None
    for top, y in strips(run_strip, x):
        if result is None:
            scale = y.shape[2] / min(STRIP, x.shape[2])
            result = torch.empty(
                (1, y.shape[1], round(x.shape[2] * scale), y.shape[3]),
                dtype=y.dtype,
                device=y.device,
                memory_format=torch.channels_last,
            )
        first = round(top * scale)
        result[:, :, first : first + y.shape[2]] = y
    assert result is not None
    return result


def statistics_of_strips(
    layers: list[nn.Module], norm: InstanceNorm, x: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the mean and variance of the layers' result, from those of its strips."""
    heights = []
    means = []
    variances = []
    for _, y in strips(lambda strip: run_at_once(layers, strip), x):
        strip_mean, strip_variance = norm.statistics(y)
        heights.append(y.shape[2])
        means.append(strip_mean)
        variances.append(strip_variance)

    shares = [height / sum(heights) for height in heights]
    mean = torch.stack([m * share for m, share in zip(means, shares, strict=True)]).sum(0)
    variance = torch.stack(
        [
            (v + (m - mean) ** 2) * share
            for m, v, share in zip(means, variances, shares, strict=True)
        ]
    ).sum(0)
    return mean, variance


def strips(function: Callable[[Tensor], Tensor], x: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the first row of each strip of x, and the function's result for that strip."""
    height = x.shape[2]
    for top in range(0, height, STRIP):
        bottom = min(height, top + STRIP)
        first = max(0, top - HALO)
        last = min(height, bottom + HALO)
        y = function(x[:, :, first:last])
        # 1/2, 1 or 2
        scale = y.shape[2] / (last - first)
        yield top, y[:, :, round((top - first) * scale) : round((bottom - first) * scale)]


# --- checkpoints ---


class CheckpointError(ValueError):
    """A file is not a checkpoint of this generator.

    The message, written for the user, names the first difference.
    """


def load_generator(
    path: Path, device: torch.device | str = "cpu", precision: torch.dtype = torch.float32
) -> Generator:
    """Read a checkpoint of any `Layout`; the shapes of its tensors tell which.

    Other names that are read too: vintagify's.

    precision: see `Generator.to_precision`.

    The running statistics of old official checkpoints are ignored, and half precision becomes
    float32. Code that is pickled in the file is never run. Raises CheckpointError.
    """
    checkpoint = read_checkpoint(path)
    found = {
        str(name).replace(".block.", ".conv_block."): value for name, value in checkpoint.items()
    }
    # On the meta device no memory is allocated or initialized, as the checkpoint brings all values
    with torch.device("meta"):
        generator = Generator(find_layout(found))
    expected = generator.state_dict()
    unused = running_statistics(generator)
    extra = [name for name in found if name not in expected and name not in unused]

    for name in [*expected, *extra]:
        problem = find_difference(expected.get(name), found.get(name))
        if problem:
            raise CheckpointError(
                f"{path} is no CycleGAN generator with 9 blocks: {name} {problem}."
            )

    tensors = {name: found[name].float() for name in expected}
    generator.load_state_dict(tensors, assign=True)
    generator.requires_grad_(False)
    generator.eval()
    return generator.to(device).to_precision(precision)


def read_checkpoint(path: Path) -> dict[object, Tensor]:
    """Return the file's dictionary, whose values may still be anything."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # Of a dozen kinds, depending on where the file is broken
        raise CheckpointError(
            f"{path} is no checkpoint of tensors alone: "
            "it is damaged, or it holds code, which is never run."
        ) from error
    if not isinstance(checkpoint, dict):
        kind = type(checkpoint).__name__
        raise CheckpointError(f"{path} holds a {kind} instead of tensors by name.")
    return checkpoint


def find_layout(checkpoint: Mapping[str, object]) -> Layout:
    """Return the layout of a checkpoint, or the nearest one if it is of none."""
    filters = Layout.filters
    first = checkpoint.get("model.1.weight")
    if isinstance(first, Tensor) and first.ndim == 4 and 1 <= first.shape[0] <= MAX_FILTERS:
        filters = first.shape[0]

    # A convolution has its weight as (out, in, 3, 3), a transposed one as (in, out, 3, 3).
    enlarging = checkpoint.get("model.19.weight")
    resize = isinstance(enlarging, Tensor) and enlarging.shape[:1] == (2 * filters,)
    return Layout(filters, affine="model.2.weight" in checkpoint, resize=resize)


def running_statistics(generator: Generator) -> set[str]:
    """Return the names of the statistics that old checkpoints have and inference does not use."""
    names = set()
    for name, module in generator.named_modules():
        if isinstance(module, InstanceNorm):
            names |= {f"{name}.running_mean", f"{name}.running_var", f"{name}.num_batches_tracked"}
    return names


def find_difference(expected: Tensor | None, found: object) -> str | None:
    """Return in words what is wrong with a checkpoint's value; None if nothing is."""
    if found is None:
        return "is missing"
    if expected is None:
        return "does not belong there"
    if not isinstance(found, Tensor):
        return f"is a {type(found).__name__} without plain values"
    if found.is_nested or found.layout != torch.strided or found.is_meta:
        return f"is a {type(found).__name__} without plain values"
    if found.shape != expected.shape:
        return f"has the shape {tuple(found.shape)} instead of {tuple(expected.shape)}"
    if not found.is_floating_point():
        return f"is of type {found.dtype}"
    if not torch.isfinite(found.float()).all():
        return "has values that are infinite or no numbers"
    return None


def find_styles(directory: Path) -> dict[str, Path]:
    """Return the checkpoints of a directory by the name of their style: style_monet.pth is "monet".

    Sorted by name. Files without the prefix go by their stem; hidden files and all others are
    ignored.
    """
    styles = {}
    for path in directory.glob("[!.]*.pth"):
        if path.is_file():
            name = path.stem.removeprefix("style_") or path.stem
            styles[name] = path
    return dict(sorted(styles.items()))


# --- stylizing ---


def stylize(
    generator: Generator,
    image: Tensor,
    strength: float = 1.0,
    on_progress: OnProgress = no_progress,
) -> Tensor:
    """Return `image` in the generator's style, in float32, with its shape and on its device.

    image: (1, 3, H, W) in 0..1 with any H, W >= 1.
    strength: 1 is the generator's result, 0 the photograph; between them they are blended.
    on_progress: called with the share of the work that is done, 0..1; what it raises ends the work.

    It works on the generator's device and in its precision, or in float32 if that gives no finite
    picture. On a CPU it takes 210 (large pictures, in bfloat16) to 470 bytes a pixel at its peak:
    0.9 GB at 2048x2048.
    Raises ValueError for an invalid argument, FloatingPointError if the network gives no finite
    picture.
    """
    check_image(image)
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be within 0..1, not {strength}")

    device = image.device
    image = image.to(generator.device).float().clamp(0, 1)
    if strength == 0:
        return image.to(device)

    height, width = image.shape[2:]
    with torch.inference_mode():
        x = pad_to_multiple(image * 2 - 1).contiguous(memory_format=torch.channels_last)
        y = run_finite(generator, x, on_progress)
        result = y[:, :, :height, :width].add(1).div(2)
    on_progress(1.0)
    return image.lerp(result, strength).clamp(0, 1).to(device)


def check_image(image: Tensor) -> None:
    is_one_rgb_image = image.ndim == 4 and image.shape[:2] == (1, 3) and image.numel() > 0
    if not (is_one_rgb_image and image.is_floating_point()):
        raise ValueError(
            f"image must be floats of shape (1, 3, H, W), not {image.dtype}, {tuple(image.shape)}"
        )


def pad_to_multiple(x: Tensor) -> Tensor:
    """Extend x to the right and below, to multiples of 4 and at least 8.

    By reflection if x is large enough, otherwise by its border pixels.
    """
    height, width = x.shape[2:]
    bottom = max(8, -(-height // 4) * 4) - height
    right = max(8, -(-width // 4) * 4) - width
    can_reflect = bottom < height and right < width
    return F.pad(x, (0, right, 0, bottom), mode="reflect" if can_reflect else "replicate")


def run_finite(generator: Generator, x: Tensor, on_progress: OnProgress) -> Tensor:
    """Run the generator; run it again in float32 if the result is not finite."""
    y: Tensor = generator(x, on_progress)
    if torch.isfinite(y).all():
        return y
    # Half precision has a smaller range than some checkpoints need
    y = deepcopy(generator).to_precision(torch.float32)(x, on_progress)
    if torch.isfinite(y).all():
        return y
    raise FloatingPointError(
        "the generator gave no finite picture; its checkpoint is not fit for use"
    )
