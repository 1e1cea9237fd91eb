"""The command `train`, on a command line and as SageMaker calls it.

With arguments it is a command line. Without, it reads what SageMaker's training contract puts under
/opt/ml (https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo.html):
hyperparameters and input channels; it leaves the painter in model/, what it needs to go on in
checkpoints/, and the reason of a failure in output/failure.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from containers.common.command_line import complain
from containers.common.device import best_device, device_report
from containers.common.log import write_log
from containers.serving.errors import ApiError
from containers.serving.model import Progress
from containers.serving.progress import ProgressWriter
from containers.serving.storage import check_url

from ..generator import CheckpointError
from .loop import Report, TrainingError
from .options import Options, from_hyperparameters, parse_command_line
from .painter import Files, Sources, read_sources, train_painter

FAILURE = 1
# As a shell reports a process that SIGTERM has ended
STOPPED = 128 + signal.SIGTERM
# SageMaker shows no more of output/failure
FAILURE_LENGTH = 1024
# Where there is no terminal for a progress bar
SECONDS_BETWEEN_LINES = 30.0
CHANNELS = ("style", "photos", "paintings", "from")


def main(arguments: Sequence[str]) -> int:
    """Train. Return the exit code."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if arguments:
        return run_command_line(arguments, stop)
    return run_job(Path(os.environ.get("ML_ROOT", "/opt/ml")), stop)


# --- the command line ---


def run_command_line(arguments: Sequence[str], stop: threading.Event) -> int:
    try:
        trainings = parse_command_line(arguments)
        # All of them, so that the last one fails before the first one is trained
        sources = [read_sources(options) for options in trainings]
        for options, source in zip(trainings, sources, strict=True):
            if not train_in_terminal(options, source, stop):
                print("Stopped. The same command goes on from here.", file=sys.stderr)
                return STOPPED
    except (TrainingError, ValueError) as error:
        return complain(str(error))
    return 0


def train_in_terminal(options: Options, sources: Sources, stop: threading.Event) -> bool:
    """Train one painter, and print what a person wants to know. Return whether it is finished."""
    files = Files.of(options)
    for note in sources.notes:
        print(f"Left out: {note}", file=sys.stderr)
    if sources.remark:
        print(sources.remark)
    pictures = f"{len(sources.photographs.paths)} photographs"
    if sources.paintings is not None:
        pictures = f"{len(sources.paintings.paths)} paintings and {pictures}"
    device = device_report(best_device())["device"]
    print(f"Training {options.name} from {pictures} on {device}. Watch {files.preview}")

    # disable=None hides the bar unless standard error is a terminal
    with tqdm(unit="step", disable=None) as bar:
        last_line = -SECONDS_BETWEEN_LINES

        def report(progress: Report, _: Image.Image) -> None:
            nonlocal last_line
            bar.total = progress.total_steps
            bar.set_postfix_str(in_words(progress))
            bar.update(progress.step - bar.n)
            # Into a file or the log of a container
            if bar.disable and progress.seconds >= last_line + SECONDS_BETWEEN_LINES:
                step = f"step {progress.step} of {progress.total_steps}"
                print(f"{step}: {in_words(progress)}", flush=True)
                last_line = progress.seconds

        def trouble(sentence: str) -> None:
            bar.write(sentence, file=sys.stderr)

        finished = train_painter(options, sources, report, trouble, stop.is_set)
    if finished:
        print(f"{files.checkpoint}: the painter. {files.preview}: what it paints.")
    return finished


def in_words(progress: Report) -> str:
    losses = ", ".join(f"{name} {value:.3f}" for name, value in progress.losses.items())
    return f"{losses}, {duration(progress.seconds_left)} left"


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes / 60:.1f} h"


# --- SageMaker ---


def run_job(root: Path, stop: threading.Event) -> int:
    """Run the training job that is described under `root`. Return the exit code."""
    try:
        options = read_job(root)
        finished = train_job(options, root, stop)
    except (TrainingError, ApiError, CheckpointError) as error:
        return fail(root, str(error))
    except Exception as error:  # SageMaker shows the reason; the log has the rest
        traceback.print_exc()
        return fail(root, f"The training failed: {type(error).__name__}. The log has more.")
    if not finished:
        write_log("stopped", name=options.name)
        return STOPPED
    return 0


def fail(root: Path, reason: str) -> int:
    write_log("failed", reason=reason)
    path = root / "output" / "failure"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(reason[:FAILURE_LENGTH])
    return FAILURE


def read_job(root: Path) -> Options:
    """Return what the files under `root` ask for. Raises TrainingError."""
    path = root / "input" / "config" / "hyperparameters.json"
    try:
        given = json.loads(path.read_text())
    except FileNotFoundError:
        raise TrainingError(
            f"There are no arguments, and no {path} as SageMaker provides it. "
            "For the command line see: train --help"
        ) from None
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read: {error}") from None
    if not isinstance(given, dict):
        raise TrainingError(f"{path} must hold an object of hyperparameters.")

    channels = {}
    for name in CHANNELS:
        folder = root / "input" / "data" / name
        if folder.is_dir():
            channels[name] = folder
    for name in ("models_url", "progress_url"):
        if given.get(name):
            check_url(given[name], name)
    texts = {str(name): str(value) for name, value in given.items()}
    return from_hyperparameters(texts, channels, root / "model")


def train_job(options: Options, root: Path, stop: threading.Event) -> bool:
    """Train in checkpoints/, which outlives a Spot instance, then move the result to model/."""
    working = replace(options, output=root / "checkpoints")
    sources = read_sources(working)
    for note in sources.notes:
        write_log("left out", reason=note)
    if sources.remark:
        write_log("remark", message=sources.remark)
    write_log("training", name=options.name, **device_report(best_device()))
    writer = ProgressWriter(options.progress_url)

    def report(progress: Report, picture: Image.Image) -> None:
        write_log(
            "progress",
            step=progress.step,
            steps=progress.total_steps,
            seconds=round(progress.seconds, 1),
            seconds_left=round(progress.seconds_left, 1),
            **progress.losses,
        )
        writer.update(
            Progress(
                progress.step,
                progress.total_steps,
                progress.step / progress.total_steps,
                progress.losses["loss"],
                lambda: picture,
            )
        )

    def trouble(sentence: str) -> None:
        write_log("trouble", message=sentence)

    try:
        if not train_painter(working, sources, report, trouble, stop.is_set):
            return False
    finally:
        writer.finish()

    options.output.mkdir(parents=True, exist_ok=True)
    files = Files.of(working)
    for path in (files.checkpoint, files.recipe, files.preview, files.curve):
        if path.exists():
            shutil.copy(path, options.output / path.name)
    return True
