"""Neural style transfer: a photograph, painted in the style of one or more pictures.

Gatys, Ecker & Bethge, "Image Style Transfer Using Convolutional Neural Networks" (CVPR 2016), coarse to fine. Knows
tensors only. Read it from top to bottom: what may be asked for, the losses, the two optimisers, the two algorithms.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .vgg import VGG19

SMALLEST_SIDE = 16  # relu5_1 halves a picture four times
LARGEST_SIDE = 2048
DEFAULT_BOX = (800, 600)
CPU_SECONDS = 140.0  # bounds a picture whose size is left to a machine without a GPU
BYTES_PER_PIXEL = 3300.0  # of one evaluation in float32, measured at 512x384 and 800x600
PLANNED_SHARE = 0.8  # of the time and the memory that there is
CONTROL_GROUPS = (  # (limit, used), version 2 and 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


@dataclass(frozen=True)
class Options:
    """What may be asked for.

    size: longer side of the result in pixels, 16..2048; None: in 800x600, on a CPU what is done in about two minutes.
    strength: 0 (the photograph shines through) .. 1 (style above all); 0.5 is the tuned balance.
    preserve_color: the style's strokes in the photograph's own colours.
    style_weights: one number for each style; None: all alike.
    time_budget: seconds after which the best picture so far is returned.
    seed: of the grain that the first picture is sown with.
    max_epochs x n_steps_in_epoch: bounds the evaluations at full size. None: 6 epochs, of gatys2015 14.
    patience: ends after so many epochs without a better loss; None: never.
    lr: Adam's, in gatys2015.
    content_weight, style_weight: as in gatys2015, where they multiply the losses; elsewhere only how far their ratio is
        from that of the defaults counts, so that the defaults mean the tuned balance.
    """

    algorithm: str = "multiscale"
    size: int | None = None
    strength: float = 0.5
    preserve_color: bool = False
    style_weights: list[float] | None = None
    time_budget: float | None = None
    seed: int = 0
    max_epochs: int | None = None
    n_steps_in_epoch: int = 10
    patience: int | None = None
    lr: float = 0.01
    content_weight: float = 1e-5
    style_weight: float = 1e4

    def epochs(self) -> int:
        return self.max_epochs or (14 if self.algorithm == "gatys2015" else 6)

    def evaluations(self) -> int:
        """At full size."""
        return self.epochs() * self.n_steps_in_epoch


@dataclass(frozen=True)
class Step:
    """One evaluation of the loss. done: 0..1 of all the work; image: (1, 3, H, W), RGB in 0..1, at its own scale."""

    number: int
    total: int
    done: float
    loss: float
    image: Tensor


@dataclass
class Result:
    """image: (3, H, W), RGB in 0..1 on the CPU; notes: what the user should know of how it came about."""

    image: Tensor
    steps: int
    loss: float
    notes: list[str] = field(default_factory=list)


# Called after each evaluation; an answer of True asks for the best picture so far.
Callback = Callable[[Step], bool]


def stylize(
    content: Tensor, styles: list[Tensor], options: Options, network: VGG19, callback: Callback
) -> Result:
    """Paints `content` in the style of `styles`, each (3, H, W), RGB in 0..1, of any size and shape.

    network: on the device to work on. Where the GPU's memory does not suffice, the picture is made smaller; the notes
    say so. Where half precision gives no finite loss, float32 is tried. Raises torch.OutOfMemoryError where not even
    a small picture fits, FloatingPointError where there is no finite loss, and ValueError without a style or with
    more or fewer `style_weights` than styles.
    """
    check_weights(styles, options.style_weights)
    algorithm = ALGORITHMS[options.algorithm]
    deadline = time.monotonic() + time_limit(options, device_of(network))

    def report(step: Step) -> bool:
        return callback(step) or time.monotonic() > deadline

    height, width = content.shape[-2:]
    size, notes = choose_size(width, height, options, network)
    while True:
        try:
            inputs = prepared(content, styles, size, options, device_of(network))
            result = algorithm(*inputs, size, options, network, report)
            break
        except torch.OutOfMemoryError:
            longest = max(size) * 3 // 4
            if longest < 64:
                raise
        except FloatingPointError:
            if network.precision == torch.float32:
                raise
            network, longest = deepcopy(network).to_precision(torch.float32), max(size)
        # Outside of the handlers, where the failed attempt's tensors are let go of
        torch.cuda.empty_cache()
        if longest < max(size):
            size = fitted(width, height, longest, longest)
            notes = [
                f"The picture was made {size[0]}x{size[1]}: the GPU's memory is too small for more."
            ]
    if not torch.isfinite(result.image).all():
        raise FloatingPointError("The picture is not finite.")
    result.image = result.image[0, :, : size[1], : size[0]].detach().clamp(0, 1).float().cpu()
    result.notes = notes
    return result


def check_weights(styles: list[Tensor], weights: list[float] | None) -> None:
    if not styles:
        raise ValueError("Neural style transfer needs at least one style.")
    if weights is not None and len(weights) != len(styles):
        raise ValueError(
            f"style_weights has {len(weights)} numbers for {len(styles)} styles; give one for each."
        )


# --- size ---


def choose_size(
    width: int, height: int, options: Options, network: VGG19
) -> tuple[tuple[int, int], list[str]]:
    """(width, height) of the result, and a note where it is smaller than a user would expect."""
    if options.size is not None:
        size, reason = fitted(width, height, options.size, options.size, enlarge=True), ""
    else:
        size, reason = fitted(width, height, *DEFAULT_BOX), ""
        limit = time_limit(options, device_of(network))
        if limit < math.inf:
            pixels = PLANNED_SHARE * limit / seconds_per_pixel(network) / fine_evaluations(options)
            hint = f"Ask for a size, such as {max(size)}, to get more and wait longer."
            size, reason = limited(
                size, pixels, f"this machine paints no more in {limit:.0f} s. {hint}"
            )
    if (
        device_of(network).type == "cpu"
    ):  # nothing warns of a CPU's memory: the process would be killed
        pixels = PLANNED_SHARE * available_memory() / BYTES_PER_PIXEL
        size, short = limited(size, pixels, "this machine's memory is too small for more.")
        reason = short or reason
    return size, [f"The picture was made {size[0]}x{size[1]}: {reason}"] if reason else []


def limited(size: tuple[int, int], pixels: float, reason: str) -> tuple[tuple[int, int], str]:
    """`size`, and no reason, if it has at most so many pixels; otherwise the largest of its shape, and the reason."""
    if size[0] * size[1] <= pixels:
        return size, ""
    longest = max(64, int(max(size) * math.sqrt(pixels / (size[0] * size[1]))) // 16 * 16)
    smaller = fitted(*size, longest, longest)
    return smaller, "" if smaller == size else reason


def available_memory() -> float:
    """Bytes that this process may still take: what the machine has, or its control group; infinite if neither tells."""
    free = [math.inf]
    with suppress(OSError, ValueError, IndexError):
        meminfo = Path("/proc/meminfo").read_text()
        free.append(1024 * float(meminfo.split("MemAvailable:")[1].split()[0]))
    for limit, used in CONTROL_GROUPS:
        with suppress(OSError, ValueError):  # "max" is no number, and no limit
            free.append(float(Path(limit).read_text()) - float(Path(used).read_text()))
    return max(0.0, min(free))


def time_limit(options: Options, device: torch.device) -> float:
    """In seconds: the user's budget, or, where the size is left to a CPU, about two minutes; otherwise none."""
    if options.time_budget is None and options.size is None and device.type == "cpu":
        return CPU_SECONDS
    return options.time_budget or math.inf


def fitted(
    width: int, height: int, box_width: int, box_height: int, enlarge: bool = False
) -> tuple[int, int]:
    """The largest (width, height) of the same shape in the box."""
    scale = min(box_width / width, box_height / height)
    if not enlarge:
        scale = min(scale, 1.0)
    return max(1, round(width * scale)), max(1, round(height * scale))


def fine_evaluations(options: Options) -> float:
    """What all scales together cost, in evaluations at full size."""
    if options.algorithm == "gatys2015":
        return options.evaluations()
    return sum(count * share**2 for share, count in schedule(DEFAULT_BOX, options))


@torch.enable_grad()
def seconds_per_pixel(network: VGG19, side: int = 160) -> float:
    """Of one evaluation on this machine, measured on a small picture; the second of two, as the first warms up."""
    for _ in range(2):
        image = torch.full((1, 3, side, side), 0.5, device=device_of(network), requires_grad=True)
        started = time.perf_counter()
        network(image, {"relu5_1"})["relu5_1"].float().mean().backward()
        if image.grad is None or not torch.isfinite(image.grad).all():  # also waits for the GPU
            raise FloatingPointError("The network gives no finite gradient.")
        seconds = time.perf_counter() - started
    return seconds / side**2


# --- losses ---


def gram(features: Tensor) -> Tensor:
    """(1, C, H, W) -> (C, C): Gram matrix, a mean over the pixels, in float32 (its entries leave fp16's range)."""
    return Gram.apply(features)


class Gram(torch.autograd.Function):
    """Its gradient by one product in the features' own precision: autograd would take two, in float32, and add them."""

    @staticmethod
    def forward(context: Any, features: Tensor) -> Tensor:  # noqa: ANN401 - autograd's own
        context.save_for_backward(features)
        flat = pixels(features).float()
        return flat.t() @ flat / len(flat)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        (features,) = context.saved_tensors
        flat = pixels(features)
        if flat.dtype == torch.float16:  # which has no room for so small factors
            flat = flat.float()
        product = flat @ ((gradient + gradient.t()) / len(flat)).to(flat.dtype)
        _, _, height, width = features.shape
        return product.to(features.dtype).view(1, height, width, -1).permute(0, 3, 1, 2)


def pixels(features: Tensor) -> Tensor:
    """(1, C, H, W) -> (H W, C), without a copy where channels come last in memory."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def total_variation(image: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels, down and across."""
    down = image[..., 1:, :] - image[..., :-1, :]
    across = image[..., 1:] - image[..., :-1]
    return down.pow(2).mean() + across.pow(2).mean()


def blended_grams(
    styles: list[Tensor],
    weights: list[float] | None,
    network: VGG19,
    layers: list[str],
    replicate: bool = True,
) -> list[Tensor]:
    """The Gram matrices of all styles, averaged by weight."""
    weights = weights or [1.0] * len(styles)
    blended = None
    for style, weight in zip(styles, weights, strict=True):
        features = network(style, set(layers), replicate)
        grams = [gram(features[layer]) * (weight / sum(weights)) for layer in layers]
        blended = grams if blended is None else [a + b for a, b in zip(blended, grams, strict=True)]
    return blended or []


# --- optimisers: endless walks towards a smaller loss, which the caller ends ---

Objective = Callable[[Tensor], Tensor]


def walk(
    image: Tensor,
    objective: Objective,
    make_optimizer: "Callable[[list[Tensor]], LBFGS | torch.optim.Optimizer]",
) -> Iterator[tuple[Tensor, float]]:
    """Yields each picture with its loss. From a loss that is not finite, or far above the best, it goes back.

    L-BFGS without a line search can leap off; going back and forgetting its curvature costs less than a search that
    doubles the evaluations. Raises FloatingPointError when the very first loss is not finite.
    """
    best, best_loss = image.clone(), math.inf
    image = image.clone().contiguous().requires_grad_(True)
    optimizer = make_optimizer([image])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective(image)
        (loss * image.numel()).backward()  # gradients of order 1, which fp16 can hold
        return loss.detach()

    while True:
        here = image.detach().clone()
        loss = float(optimizer.step(closure))  # type: ignore[arg-type]
        if loss < best_loss:
            best, best_loss = here, loss
        elif best_loss == math.inf:
            raise FloatingPointError("The loss is not finite.")
        elif not loss <= 4 * best_loss:
            here, loss = best, best_loss
            with torch.no_grad():
                image.copy_(best)
            optimizer = make_optimizer([image])
        yield here, loss


class LBFGS:
    """Limited-memory BFGS (Nocedal 1980): ten pairs of curvature, one evaluation for each step, no line search.

    Steps as torch.optim.LBFGS does with max_iter=1. That one brings PyTorch's compiler with its first call, which takes
    a server half of its start.
    """

    def __init__(self, parameters: list[Tensor], history: int = 10) -> None:
        (self.image,) = parameters
        self.pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(
            maxlen=history
        )  # step, change of gradient, curvature
        self.gradient = self.move = torch.empty(0)

    def zero_grad(self) -> None:
        self.image.grad = None

    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """Evaluates `closure`, which leaves the gradient, then moves; gives the loss from before."""
        loss = closure()
        assert self.image.grad is not None
        gradient = self.image.grad.flatten()
        if self.move.numel():
            change = gradient - self.gradient
            curvature = change.dot(self.move)
            if curvature > 1e-10:  # or the direction would not lead down
                self.pairs.append((self.move, change, curvature))
            self.move = self.direction(gradient)
        else:
            self.move = -gradient / gradient.abs().sum().clamp_min(1)
        self.gradient = gradient
        with torch.no_grad():
            self.image.add_(self.move.view_as(self.image))
        return loss

    def direction(self, gradient: Tensor) -> Tensor:
        """The two-loop recursion: minus the inverse Hessian, as the pairs tell it, times the gradient."""
        q, factors = -gradient, []
        for step, change, curvature in reversed(self.pairs):
            factors.append(step.dot(q) / curvature)
            q = q - factors[-1] * change
        if self.pairs:
            _, change, curvature = self.pairs[-1]
            q = q * (curvature / change.dot(change))
        for (step, change, curvature), factor in zip(self.pairs, reversed(factors), strict=True):
            q = q + step * (factor - change.dot(q) / curvature)
        return q


def descend(
    steps: Iterator[tuple[Tensor, float]],
    evaluations: int,
    options: Options,
    report: Callable[[Tensor, float], bool],
) -> tuple[Tensor, float, bool]:
    """The best picture on the way, its loss, and whether `report` ended it; out of patience, it ends earlier."""
    best, best_loss = torch.empty(0), math.inf
    best_epoch, stale = math.inf, 0
    for number, (image, loss) in enumerate(islice(steps, evaluations), 1):
        if loss < best_loss:
            best, best_loss = image, loss
        if report(image, loss):
            return best, best_loss, True
        if options.patience is not None and number % options.n_steps_in_epoch == 0:
            stale = 0 if best_loss < best_epoch else stale + 1
            best_epoch = best_loss
            if stale >= max(1, options.patience):
                break
    return best, best_loss, False


# --- the default: coarse to fine ---

CONTENT_LAYER = "relu4_2"
# How much each layer's error, relative to its target, counts. Gatys' 1e3 / C^2 leaves relu4_1 almost alone; more of the
# others brings the palette, the grain of the strokes and the large swirls.
STYLE_LAYERS = {
    "relu1_1": 0.0075,
    "relu2_1": 0.155,
    "relu3_1": 0.058,
    "relu4_1": 0.77,
    "relu5_1": 0.0075,
}
CONTENT_WEIGHT = 0.0098
TOTAL_VARIATION_WEIGHT = 0.2
COARSEST_SIDE = 64


def schedule(size: tuple[int, int], options: Options) -> list[tuple[float, int]]:
    """(share of the full size, evaluations) of each scale, coarse to fine, each twice the one before.

    Coarse scales are cheap and make what can be seen from afar; they get as many evaluations as the last.
    """
    shares = [1.0]
    while max(size) * shares[0] / 2 >= COARSEST_SIDE and min(size) * shares[0] / 2 >= SMALLEST_SIDE:
        shares.insert(0, shares[0] / 2)
    return [(share, options.evaluations()) for share in shares]


def multiscale(
    content: Tensor,
    styles: list[Tensor],
    size: tuple[int, int],
    options: Options,
    network: VGG19,
    callback: Callback,
) -> Result:
    """Gatys' losses by L-BFGS, from small to full size; each scale begins with the picture of the one before."""
    scales = schedule(size, options)
    total = sum(count for _, count in scales)
    work = sum(count * share**2 for share, count in scales)
    steps, done, image, loss = 0, 0.0, sown(content, styles[0], options), math.inf
    for share, count in scales:

        def report(here: Tensor, loss: float, share: float = share) -> bool:
            nonlocal steps, done
            steps, done = steps + 1, done + share**2 / work
            return callback(Step(steps, total, done, loss, here))

        longest = share * max(size)
        scaled = resized(content, scaled_size(content, share))
        image = enlarged(image, scaled)
        objective = gatys_objective(
            scaled, [style_at(style, longest) for style in styles], share == 1, options, network
        )
        image, loss, stopped = descend(walk(image, objective, LBFGS), count, options, report)
        if stopped:
            break
    return Result(resized(image, scaled_size(content, 1.0)), steps, loss)


def enlarged(image: Tensor, content: Tensor) -> Tensor:
    """`image` at the size of `content`, with the photograph's detail that the coarser scale could not hold.

    L-BFGS would take its first steps to bring it back.
    """
    height, width = image.shape[-2:]
    size = content.shape[3], content.shape[2]
    detail = content - resized(resized(content, (width, height)), size)
    return (resized(image, size) + detail).clamp(0, 1)


def gatys_objective(
    content: Tensor, styles: list[Tensor], last: bool, options: Options, network: VGG19
) -> Objective:
    """Image -> loss: squared errors of features (content) and Gram matrices (style), each relative to its target's."""
    layers = list(STYLE_LAYERS)
    with torch.no_grad():
        target = network(content, {CONTENT_LAYER})[CONTENT_LAYER].float()
        grams = blended_grams(styles, options.style_weights, network, layers)
        content_scale = content_factor(options) / target.pow(2).mean().clamp_min(1e-8)
        style_scales = [
            share / wanted.pow(2).mean().clamp_min(1e-12)
            for share, wanted in zip(STYLE_LAYERS.values(), grams, strict=True)
        ]

    def objective(image: Tensor) -> Tensor:
        features = network(image, {CONTENT_LAYER, *layers})
        loss = content_scale * F.mse_loss(features[CONTENT_LAYER].float(), target)
        for layer, wanted, scale in zip(layers, grams, style_scales, strict=True):
            loss = loss + scale * F.mse_loss(gram(features[layer]), wanted)
        if last:
            loss = loss + TOTAL_VARIATION_WEIGHT * total_variation(image)
        return loss

    return objective


def content_factor(options: Options) -> float:
    """The content loss's weight: a hundred times the tuned one at strength 0, a hundredth at strength 1."""
    ratio = options.content_weight / max(options.style_weight, 1e-30)
    tuned = Options.content_weight / Options.style_weight
    return CONTENT_WEIGHT * (ratio / tuned) * 10 ** (4 * (0.5 - options.strength))


# --- the original's ---


def gatys2015(
    content: Tensor,
    styles: list[Tensor],
    size: tuple[int, int],
    options: Options,
    network: VGG19,
    callback: Callback,
) -> Result:
    """One scale, Adam, features before their ReLU, Gram / (C H W), raw weights: what stylebot's first version did."""
    styles = [style_at(style, max(size)) for style in styles]
    layers = ["conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"]
    with torch.no_grad():
        target = network(content, {layers[-1]}, replicate=False)[layers[-1]].float()
        grams = blended_grams(styles, options.style_weights, network, layers, replicate=False)
    style_weight = options.style_weight * 10 ** (4 * (options.strength - 0.5))

    def objective(image: Tensor) -> Tensor:
        features = network(image, set(layers), replicate=False)
        loss = options.content_weight * F.mse_loss(features[layers[-1]].float(), target)
        for layer, wanted in zip(layers, grams, strict=True):
            loss = loss + style_weight * F.mse_loss(
                gram(features[layer]) / len(wanted), wanted / len(wanted)
            )
        return loss

    steps, total = 0, options.evaluations()

    def report(here: Tensor, loss: float) -> bool:
        nonlocal steps
        steps += 1
        return callback(Step(steps, total, steps / total, loss, here))

    adam = walk(content, objective, lambda parameters: torch.optim.Adam(parameters, lr=options.lr))
    image, loss, _ = descend(adam, total, options, report)
    return Result(image, steps, loss)


ALGORITHMS = {"multiscale": multiscale, "gatys2015": gatys2015}


# --- pictures ---


def device_of(network: VGG19) -> torch.device:
    return network.mean.device


def prepared(
    content: Tensor,
    styles: list[Tensor],
    size: tuple[int, int],
    options: Options,
    device: torch.device,
) -> tuple[Tensor, list[Tensor]]:
    """Both on the device as (1, 3, H, W); the content at full size, the styles in its palette if that is to stay."""
    content = at_least_smallest(resized(content[None].to(device), size))
    styles = [style[None].to(device) for style in styles]
    if options.preserve_color:
        styles = [matched(style, content) for style in styles]
    return content, styles


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, 3, H, W) -> (1, 3, height, width) for size (width, height), smoothed where it shrinks."""
    if image.shape[-2:] == (size[1], size[0]):
        return image
    return F.interpolate(
        image, (size[1], size[0]), mode="bicubic", antialias=True, align_corners=False
    ).clamp(0, 1)


def scaled_size(image: Tensor, share: float) -> tuple[int, int]:
    height, width = image.shape[-2:]
    return max(SMALLEST_SIDE, round(width * share)), max(SMALLEST_SIDE, round(height * share))


def style_at(style: Tensor, longest: float) -> Tensor:
    """The style with a longer side of `longest` pixels; never enlarged, which would only blur its strokes."""
    height, width = style.shape[-2:]
    side = max(1, round(longest))
    return at_least_smallest(resized(style, fitted(width, height, side, side)))


def at_least_smallest(image: Tensor) -> Tensor:
    """Continued by its border pixels, right and below, up to 16 on each side."""
    height, width = image.shape[-2:]
    right, below = max(0, SMALLEST_SIDE - width), max(0, SMALLEST_SIDE - height)
    return F.pad(image, (0, right, 0, below), mode="replicate") if right or below else image


def sown(content: Tensor, style: Tensor, options: Options) -> Tensor:
    """The first picture: the photograph in the style's palette, the less so the lower the strength, with some grain."""
    palette = min(1.0, 2 * options.strength)
    start = content.lerp(matched(content, style), palette)
    generator = torch.Generator().manual_seed(options.seed)
    grain = torch.randn(content.shape, generator=generator).to(content.device)
    return (start + 0.01 * grain).clamp(0, 1)


def matched(image: Tensor, palette: Tensor) -> Tensor:
    """`image` with the mean and covariance of `palette`'s colours, by the least change (Monge-Kantorovich).

    Pitié & Kokaram, "The linear Monge-Kantorovitch linear colour mapping for example-based colour transfer" (2007).
    """
    mean, covariance = colour_moments(image)
    wanted_mean, wanted = colour_moments(palette)
    root = matrix_root(covariance)
    inverse = torch.linalg.inv(root)
    transform = inverse @ matrix_root(root @ wanted @ root) @ inverse
    flat = image.flatten(2)[0].double()
    return (transform @ (flat - mean) + wanted_mean).clamp(0, 1).to(image.dtype).view_as(image)


def colour_moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (3, 1) and covariance (3, 3) of the pixels; a little is added so that a grey picture has an inverse."""
    flat = image.flatten(2)[0].double()
    mean = flat.mean(1, keepdim=True)
    centred = flat - mean
    covariance = centred @ centred.t() / flat.shape[1]
    return mean, covariance + 1e-5 * torch.eye(3, dtype=flat.dtype, device=flat.device)


def matrix_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.t()
