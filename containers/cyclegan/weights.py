"""Fetch the CycleGAN styles: `python -m containers.cyclegan.weights [--models DIR]`.

The four painters come from the authors' own server, vintage out of the package `vintagify` (MIT), of which
only the checkpoint is read. A source that cannot be reached is named and left out.
"""

import argparse
import sys
from pathlib import Path

from containers.common.weights import WeightsError, download, from_package

DIRECTORY = Path(__file__).with_name("weights")
PAINTERS = ("monet", "vangogh", "cezanne", "ukiyoe")
PAINTER_URL = "http://efrosgans.eecs.berkeley.edu/cyclegan/pretrained_models/style_{name}.pth"
VINTAGE_REQUIREMENT = "vintagify==0.1.2"
VINTAGE_MEMBER = "vintagify/resources/G_A2B_epoch33.pth"
VINTAGE_SHA256 = "c502cd44ca720d004f89775f593fc403acc6b36d27d65390cbe2f476f771e560"


def fetch(directory: Path, painter_url: str = PAINTER_URL) -> dict[str, WeightsError | None]:
    """Fetch every style into `directory`, as style_<name>.pth; those already there are only checked.

    Returns for each style None, or what went wrong. Once the painters' host has not answered, the painters
    that are still missing get the same answer without another try.
    """
    problems: dict[str, WeightsError | None] = {"vintage": None}
    try:
        from_package(
            VINTAGE_REQUIREMENT, VINTAGE_MEMBER, VINTAGE_SHA256, _path(directory, "vintage")
        )
    except WeightsError as error:
        problems["vintage"] = error
    unreachable: WeightsError | None = None
    for name in PAINTERS:
        destination = _path(directory, name)
        if unreachable and not destination.exists():
            problems[name] = unreachable
            continue
        try:
            problems[name] = None
            download(painter_url.format(name=name), destination)
        except WeightsError as error:
            problems[name] = error
            unreachable = error if error.unreachable else unreachable
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m containers.cyclegan.weights")
    parser.add_argument(
        "--models", type=Path, default=DIRECTORY, metavar="DIR", help="default: %(default)s"
    )
    directory = parser.parse_args().models

    problems = fetch(directory)
    for message in dict.fromkeys(str(problem) for problem in problems.values() if problem):
        missing = ", ".join(name for name, problem in problems.items() if str(problem) == message)
        print(
            f"{message} Until this is run again with success, {missing} will not be offered.",
            file=sys.stderr,
        )

    # A file that is there in spite of a problem is damaged or was exchanged: nobody should serve that.
    damaged = [
        name for name, problem in problems.items() if problem and _path(directory, name).exists()
    ]
    styles = sorted(path.stem.removeprefix("style_") for path in directory.glob("[!.]*.pth"))
    print(f"Styles in {directory}: {', '.join(styles) or 'none, so nothing can be painted'}.")
    return 1 if damaged or not styles else 0


def _path(directory: Path, name: str) -> Path:
    return directory / f"style_{name}.pth"


if __name__ == "__main__":
    sys.exit(main())
