"""Fetch the CycleGAN checkpoints: `python -m containers.cyclegan.weights [--models DIR]`.

Four styles come from the authors' own server, and vintage from the package `vintagify` (MIT), of
which only the checkpoint is read. If a source cannot be reached, a message names it, and its styles
are left out. `--missing` says which those are, and fetches nothing.
"""

import argparse
import sys
from pathlib import Path

from containers.common.weights import WeightsError, download, from_package

DIRECTORY = Path(__file__).with_name("weights")
OFFICIAL_STYLES = ("monet", "vangogh", "cezanne", "ukiyoe")
OFFICIAL_URL = "http://efrosgans.eecs.berkeley.edu/cyclegan/pretrained_models/style_{name}.pth"
VINTAGE_REQUIREMENT = "vintagify==0.1.2"
VINTAGE_MEMBER = "vintagify/resources/G_A2B_epoch33.pth"
VINTAGE_SHA256 = "c502cd44ca720d004f89775f593fc403acc6b36d27d65390cbe2f476f771e560"


def fetch(directory: Path, official_url: str = OFFICIAL_URL) -> dict[str, WeightsError | None]:
    """Fetch every style into `directory`, as style_<name>.pth.

    Files that are there are only checked. Returns for each style None, or what went wrong. If the
    authors' host does not answer, it is not asked for its other styles.
    """
    problems: dict[str, WeightsError | None] = {"vintage": None}
    vintage = checkpoint_path(directory, "vintage")
    try:
        from_package(VINTAGE_REQUIREMENT, VINTAGE_MEMBER, VINTAGE_SHA256, vintage)
    except WeightsError as error:
        problems["vintage"] = error

    unreachable: WeightsError | None = None
    for name in OFFICIAL_STYLES:
        destination = checkpoint_path(directory, name)
        if unreachable and not destination.exists():
            problems[name] = unreachable
            continue
        problems[name] = None
        try:
            download(official_url.format(name=name), destination)
        except WeightsError as error:
            problems[name] = error
            if error.unreachable:
                unreachable = error
    return problems


def missing_styles(directory: Path) -> list[str]:
    """Return the styles that `fetch` would fetch and that are not there."""
    styles = (*OFFICIAL_STYLES, "vintage")
    return [name for name in styles if not checkpoint_path(directory, name).exists()]


def missing_message(directory: Path) -> str | None:
    """Return one line that says which styles are missing and what to do; None if none is."""
    missing = missing_styles(directory)
    if not missing:
        return None
    return (
        f"Styles that could not be fetched yet: {', '.join(missing)}. "
        "To try again, run: ./local.sh weights"
    )


def main() -> int:
    """Fetch the checkpoints. Return the exit code: 1 if there is none, or a damaged one."""
    parser = argparse.ArgumentParser(prog="python -m containers.cyclegan.weights")
    parser.add_argument(
        "--models", type=Path, default=DIRECTORY, metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--missing", action="store_true", help="only say which styles are missing, in one line"
    )
    given = parser.parse_args()
    directory: Path = given.models
    if given.missing:
        if message := missing_message(directory):
            print(message)
        return 0

    problems = fetch(directory)
    report(problems)

    names = (path.stem.removeprefix("style_") for path in directory.glob("[!.]*.pth"))
    # A name that is not UTF-8 could not be printed
    styles = sorted(name for name in names if name.isprintable())
    found = ", ".join(styles) or "none"
    print(f"Styles in {directory}: {found}.")

    # A file that is there in spite of a problem is damaged or was replaced: nobody should serve it.
    damaged = [
        name
        for name, problem in problems.items()
        if problem and checkpoint_path(directory, name).exists()
    ]
    if damaged or not styles:
        return 1
    return 0


def report(problems: dict[str, WeightsError | None]) -> None:
    """Print each problem once, with the styles that it concerns."""
    styles_by_message: dict[str, list[str]] = {}
    for name, problem in problems.items():
        if problem:
            styles_by_message.setdefault(str(problem), []).append(name)
    for message, names in styles_by_message.items():
        print(
            f"{message} Until this is run again with success, "
            f"{', '.join(names)} will not be offered.",
            file=sys.stderr,
        )


def checkpoint_path(directory: Path, name: str) -> Path:
    return directory / f"style_{name}.pth"


if __name__ == "__main__":
    sys.exit(main())
