"""Neural style transfer: a photograph in the style of one or more pictures.

Gatys, Ecker & Bethge, "Image Style Transfer Using Convolutional Neural Networks" (CVPR 2016), from
coarse to fine. It knows tensors only: options.py says what may be asked for, losses.py has the
objectives, optimizers.py minimizes them, and this file puts them together.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from .images import (
    enlarge,
    fit,
    initial_image,
    match_colors,
    pad_to_min_side,
    resize,
    resize_style,
    scaled_size,
    shrink_style,
)
from .losses import gatys2015_objective, multiscale_objective
from .optimizers import LBFGS, EarlyStopping, Optimizer, optimize
from .options import DEFAULT_BOX, GATYS_2015, MULTISCALE, Options, check, check_steps, schedule
from .regions import check_masks, coverage, prepare_masks
from .sizes import (
    Estimate,
    Size,
    choose_size,
    choose_tile_side,
    estimate,
    smaller_tile_side,
    time_limit,
)
from .tiles import split
from .vgg import VGG19

CONTENT_WEIGHT = 0.0098
# Of the last scale; the coarser ones have none.
TOTAL_VARIATION_WEIGHT = 0.2
# Of L-BFGS, for a picture in tiles: at 4096 pixels each step that it remembers takes 300 MB. With 3
# instead of 10 the loss is 2 % higher after 40 evaluations a scale.
SHORT_HISTORY = 3
# After an out of memory, the longer side is multiplied by this, down to MIN_RETRY_SIDE.
RETRY_SHARE = 0.75
MIN_RETRY_SIDE = 64


@dataclass(frozen=True)
class Step:
    """One evaluation of the loss.

    done: share of all the work, 0..1. image: (1, 3, H, W), RGB in 0..1, at the size of its scale.
    can_be_shown: whether the image is worth a look: the finished picture of the scale before,
        enlarged. Where there is only one scale, each image is.
    """

    number: int
    total: int
    done: float
    loss: float
    image: Tensor
    can_be_shown: bool = True


@dataclass
class Result:
    """image: (3, H, W), RGB in 0..1, on the CPU. notes: sentences for the user about the result."""

    image: Tensor
    steps: int
    loss: float
    notes: list[str] = field(default_factory=list)


# Called after each evaluation. True asks for the best picture so far.
Callback = Callable[[Step], bool]


@dataclass(frozen=True)
class Work:
    """What an algorithm works on, at the result's size, on the device.

    content, styles: (1, 3, H, W), RGB in 0..1. masks: see regions.py; empty: the styles are blended
        everywhere.
    size: (width, height) of the result. The content may have a border beyond it.
    tile_side: in pixels; None: the picture in one piece.
    """

    content: Tensor
    styles: list[Tensor]
    masks: list[Tensor]
    size: Size
    tile_side: int | None


def stylize(
    content: Tensor,
    styles: Iterable[Tensor],
    options: Options,
    network: VGG19,
    callback: Callback,
    clock: Callable[[], float] = time.monotonic,
    max_seconds: float = math.inf,
    masks: Sequence[Tensor] = (),
    announce: Callable[[Estimate], None] | None = None,
) -> Result:
    """Return `content` in the style of `styles`.

    content, styles: each (3, H, W), RGB in 0..1, of any size and shape. The styles are taken one by
        one, and only what is used of them is kept.
    network: on the device to work on.
    clock: for the time limit, in seconds.
    max_seconds: after which the best picture so far is returned, whatever the options say. A note
        tells it.
    masks: one for each style, (1, 1, H, W) in the photograph's shape, see regions.py; none: the
        styles are blended everywhere.
    announce: called before the work on a picture of more than 800x600 that `size` asks for.

    If the memory is too small for the features of the whole picture, it is made in tiles; if a
    GPU's is too small for that, it is made smaller, and a note says so. If half precision gives no
    finite loss, float32 is tried.
    Raises torch.OutOfMemoryError if not even a small picture fits, FloatingPointError if there is
    no finite loss, and ValueError for what options.check, options.check_steps and
    regions.check_masks refuse.
    """
    started = clock()
    limit = time_limit(options, network.device)

    def callback_or_deadline(step: Step) -> bool:
        return callback(step) or clock() - started > min(limit, max_seconds)

    height, width = content.shape[-2:]
    check_masks(masks, (width, height))
    size, reason = choose_size(width, height, options, network)
    check_steps(options, size)
    small_styles = [shrink_style(style[None], size) for style in styles]
    check(options, len(small_styles), len(masks))
    tile_side = choose_tile_side(size, options, network.device)
    if announce is not None and options.size is not None and is_large(size):
        announce(estimate(size, tile_side, options, network))
    while True:
        try:
            result = stylize_at(
                prepare(content, small_styles, masks, size, options, network.device, tile_side),
                options,
                network,
                callback_or_deadline,
            )
            break
        except torch.OutOfMemoryError:
            smaller_tile = smaller_tile_side(tile_side, size, options)
            if smaller_tile is not None:
                tile_side = smaller_tile
            else:
                longest = int(max(size) * RETRY_SHARE)
                if longest < MIN_RETRY_SIDE:
                    raise
                size = fit(width, height, longest, longest)
                reason = "the GPU's memory is too small for more."
        except FloatingPointError:
            if network.precision == torch.float32:
                raise
            network = deepcopy(network).to_precision(torch.float32)
        # Outside of the handlers, which hold on to the tensors of the failed attempt
        torch.cuda.empty_cache()

    if reason:
        result.notes.append(f"The picture was made {size[0]}x{size[1]}: {reason}")
    if max_seconds < limit and clock() - started > max_seconds:
        result.notes.append(
            f"The work was ended after {max_seconds / 60:.0f} minutes, at step {result.steps}: "
            "this server takes no longer for a picture."
        )
    return result


def is_large(size: Size) -> bool:
    """Return whether a picture has more pixels than the default."""
    return math.prod(size) > math.prod(DEFAULT_BOX)


def stylize_at(work: Work, options: Options, network: VGG19, callback: Callback) -> Result:
    """Return the picture at the size of `work`.

    Raises torch.OutOfMemoryError, and FloatingPointError if a loss or the picture is not finite.
    """
    algorithm = ALGORITHMS[options.algorithm]
    result = algorithm(work, options, network, callback)
    image = result.image
    if not torch.isfinite(image).all():
        raise FloatingPointError("The picture is not finite.")
    if work.masks:
        image = work.content.lerp(image, coverage(work.masks))

    # Without the border that pad_to_min_side added
    width, height = work.size
    image = image[0, :, :height, :width]
    result.image = image.detach().clamp(0, 1).float().cpu()
    return result


def prepare(
    content: Tensor,
    styles: list[Tensor],
    masks: Sequence[Tensor],
    size: Size,
    options: Options,
    device: torch.device,
    tile_side: int | None = None,
) -> Work:
    """Return what the algorithm works on.

    content: (3, H, W). styles: each (1, 3, H, W). The content gets its full size; with
    preserve_color the styles get the content's colors, in regions those of their region.
    """
    content = pad_to_min_side(resize(content[None].to(device), size))
    masks = prepare_masks(masks, content, size)
    styles = [style.to(device) for style in styles]
    if options.preserve_color:
        styles = in_content_colors(styles, content, masks)
    return Work(content, styles, masks, size, tile_side)


def in_content_colors(styles: list[Tensor], content: Tensor, masks: list[Tensor]) -> list[Tensor]:
    """Return the styles in the colors of the content, or each in those of its region."""
    if not masks:
        return [match_colors(style, content) for style in styles]
    return [
        match_colors(style, content, palette_mask=mask)
        for style, mask in zip(styles, masks, strict=True)
    ]


# --- the default: coarse to fine ---


def multiscale(work: Work, options: Options, network: VGG19, callback: Callback) -> Result:
    """Minimize Gatys' losses with L-BFGS, from small to full size.

    Each scale starts with the result of the one before.
    """
    content = work.content
    size = work.size
    scales = schedule(size, options)
    total_steps = sum(scale.evaluations for scale in scales)
    total_work = sum(scale.work() for scale in scales)
    steps = 0
    done = 0.0
    image = initial_image(content, in_style_colors(work), options.strength, options.seed)
    loss = math.inf

    for scale in scales:
        step_work = scale.share**2 / total_work
        first_step = steps + 1

        def report(
            image: Tensor,
            loss: float,
            step_work: float = step_work,
            first_step: int = first_step,
        ) -> bool:
            nonlocal steps, done
            steps += 1
            done += step_work
            can_be_shown = steps == first_step > 1
            return callback(Step(steps, total_steps, done, loss, image, can_be_shown))

        scaled_content = resize(content, scaled_size(content, scale.share))
        longest = scale.share * max(size)
        objective = multiscale_objective(
            scaled_content,
            [resize_style(style, longest) for style in work.styles],
            options.style_weights,
            network,
            content_weight=balanced_content_weight(options),
            total_variation_weight=TOTAL_VARIATION_WEIGHT if scale is scales[-1] else 0.0,
            masks=work.masks,
            tile_side=work.tile_side,
        )
        # Not kept beside the larger one, which matters where memory is scarce
        image = enlarge(image, scaled_content)
        optimum = optimize(
            image,
            objective,
            partial(LBFGS, history=history(scaled_content, work.tile_side)),
            scale.evaluations,
            EarlyStopping(options.patience, options.n_steps_in_epoch),
            report,
        )
        image = optimum.image
        loss = optimum.loss
        if optimum.stopped:
            break
    return Result(resize(image, scaled_size(content, 1.0)), steps, loss)


def history(image: Tensor, tile_side: int | None) -> int:
    """Return how many steps L-BFGS remembers: fewer where the memory is too small for one piece."""
    if len(split(image, tile_side)) > 1:
        return SHORT_HISTORY
    return LBFGS.HISTORY


def in_style_colors(work: Work) -> Tensor:
    """Return the content in the colors of the first style, or each region in those of its style."""
    if not work.masks:
        return match_colors(work.content, work.styles[0])
    covered = coverage(work.masks)
    total = torch.stack(work.masks).sum(0).clamp_min(1)
    image = work.content * (1 - covered)
    for style, mask in zip(work.styles, work.masks, strict=True):
        image = image + match_colors(work.content, style, image_mask=mask) * (mask / total)
    return image


def balanced_content_weight(options: Options) -> float:
    """Return the weight of the content loss.

    It is a hundred times the tuned one at strength 0, a hundredth of it at strength 1.
    """
    ratio = options.content_weight / max(options.style_weight, 1e-30)
    default_ratio = Options.content_weight / Options.style_weight
    return CONTENT_WEIGHT * (ratio / default_ratio) * 10 ** (4 * (0.5 - options.strength))


# --- stylebot's first version ---


def gatys2015(work: Work, options: Options, network: VGG19, callback: Callback) -> Result:
    """Minimize the losses of stylebot's first version with Adam, at one scale.

    It works on the picture in one piece, and knows no masks.
    """
    objective = gatys2015_objective(
        work.content,
        [resize_style(style, max(work.size)) for style in work.styles],
        options.style_weights,
        network,
        content_weight=options.content_weight,
        style_weight=options.style_weight * 10 ** (4 * (options.strength - 0.5)),
    )
    total_steps = options.evaluations()
    steps = 0

    def report(image: Tensor, loss: float) -> bool:
        nonlocal steps
        steps += 1
        return callback(Step(steps, total_steps, steps / total_steps, loss, image))

    def adam(parameters: list[Tensor]) -> Optimizer:
        return torch.optim.Adam(parameters, lr=options.lr)

    early_stopping = EarlyStopping(options.patience, options.n_steps_in_epoch)
    optimum = optimize(work.content, objective, adam, total_steps, early_stopping, report)
    return Result(optimum.image, steps, optimum.loss)


ALGORITHMS = {MULTISCALE: multiscale, GATYS_2015: gatys2015}
