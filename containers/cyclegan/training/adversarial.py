"""Training of a painter from a folder of paintings: Zhu et al., "Unpaired Image-to-Image
Translation using Cycle-Consistent Adversarial Networks" (2017), https://arxiv.org/abs/1703.10593.

Two generators learn at once, one from photographs to paintings and one back. Each has a
discriminator, which learns to tell the generator's pictures from real ones. All numbers are those
of the paper and of the authors' program.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..generator import Generator
from .discriminator import Discriminator
from .loop import Losses
from .pictures import Photographs, random_crop, random_integer, random_number

# A picture is resized so that its shorter side is RESIZED pixels; a step sees a crop of it.
CROP = 256
RESIZED = 286

CYCLE_WEIGHT = 10.0
IDENTITY_WEIGHT = 0.5 * CYCLE_WEIGHT
# The discriminators learn from the generators' last pictures, not from the newest ones alone.
POOL_SIZE = 50

LEARNING_RATE = 2e-4
BETAS = (0.5, 0.999)
# The learning rate is constant in this share of all steps, then falls to zero in a straight line.
CONSTANT_SHARE = 0.5
# One epoch is one step for each painting.
EPOCHS = 200
# Of random weights at the start
STANDARD_DEVIATION = 0.02


class AdversarialTraining:
    """The state of a training, which can be saved after any step and go on exactly from there.

    to_painting, to_photograph: on the device to work on.
    painting_discriminator, photograph_discriminator: each knows the real pictures that it is named
    after; on the same device.
    total_steps: the learning rate falls to zero until then; None while it is not yet known.
    """

    def __init__(
        self,
        to_painting: Generator,
        to_photograph: Generator,
        painting_discriminator: Discriminator,
        photograph_discriminator: Discriminator,
        paintings: Photographs,
        photographs: Photographs,
        precision: torch.dtype,
        seed: int,
    ) -> None:
        self.to_painting = to_painting
        self.to_photograph = to_photograph
        self.painting_discriminator = painting_discriminator
        self.photograph_discriminator = photograph_discriminator
        self.generators = nn.ModuleList([to_painting, to_photograph])
        self.discriminators = nn.ModuleList([painting_discriminator, photograph_discriminator])
        for networks in (self.generators, self.discriminators):
            networks.train().requires_grad_(True)
        self.paintings = paintings
        self.photographs = photographs
        self.precision = precision
        self.random = torch.Generator().manual_seed(seed)
        self.painting_pool = PicturePool(POOL_SIZE)
        self.photograph_pool = PicturePool(POOL_SIZE)
        self.generator_optimizer = torch.optim.Adam(
            self.generators.parameters(), lr=LEARNING_RATE, betas=BETAS
        )
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminators.parameters(), lr=LEARNING_RATE, betas=BETAS
        )
        self.total_steps: int | None = None
        self.steps = 0
        self.learning_rate = LEARNING_RATE

    @property
    def generator(self) -> Generator:
        """The generator that becomes the painter. The other one is of no use for it."""
        return self.to_painting

    def step(self) -> Losses:
        """Take one step and return its losses, each with its weight.

        They are loss, which is the sum that the generators minimize, discriminator, which is the
        sum that the discriminators minimize, cycle and identity.
        Raises FloatingPointError if one is not finite; then no weight has changed.
        """
        photograph = self.crop_of(self.photographs)
        painting = self.crop_of(self.paintings)

        # The authors change the generators' weights before the discriminators see the pictures.
        # These were made with the old weights all the same, so that both can change at the end,
        # when all losses are known to be finite.
        found, painted, unpainted = self.backward_generators(photograph, painting)
        found["discriminator"] = self.backward_discriminators(
            photograph, painting, painted, unpainted
        )
        self.check(found)
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * self.schedule()
            optimizer.step()
        self.steps += 1
        return found

    def crop_of(self, pictures: Photographs) -> Tensor:
        """Return a crop (1, 3, CROP, CROP) in -1..1 of a picture, mirrored half of the time.

        Which picture, and its place, are random.
        """
        image = pictures.read(pictures.random_path(self.random))
        scale = RESIZED / min(image.size)
        crop = random_crop(image, CROP, scale, self.random).to(self.to_painting.device)
        return (crop * 2 - 1).contiguous(memory_format=torch.channels_last)

    def backward_generators(
        self, photograph: Tensor, painting: Tensor
    ) -> tuple[Losses, Tensor, Tensor]:
        """Set the gradient of the generators' weights.

        Return the losses, the photograph as a painting, and the painting as a photograph.
        """
        self.discriminators.requires_grad_(False)
        painted = self.run(self.to_painting, photograph)
        unpainted = self.run(self.to_photograph, painting)

        adversarial = real_loss(self.run(self.painting_discriminator, painted)) + real_loss(
            self.run(self.photograph_discriminator, unpainted)
        )
        cycle = CYCLE_WEIGHT * (
            F.l1_loss(self.run(self.to_photograph, painted), photograph)
            + F.l1_loss(self.run(self.to_painting, unpainted), painting)
        )
        identity = IDENTITY_WEIGHT * (
            F.l1_loss(self.run(self.to_painting, painting), painting)
            + F.l1_loss(self.run(self.to_photograph, photograph), photograph)
        )
        total = adversarial + cycle + identity

        self.generator_optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        self.discriminators.requires_grad_(True)
        losses = {"loss": total.item(), "cycle": cycle.item(), "identity": identity.item()}
        return losses, painted.detach(), unpainted.detach()

    def backward_discriminators(
        self, photograph: Tensor, painting: Tensor, painted: Tensor, unpainted: Tensor
    ) -> float:
        """Set the gradient of the discriminators' weights, and return their loss."""
        self.discriminator_optimizer.zero_grad()
        total = 0.0
        for discriminator, pool, real, fake in (
            (self.painting_discriminator, self.painting_pool, painting, painted),
            (self.photograph_discriminator, self.photograph_pool, photograph, unpainted),
        ):
            fake = pool.exchange(fake, self.random)
            # Halved, which slows the discriminators down
            loss = 0.5 * (
                real_loss(self.run(discriminator, real)) + fake_loss(self.run(discriminator, fake))
            )
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        return total

    def run(self, network: nn.Module, x: Tensor) -> Tensor:
        """Return the network's result in float32, computed in the training's precision."""
        with torch.autocast(x.device.type, self.precision, self.precision != torch.float32):
            y: Tensor = network(x)
        return y

    def check(self, losses: Losses) -> None:
        """Raise FloatingPointError if a loss or a gradient is not finite."""
        are_finite = all(math.isfinite(loss) for loss in losses.values())
        for networks in (self.generators, self.discriminators):
            are_finite = are_finite and has_finite_gradient(networks.parameters())
        if not are_finite:
            raise FloatingPointError(f"The loss of step {self.steps + 1} is not finite.")

    def schedule(self) -> float:
        """Return the factor of the learning rate: 1, then in a straight line to 0."""
        if self.total_steps is None:
            return 1.0
        left = 1 - self.steps / self.total_steps
        return max(0.0, min(1.0, left / (1 - CONSTANT_SHARE)))

    def scale_learning_rate(self, factor: float) -> None:
        self.learning_rate *= factor

    def state_dict(self) -> dict[str, Any]:
        return {
            "generators": self.generators.state_dict(),
            "discriminators": self.discriminators.state_dict(),
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
            "painting_pool": self.painting_pool.pictures,
            "photograph_pool": self.photograph_pool.pictures,
            "random": self.random.get_state(),
            "steps": self.steps,
            "learning_rate": self.learning_rate,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generators.load_state_dict(state["generators"])
        self.discriminators.load_state_dict(state["discriminators"])
        self.generator_optimizer.load_state_dict(state["generator_optimizer"])
        self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
        device = self.to_painting.device
        self.painting_pool.pictures = [x.to(device) for x in state["painting_pool"]]
        self.photograph_pool.pictures = [x.to(device) for x in state["photograph_pool"]]
        self.random.set_state(state["random"].cpu())
        self.steps = state["steps"]
        self.learning_rate = state["learning_rate"]


class PicturePool:
    """The pictures that a generator has made before (Shrivastava et al. 2017)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pictures: list[Tensor] = []

    def exchange(self, picture: Tensor, random: torch.Generator) -> Tensor:
        """Return the picture, or half of the time an older one, whose place it takes.

        Until the pool is full, the picture is both kept and returned.
        """
        if len(self.pictures) < self.size:
            self.pictures.append(picture)
            return picture
        if random_number(random) <= 0.5:
            return picture
        number = random_integer(self.size, random)
        older = self.pictures[number]
        self.pictures[number] = picture
        return older


def real_loss(judgement: Tensor) -> Tensor:
    """Return the least squares loss of a discriminator's result for what should be real."""
    return F.mse_loss(judgement, torch.ones_like(judgement))


def fake_loss(judgement: Tensor) -> Tensor:
    """Return the least squares loss of a discriminator's result for what should not be real."""
    return F.mse_loss(judgement, torch.zeros_like(judgement))


def has_finite_gradient(parameters: Iterable[nn.Parameter]) -> bool:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients)))


def default_steps(paintings: Photographs) -> int:
    """Return the length of a training as in the paper."""
    return EPOCHS * len(paintings.paths)


def checkpoint_bytes(to_painting: Generator) -> int:
    """Return how large a checkpoint of a training gets: all weights, Adam's moments, the pools."""
    filters = to_painting.layout.filters
    generator = sum(parameter.numel() for parameter in to_painting.parameters())
    discriminator = sum(parameter.numel() for parameter in Discriminator(filters).parameters())
    weights = 3 * 2 * (generator + discriminator)
    pools = 2 * POOL_SIZE * 3 * CROP**2
    return 4 * (weights + pools)
