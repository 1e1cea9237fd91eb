"""Training of a painter from pictures of a style: Johnson et al., "Perceptual Losses for Real-Time
Style Transfer and Super-Resolution" (2016), with the losses of our neural style transfer.

The generator learns to make from any photograph, at once, what neural style transfer finds for one
photograph in minutes. It needs no paintings beside the style's own picture and few photographs.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from containers.nst import losses
from containers.nst.images import match_colors, resize_style
from containers.nst.vgg import VGG19

from ..generator import Generator
from .loop import Losses, mean_losses
from .pictures import Photographs

# The style's picture is shown to the network with this longer side, in pixels. Its strokes then
# have their own size in results of about that size.
STYLE_SIDE = 512
# In the first part of the training each step sees CROPS crops of CROP pixels. In the last part,
# LAST_SHARE of all steps, it sees one of LAST_CROP, as many pixels: larger crops have the
# statistics of whole pictures.
CROP = 160
CROPS = 2
LAST_CROP = 224
LAST_SHARE = 0.25

# Beside a style loss whose weights have the sum 1. Four times the weight in neural style transfer,
# as a network that has to serve all photographs loses their details first.
CONTENT_WEIGHT = 0.04
TOTAL_VARIATION_WEIGHT = 0.2
# Of the squared difference of mean colors, in squares of COLOR_SQUARE pixels, from the photograph
# in the colors of the style. Without it light and dark places change places, and small things get
# lost in large spots.
COLOR_WEIGHT = 1.0
COLOR_SQUARE = 8

LEARNING_RATE = 1e-3
WARM_UP_STEPS = 30
# The gradient's norm is cut off here; it is about 1 after the first steps.
MAX_GRADIENT = 5.0

# A generator with random weights learns to copy photographs first, which takes a fifth of the time
# of the same steps with VGG-19.
COPY_STEPS = 300
COPY_LEARNING_RATE = 2e-3


class PerceptualTraining:
    """The state of a training, which can be saved after any step and go on exactly from there.

    generator: on the device to work on. styles: each (1, 3, H, W), RGB in 0..1; their statistics
    are blended. network: on the same device. total_steps: the learning rate falls to zero until
    then; None while it is not yet known, which must not last longer than WARM_UP_STEPS.
    """

    def __init__(
        self,
        generator: Generator,
        styles: list[Tensor],
        photographs: Photographs,
        network: VGG19,
        precision: torch.dtype,
        seed: int,
    ) -> None:
        self.generator = generator.train().requires_grad_(True)
        self.photographs = photographs
        self.network = network
        self.precision = precision
        self.random = torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.Adam(generator.parameters(), lr=LEARNING_RATE)
        self.total_steps: int | None = None
        self.steps = 0
        self.learning_rate = LEARNING_RATE
        self.style_targets = losses.style_targets(
            [resize_style(style, STYLE_SIDE) for style in styles], None, network
        )
        self.palette = styles[0]

    def step(self) -> Losses:
        """Take one step and return its losses, each with its weight.

        They are loss, which is the sum that is minimized, style, content and color.
        Raises FloatingPointError if one is not finite; then no weight has changed.
        """
        sizes = [CROP] * CROPS
        if self.progress() > 1 - LAST_SHARE:
            sizes = [LAST_CROP]

        self.optimizer.zero_grad()
        found = []
        for size in sizes:
            crop = self.photographs.crop(size, self.random).to(self.network.device)
            found.append(self.backward(crop, 1 / len(sizes)))
        mean = mean_losses(found)

        norm = torch.nn.utils.clip_grad_norm_(self.generator.parameters(), MAX_GRADIENT)
        if not math.isfinite(mean["loss"]) or not torch.isfinite(norm):
            raise FloatingPointError(f"The loss of step {self.steps + 1} is not finite.")
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * self.schedule()
        self.optimizer.step()
        self.steps += 1
        return mean

    def backward(self, crop: Tensor, share: float) -> Losses:
        """Add the gradient of `share` of one crop's losses to that of the generator's weights."""
        photograph = losses.content_target(crop, CONTENT_WEIGHT, self.network)
        picture = self.paint(crop)
        features = self.network(picture, losses.LOSS_LAYERS)
        content = losses.content_loss(features, photograph)
        style = losses.style_loss(features, self.style_targets)
        color = COLOR_WEIGHT * color_loss(picture, match_colors(crop, self.palette))
        variation = TOTAL_VARIATION_WEIGHT * losses.total_variation(picture)
        total = content + style + color + variation
        (total * share).backward()  # type: ignore[no-untyped-call]
        return {
            "loss": total.item(),
            "style": style.item(),
            "content": content.item(),
            "color": color.item(),
        }

    def paint(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) in 0..1 to the same. H and W are multiples of 4."""
        return run_generator(self.generator, image, self.precision)

    def progress(self) -> float:
        """Return the share of all steps that are done, 0..1."""
        if self.total_steps is None:
            return 0.0
        return min(1.0, self.steps / self.total_steps)

    def schedule(self) -> float:
        """Return the factor of the learning rate: up in WARM_UP_STEPS, then half a cosine down."""
        warm_up = min(1.0, (self.steps + 1) / WARM_UP_STEPS)
        return warm_up * 0.5 * (1 + math.cos(math.pi * self.progress()))

    def scale_learning_rate(self, factor: float) -> None:
        self.learning_rate *= factor

    def state_dict(self) -> dict[str, Any]:
        return {
            "generator": self.generator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.get_state(),
            "steps": self.steps,
            "learning_rate": self.learning_rate,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.random.set_state(state["random"].cpu())
        self.steps = state["steps"]
        self.learning_rate = state["learning_rate"]


def run_generator(generator: Generator, image: Tensor, precision: torch.dtype) -> Tensor:
    """Return the generator's picture of an image, both (1, 3, H, W) in 0..1, for autograd."""
    x = (image * 2 - 1).contiguous(memory_format=torch.channels_last)
    with torch.autocast(image.device.type, precision, enabled=precision != torch.float32):
        y: Tensor = generator(x)
    return y.add(1).div(2)


def color_loss(picture: Tensor, colors: Tensor) -> Tensor:
    """Return the mean squared difference of the mean colors of squares."""
    return F.mse_loss(F.avg_pool2d(picture, COLOR_SQUARE), F.avg_pool2d(colors, COLOR_SQUARE))


def learn_to_copy(
    generator: Generator, photographs: Photographs, precision: torch.dtype, random: torch.Generator
) -> None:
    """Train a generator with random weights until its pictures resemble the photographs."""
    generator.train()
    device = generator.device
    optimizer = torch.optim.Adam(generator.parameters(), lr=COPY_LEARNING_RATE)
    for step in range(COPY_STEPS):
        crop = photographs.crop(CROP, random).to(device)
        loss = F.l1_loss(run_generator(generator, crop, precision), crop)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
        fall = min(1.0, 2 * (1 - step / COPY_STEPS))
        for group in optimizer.param_groups:
            group["lr"] = COPY_LEARNING_RATE * warm_up * fall
        optimizer.step()
