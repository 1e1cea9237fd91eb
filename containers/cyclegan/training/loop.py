"""The loop around any training: its length, checkpoints, and what happens when something fails.

A checkpoint is one file that is replaced as a whole. Whatever kills the process, the next start
goes on from it, and takes the same steps as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import errno
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import torch

# {"loss": the sum that is minimized, and its parts by name}
Losses = dict[str, float]

# So many steps are timed before the number of all steps is known.
TIMED_STEPS = 20
SECONDS_BETWEEN_CHECKPOINTS = 120.0
SECONDS_BETWEEN_REPORTS = 5.0
# The losses of so many points are kept, each the mean since the one before.
HISTORY_POINTS = 200
# After so many losses in a row that are not finite, the training gives up.
MAX_RESTARTS = 5


class TrainingError(Exception):
    """A training cannot start or go on. The message says why, and what to do."""


class Training(Protocol):
    """What the loop needs of a training.

    steps: those that are done. total_steps: None until the loop has set it.
    """

    steps: int
    total_steps: int | None

    def step(self) -> Losses:
        """Take one step. Raises FloatingPointError if a loss is not finite."""

    def scale_learning_rate(self, factor: float) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class Run:
    """How far a training is, beside the training's own state.

    recipe: what the training was started with; one checkpoint serves one recipe only.
    seconds: the time that all steps took. points: (step, seconds, losses) along the way.
    """

    recipe: dict[str, Any]
    seconds: float = 0.0
    restarts: int = 0
    points: list[tuple[int, float, Losses]] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """What is told about a running training. losses: the mean since the last report."""

    step: int
    total_steps: int
    seconds: float
    seconds_left: float
    losses: Losses


# Told about progress every few seconds, and about what went wrong as a sentence.
OnReport = Callable[[Report], None]
OnTrouble = Callable[[str], None]


def train(
    training: Training,
    run: Run,
    checkpoint_path: Path,
    seconds: float,
    on_report: OnReport,
    on_trouble: OnTrouble,
    is_stopped: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Train until the end, and return True, or until `is_stopped`, and return False.

    seconds: how long all steps may take; the first ones are timed. Not used if the training has
    `total_steps` already.
    It goes on from `checkpoint_path` if there is one, and leaves one there. Raises TrainingError if
    that one cannot be read, belongs to another recipe, or a new one cannot be written, and if the
    losses keep being infinite.
    """
    if checkpoint_path.exists():
        load(training, run, checkpoint_path)
    else:
        save(training, run, checkpoint_path)

    last_save = clock()
    last_report = clock()
    step_seconds: list[float] = []
    recent: list[Losses] = []
    since_point: list[Losses] = []

    while training.total_steps is None or training.steps < training.total_steps:
        if is_stopped():
            save(training, run, checkpoint_path)
            return False

        started = clock()
        try:
            losses = training.step()
        except FloatingPointError as error:
            go_back(training, run, checkpoint_path, error, on_trouble)
            recent.clear()
            since_point.clear()
            continue
        now = clock()
        run.seconds += now - started
        step_seconds.append(now - started)
        recent.append(losses)
        since_point.append(losses)

        if training.total_steps is None and len(step_seconds) >= TIMED_STEPS:
            # The first steps prepare what later ones use
            typical = statistics.median(step_seconds[TIMED_STEPS // 2 :])
            steps_left = (seconds - run.seconds) / typical
            training.total_steps = training.steps + max(1, round(steps_left))
        if training.total_steps is None:
            continue

        if is_point(training.steps, training.total_steps):
            run.points.append((training.steps, round(run.seconds, 1), mean_losses(since_point)))
            since_point.clear()
        if now >= last_report + SECONDS_BETWEEN_REPORTS or training.steps == training.total_steps:
            on_report(make_report(training, run, recent))
            recent.clear()
            last_report = now
        if now >= last_save + SECONDS_BETWEEN_CHECKPOINTS:
            save(training, run, checkpoint_path)
            last_save = clock()

    save(training, run, checkpoint_path)
    return True


def is_point(step: int, total_steps: int) -> bool:
    """Return whether the losses until this step become a point of the curve."""
    every = max(1, total_steps // HISTORY_POINTS)
    return step % every == 0 or step == total_steps


def make_report(training: Training, run: Run, recent: list[Losses]) -> Report:
    assert training.total_steps is not None
    steps_left = training.total_steps - training.steps
    return Report(
        training.steps,
        training.total_steps,
        run.seconds,
        run.seconds / training.steps * steps_left,
        mean_losses(recent),
    )


def mean_losses(found: list[Losses]) -> Losses:
    """Return the mean of each loss."""
    return {name: sum(one[name] for one in found) / len(found) for name in found[0]}


def go_back(
    training: Training,
    run: Run,
    checkpoint_path: Path,
    error: FloatingPointError,
    on_trouble: OnTrouble,
) -> None:
    """Return to the last checkpoint, with half the learning rate from now on."""
    restarts = run.restarts + 1
    if restarts > MAX_RESTARTS:
        raise TrainingError(
            f"{error} That happened {restarts} times, each time with half the learning rate. "
            "Another picture of the style, or another --seed, may help."
        )
    load(training, run, checkpoint_path)
    run.restarts = restarts
    training.scale_learning_rate(0.5)
    on_trouble(
        f"{error} Going on from step {training.steps}, the last good one, "
        "with half the learning rate."
    )
    # Otherwise a second time would begin with the old learning rate again
    save(training, run, checkpoint_path)


# --- the checkpoint of a training ---


def save(training: Training, run: Run, path: Path) -> None:
    """Replace the checkpoint. Raises TrainingError if it cannot be written; the old one stays."""
    state = {
        "recipe": run.recipe,
        "seconds": run.seconds,
        "restarts": run.restarts,
        "points": run.points,
        "total_steps": training.total_steps,
        "training": training.state_dict(),
    }
    write_atomically(path, lambda file: torch.save(state, file))


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replace a file by what `write` writes, as a whole or not at all. Raises TrainingError."""
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except (OSError, RuntimeError) as error:
        # torch.save turns a full disk into a RuntimeError
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        reason = "the disk is full or cannot be written"
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOSPC):
            reason = str(error.strerror)
        raise TrainingError(
            f"{path} could not be written: {reason}. What was saved before is kept: "
            "make room and run the same command again to go on."
        ) from None


def load(training: Training, run: Run, path: Path) -> None:
    """Go on from a checkpoint.

    Raises TrainingError if it cannot be read or is of another recipe.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        same = state["recipe"] == run.recipe
        if same:
            training.load_state_dict(state["training"])
            training.total_steps = state["total_steps"]
            run.seconds = state["seconds"]
            run.restarts = state["restarts"]
            run.points = [(step, seconds, losses) for step, seconds, losses in state["points"]]
    except Exception as error:  # Of a dozen kinds, depending on where the file is damaged
        raise TrainingError(
            f"{path} is no checkpoint of this training, or damaged ({type(error).__name__}). "
            "Delete it to begin anew."
        ) from None
    if not same:
        raise TrainingError(
            f"{path} belongs to a training with other settings: {difference(state, run)}. "
            "Give the same ones to go on, choose another --name, or delete it to begin anew."
        )


def difference(state: dict[str, Any], run: Run) -> str:
    """Return the names of the settings that differ."""
    old = state["recipe"]
    names = [name for name in run.recipe if old.get(name) != run.recipe[name]]
    return ", ".join(names) or "of another version"
