"""What a training can be asked for: by its command line, or by SageMaker's hyperparameters."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..styles import NAME_PATTERN
from .loop import TrainingError
from .pictures import find_pictures

LAYOUTS = ("stylebot", "official")
MINUTES = (0.1, 20160.0)
FILTERS = (8, 128)
HYPERPARAMETERS = {
    "name",
    "minutes",
    "steps",
    "filters",
    "layout",
    "seed",
    "models_url",
    "progress_url",
}

DESCRIPTION = """\
Train a painter of your own.

  train --style painting.jpg --name klimt
      A painter from one picture, or several of the same style. Without --photos it learns from the
      photographs of examples/. 20 minutes on two CPU cores are enough for a first painter.

  train --paintings DIR --photos DIR --name klimt
      CycleGAN as in the paper, from a few hundred paintings and photographs. It takes a GPU a day.

While it works, NAME.jpg shows a photograph as the painter paints it now. Ctrl-C saves everything,
and the same command goes on. The result, style_NAME.pth, is a style for the server: put it into the
model directory.
"""


@dataclass(frozen=True)
class Options:
    """What to train.

    styles: pictures of one style. paintings: a folder; if given, CycleGAN is trained instead.
    photos: a folder, or None for those of examples/. start: a checkpoint to begin with, or None.
    minutes: for all steps together; None, for paintings only, is the length of the paper.
    filters: None for those of `start`, or 32.
    models_url, progress_url: where the painter and the progress are put as well, or None.
    """

    name: str
    styles: list[Path] = field(default_factory=list)
    paintings: Path | None = None
    photos: Path | None = None
    start: Path | None = None
    minutes: float | None = 20.0
    steps: int | None = None
    filters: int | None = None
    layout: str = "stylebot"
    seed: int = 0
    replace: bool = False
    output: Path = Path()
    models_url: str | None = None
    progress_url: str | None = None


def parse_command_line(arguments: Sequence[str]) -> list[Options]:
    """Return what the command line asks for: one training for each name. Exits where it is wrong.

    Raises TrainingError for values that do not fit together.
    """
    parser = argparse.ArgumentParser(
        prog="train", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--style", dest="styles", type=Path, action="append", default=[], metavar="PICTURE")
    add("--paintings", type=Path, metavar="DIR")
    add("--name", dest="names", action="append", required=True, help="such as klimt")
    add("--photos", type=Path, metavar="DIR", help="photographs to learn from")
    add("--from", dest="start", type=Path, metavar="CHECKPOINT", help="a painter to begin with")
    add("--minutes", type=float, help="default: 20, or 200 epochs with --paintings")
    add("--steps", type=int, help="instead of --minutes, to repeat a training exactly")
    add("--filters", type=int, help="32: small and quick, the default; 64: as in the paper")
    add("--layout", choices=LAYOUTS, help="official: for other programs; default of --paintings")
    add("--seed", type=int, default=0)
    add("--replace", action="store_true", help="replace a painter of the same name")
    add("-o", "--output", type=Path, default=Path(), metavar="DIR")
    given = parser.parse_args(arguments)

    names: list[str] = given.names
    groups = styles_by_name(names, given.styles)
    minutes = given.minutes
    if minutes is None:
        minutes = default_minutes(given.paintings)
    layout = given.layout or default_layout(given.paintings)
    trainings = []
    for name, styles in zip(names, groups, strict=True):
        options = Options(
            name=name,
            styles=styles,
            paintings=given.paintings,
            photos=given.photos,
            start=given.start,
            minutes=minutes,
            steps=given.steps,
            filters=given.filters,
            layout=layout,
            seed=given.seed,
            replace=given.replace,
            output=given.output,
        )
        check(options)
        trainings.append(options)
    return trainings


def default_minutes(paintings: Path | None) -> float | None:
    if paintings is not None:
        return None
    return Options.minutes


def default_layout(paintings: Path | None) -> str:
    """Return the layout of the paper where the method is that of the paper, or else ours."""
    if paintings is not None:
        return "official"
    return Options.layout


def styles_by_name(names: list[str], styles: list[Path]) -> list[list[Path]]:
    """Return the pictures of each painter: all for a single one, one each for several."""
    if len(names) == 1:
        return [styles]
    if len(names) != len(styles):
        raise TrainingError(
            f"There are {len(names)} names for {len(styles)} pictures. Give one --name for all "
            "pictures, which become one painter, or one for each picture."
        )
    return [[style] for style in styles]


def from_hyperparameters(given: dict[str, str], channels: dict[str, Path], output: Path) -> Options:
    """Return what a SageMaker training job asks for.

    given: hyperparameters; their values are strings. channels: the folders of the input channels:
    style, paintings, photos, from.
    Raises TrainingError if one is unknown, or its value is.
    """
    # SageMaker's own, such as sagemaker_program, are for its toolkits
    wanted = {name: text for name, text in given.items() if not name.startswith("sagemaker_")}
    unknown = sorted(wanted.keys() - HYPERPARAMETERS)
    if unknown:
        raise TrainingError(
            f"There is no hyperparameter {unknown[0]!r}. "
            f"Known are: {', '.join(sorted(HYPERPARAMETERS))}."
        )
    if "name" not in wanted:
        raise TrainingError("The hyperparameter name is missing: the painter's, such as klimt.")

    start = None
    if "from" in channels:
        start = next(iter(sorted(channels["from"].rglob("*.pth"))), None)
        if start is None:
            raise TrainingError("The channel from has no checkpoint, a .pth file.")
    styles = []
    if "style" in channels:
        styles = find_pictures(channels["style"])

    paintings = channels.get("paintings")
    options = Options(
        name=wanted["name"],
        styles=styles,
        paintings=paintings,
        photos=channels.get("photos"),
        start=start,
        minutes=number(wanted, "minutes", default_minutes(paintings)),
        steps=whole_number(wanted, "steps"),
        filters=whole_number(wanted, "filters"),
        layout=wanted.get("layout") or default_layout(paintings),
        seed=whole_number(wanted, "seed") or 0,
        replace=True,
        output=output,
        models_url=wanted.get("models_url"),
        progress_url=wanted.get("progress_url"),
    )
    check(options)
    return options


def number(given: dict[str, str], name: str, default: float | None) -> float | None:
    text = given.get(name, "")
    if not text:
        return default
    try:
        return float(text)
    except ValueError:
        raise TrainingError(f"The hyperparameter {name} must be a number, not {text!r}.") from None


def whole_number(given: dict[str, str], name: str) -> int | None:
    text = given.get(name, "")
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise TrainingError(
            f"The hyperparameter {name} must be a whole number, not {text!r}."
        ) from None


def check(options: Options) -> None:
    """Raise TrainingError if a value is not allowed, or two contradict each other."""
    if not NAME_PATTERN.fullmatch(options.name):
        raise TrainingError(
            f"{options.name!r} is no name for a painter: use up to 32 small letters, digits, _ "
            "and -, such as klimt."
        )
    if options.styles and options.paintings:
        raise TrainingError("Give either pictures of a style, or a folder of paintings.")
    if not options.styles and not options.paintings:
        raise TrainingError(
            "There is nothing to learn from: give --style PICTURE or --paintings DIR. "
            "A SageMaker job has the channels style and paintings for them."
        )
    if options.paintings and not options.photos:
        raise TrainingError(
            "Paintings alone are not enough: give --photos DIR as well (the channel photos of a "
            "SageMaker job), a few hundred photographs of what the painter shall paint."
        )
    if options.minutes is None and not options.paintings:
        raise TrainingError("minutes is missing.")
    if options.minutes is not None and not MINUTES[0] <= options.minutes <= MINUTES[1]:
        raise TrainingError(f"minutes must be from {MINUTES[0]:g} to {MINUTES[1]:g}.")
    if options.steps is not None and options.steps < 1:
        raise TrainingError("steps must be at least 1.")
    if options.filters is not None and not FILTERS[0] <= options.filters <= FILTERS[1]:
        raise TrainingError(f"filters must be from {FILTERS[0]} to {FILTERS[1]}.")
    if options.layout not in LAYOUTS:
        raise TrainingError(f"layout must be one of {', '.join(LAYOUTS)}.")
    if not 0 <= options.seed < 2**63:
        raise TrainingError("seed must be from 0 to 2^63 - 1.")
