"""Minimization of an objective over the pixels of an image: the loop, L-BFGS, early stopping."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .losses import Objective

# From a loss so many times the best one, the optimizer goes back to the best image.
DIVERGED = 4
# On a GPU the loss is read after so many steps: reading waits until all steps are done, and the GPU
# then waits for the next one.
STEPS_BETWEEN_READS = 10


class Optimizer(Protocol):
    """What torch.optim.Adam and LBFGS have in common."""

    def zero_grad(self) -> None: ...

    def step(self, closure: Callable[[], Tensor]) -> Tensor: ...


@dataclass(frozen=True)
class Optimum:
    """The best image, its loss, and whether the callback ended the optimization."""

    image: Tensor
    loss: float
    stopped: bool


class EarlyStopping:
    """Ends an optimization after `patience` epochs in a row without a lower loss.

    patience: None means never.
    """

    def __init__(self, patience: int | None, steps_in_epoch: int) -> None:
        self.patience = patience
        self.steps_in_epoch = steps_in_epoch
        self.best_loss = math.inf
        self.stale_epochs = 0

    def looks_at(self, step: int) -> bool:
        """Return whether the loss after this step matters: at the end of each epoch."""
        return self.patience is not None and step % self.steps_in_epoch == 0

    def is_due(self, step: int, loss: float) -> bool:
        """Return whether to stop after this step. loss: the lowest so far."""
        if self.patience is None or not self.looks_at(step):
            return False
        if loss < self.best_loss:
            self.stale_epochs = 0
        else:
            self.stale_epochs += 1
        self.best_loss = loss
        return self.stale_epochs >= max(1, self.patience)


def optimize(
    image: Tensor,
    objective: Objective,
    make_optimizer: Callable[[list[Tensor]], Optimizer],
    evaluations: int,
    early_stopping: EarlyStopping,
    callback: Callable[[Tensor, float], bool],
) -> Optimum:
    """Minimize `objective`, starting at `image`, and return the best image on the way.

    callback: called with each image and its loss, on a GPU the loss that was read last; True ends
        the optimization.

    L-BFGS without a line search can jump to a loss that is far too large or not finite. Then the
    optimizer starts again at the best image and forgets its curvature, which costs less than a line
    search that doubles the evaluations. Raises FloatingPointError if the very first loss is not
    finite.
    """
    descent = Descent(image, objective, make_optimizer)
    best_loss = math.inf
    loss = math.inf

    for step in range(1, evaluations + 1):
        evaluated = descent.step()
        if is_read(step, evaluations, early_stopping, image.device):
            loss, best_loss = descent.read()
            if best_loss == math.inf:
                raise FloatingPointError("The loss is not finite.")
            if not loss <= DIVERGED * best_loss:
                evaluated = descent.restart()
                loss = best_loss

        if callback(evaluated, loss):
            _, best_loss = descent.read()
            return Optimum(descent.best, best_loss, stopped=True)
        if early_stopping.is_due(step, best_loss):
            break
    return Optimum(descent.best, best_loss, stopped=False)


def is_read(
    step: int, evaluations: int, early_stopping: "EarlyStopping", device: torch.device
) -> bool:
    """Return whether the loss is read after this step."""
    if device.type == "cpu" or step in (1, evaluations):
        return True
    return step % STEPS_BETWEEN_READS == 0 or early_stopping.looks_at(step)


class Descent:
    """An image on its way down an objective.

    Only `read` and `restart` wait for the device, so the steps of a GPU follow one another without
    a pause.
    """

    def __init__(
        self,
        image: Tensor,
        objective: Objective,
        make_optimizer: Callable[[list[Tensor]], Optimizer],
    ) -> None:
        self.objective = objective
        self.make_optimizer = make_optimizer
        self.image = image.clone().contiguous().requires_grad_(True)
        self.optimizer = make_optimizer([self.image])
        self.best = image
        # Both are on the device, without dimensions
        self.loss = torch.full((), math.inf, device=image.device)
        self.best_loss = self.loss

    def step(self) -> Tensor:
        """Evaluate the image, then move it. Return the image that was evaluated."""
        evaluated = self.image.detach().clone()
        self.loss = self.optimizer.step(self.evaluate)
        is_better = self.loss < self.best_loss
        self.best = torch.where(is_better, evaluated, self.best)
        self.best_loss = torch.where(is_better, self.loss, self.best_loss)
        return evaluated

    def evaluate(self) -> Tensor:
        self.optimizer.zero_grad()
        loss = self.objective(self.image)
        # Times the number of pixels, so that gradients are of order 1, which float16 can hold
        (loss * self.image.numel()).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def read(self) -> tuple[float, float]:
        """Return the last loss and the lowest one."""
        return float(self.loss), float(self.best_loss)

    def restart(self) -> Tensor:
        """Go back to the best image, and return it."""
        with torch.no_grad():
            self.image.copy_(self.best)
        self.optimizer = self.make_optimizer([self.image])
        return self.best


class LBFGS:
    """Limited-memory BFGS (Nocedal 1980) with one evaluation for each step and no line search.

    It makes the same steps as torch.optim.LBFGS with max_iter=1. The first use of that one loads
    PyTorch's compiler, which takes half of a server's start.
    """

    HISTORY = 10

    def __init__(self, parameters: list[Tensor], history: int = HISTORY) -> None:
        (self.image,) = parameters
        self.previous_gradient = torch.empty(0)
        self.move = torch.empty(0)
        self.pairs: deque[Pair] = deque(maxlen=history)
        # Of the first direction in `direction`, before the pairs correct it.
        self.scale = torch.ones((), device=self.image.device)

    def zero_grad(self) -> None:
        self.image.grad = None

    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """Evaluate `closure`, which sets the gradient, then move the image.

        Returns the loss from before the move.
        """
        loss = closure()
        assert self.image.grad is not None
        gradient = self.image.grad.flatten()
        if self.move.numel() == 0:
            # The first step: along the gradient, at most 1 in total
            self.move = -gradient / gradient.abs().sum().clamp_min(1)
        else:
            self.remember(gradient)
            self.move = self.direction(gradient)
        self.previous_gradient = gradient
        with torch.no_grad():
            self.image.add_(self.move.view_as(self.image))
        return loss

    def remember(self, gradient: Tensor) -> None:
        change = gradient - self.previous_gradient
        curvature = change.dot(self.move)
        # Otherwise the direction would not lead down
        is_usable = curvature > 1e-10
        # A GPU would have to be waited for. There, such a pair takes the place of an older one.
        if change.device.type == "cpu" and not is_usable:
            return
        self.pairs.append(Pair(self.move, change, curvature, is_usable))
        self.scale = torch.where(is_usable, curvature / change.dot(change), self.scale)

    def direction(self, gradient: Tensor) -> Tensor:
        """Return minus the inverse Hessian times the gradient, by the two-loop recursion."""
        q = -gradient
        factors = []
        for pair in reversed(self.pairs):
            factor = pair.share(pair.step, q)
            factors.append(factor)
            q -= factor * pair.change

        q *= self.scale
        for pair, factor in zip(self.pairs, reversed(factors), strict=True):
            q += pair.step * (factor - pair.share(pair.change, q))
        return q


@dataclass(frozen=True)
class Pair:
    """What L-BFGS remembers of a step.

    change: of the gradient. curvature: the product of both. is_usable: whether the pair counts; on
        a GPU only the GPU knows it.
    """

    step: Tensor
    change: Tensor
    curvature: Tensor
    is_usable: Tensor

    def share(self, vector: Tensor, q: Tensor) -> Tensor:
        """Return vector . q / curvature, or 0 for a pair that is not usable."""
        return torch.where(self.is_usable, vector.dot(q) / self.curvature, 0.0)
