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

    def is_due(self, step: int, loss: float) -> bool:
        """Return whether to stop after this step. loss: the lowest so far."""
        if self.patience is None or step % self.steps_in_epoch != 0:
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

    callback: called with each image and its loss; True ends the optimization.

    L-BFGS without a line search can jump to a loss that is far too large or not finite. Then the
    optimizer starts again at the best image and forgets its curvature, which costs less than a line
    search that doubles the evaluations. Raises FloatingPointError if the very first loss is not
    finite.
    """
    best = image.clone()
    best_loss = math.inf
    image = image.clone().contiguous().requires_grad_(True)
    optimizer = make_optimizer([image])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective(image)
        # Times the number of pixels, so that gradients are of order 1, which float16 can hold
        (loss * image.numel()).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    for step in range(1, evaluations + 1):
        evaluated = image.detach().clone()
        loss = float(optimizer.step(closure))
        if loss < best_loss:
            best = evaluated
            best_loss = loss
        elif best_loss == math.inf:
            raise FloatingPointError("The loss is not finite.")
        elif not loss <= DIVERGED * best_loss:
            evaluated = best
            loss = best_loss
            with torch.no_grad():
                image.copy_(best)
            optimizer = make_optimizer([image])

        if callback(evaluated, loss):
            return Optimum(best, best_loss, stopped=True)
        if early_stopping.is_due(step, best_loss):
            break
    return Optimum(best, best_loss, stopped=False)


class LBFGS:
    """Limited-memory BFGS (Nocedal 1980) with one evaluation for each step and no line search.

    It makes the same steps as torch.optim.LBFGS with max_iter=1. The first use of that one loads
    PyTorch's compiler, which takes half of a server's start.
    """

    def __init__(self, parameters: list[Tensor], history: int = 10) -> None:
        (self.image,) = parameters
        self.previous_gradient = torch.empty(0)
        self.move = torch.empty(0)
        # (step, change of the gradient, curvature) of the last steps
        self.pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=history)

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
        if curvature > 1e-10:
            self.pairs.append((self.move, change, curvature))

    def direction(self, gradient: Tensor) -> Tensor:
        """Return minus the inverse Hessian times the gradient, by the two-loop recursion."""
        q = -gradient
        factors = []
        for step, change, curvature in reversed(self.pairs):
            factor = step.dot(q) / curvature
            factors.append(factor)
            q = q - factor * change

        if self.pairs:
            _, change, curvature = self.pairs[-1]
            q = q * (curvature / change.dot(change))

        for (step, change, curvature), factor in zip(self.pairs, reversed(factors), strict=True):
            q = q + step * (factor - change.dot(q) / curvature)
        return q
