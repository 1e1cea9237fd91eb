"""`python -m benchmarks`: measure this project and its peers in turn, and write RESULTS.md."""

import argparse
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from benchmarks import cost, growth
from benchmarks.measure import (
    DEVICES,
    HERE,
    ROOT,
    MeasurementError,
    Results,
    Settings,
    found,
    machine,
    picture_name,
    read_pairs,
    save,
    say,
)

EXAMPLES = ROOT / "examples"
PAIRS = [("photos/chelsea.jpg", "styles/swirls.jpg"), ("photos/coffee.jpg", "styles/waves.jpg")]
# Each part is a module of this name, with the minutes that it takes on two CPU cores.
MINUTES = {"nst": 28, "cyclegan": 4, "painters": 40, "serve": 2, "bot": 2}
# What RESULTS.md has a section about; `python -m benchmarks.judge` measures the last one.
SECTIONS = [*MINUTES, "judge"]
# The parts that need PyTorch and Pillow alone, and minutes on a GPU.
ALGORITHMS = ["nst", "cyclegan"]


def write_report() -> None:
    """Write RESULTS.md and the plots from the last results of each part."""
    text = ["# Results", ""]
    text += ["Made by `python -m benchmarks`. Medians, with the smallest and largest of the runs."]
    text += [""]
    for name in SECTIONS:
        for device in DEVICES:
            results = found(name, device)
            if results is not None:
                text += part_report(name, device, results)
    text += ["## Growth", "", *growth.plots(HERE)]
    text += ["## Cost", "", cost.report(), ""]
    text += [(HERE / "notes.md").read_text()]
    (HERE / "RESULTS.md").write_text("\n".join(text).rstrip() + "\n")


def part_report(name: str, device: str, results: Results) -> list[str]:
    """Return the lines of RESULTS.md about one part; draw its plot if it has one."""
    part = import_module(f"benchmarks.{name}")
    title = part.TITLE
    if device == "cuda":
        title += " on a GPU"
    lines = [f"## {title}", "", results["machine"], "", part.report(results), ""]
    if hasattr(part, "plot"):
        picture = picture_name(name, device)
        part.plot(results, HERE / picture)
        lines += [f"![]({picture})", ""]
    return lines


def parse_arguments() -> tuple[str, list[tuple[str, str]], list[str]]:
    """Return the device, the pairs of pictures, and the parts to measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    choices = [*MINUTES, "report"]
    parser.add_argument(
        "--only", choices=choices, help="one part; the others' last results stay in RESULTS.md"
    )
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="cpu",
        help="cuda: the two algorithms, by PyTorch alone",
    )
    parser.add_argument(
        "--pair",
        nargs=2,
        action="append",
        metavar=("PHOTO", "STYLE"),
        help="pictures for NST, the first photograph also for CycleGAN (default: two of examples/)",
    )
    arguments = parser.parse_args()

    pairs = [(str(EXAMPLES / photo), str(EXAMPLES / style)) for photo, style in PAIRS]
    pairs = read_pairs(parser, arguments.pair or pairs)

    if arguments.only == "report":
        parts = []
    elif arguments.only:
        parts = [arguments.only]
    elif arguments.device == "cpu":
        parts = list(MINUTES)
    else:
        parts = ALGORITHMS
    return arguments.device, pairs, parts


def measure_part(name: str, settings: Settings) -> bool:
    """Measure one part and save its results. Return whether that worked."""
    started = time.monotonic()
    part = import_module(f"benchmarks.{name}")
    try:
        results = {"machine": machine(settings.device), **part.measure(settings)}
    except MeasurementError as error:
        say(f"{name}: {error}")
        return False
    save(name, settings.device, results)
    say(f"{name} took {(time.monotonic() - started) / 60:.0f} minutes")
    print(part.report(results))
    return True


def main() -> int:
    """Measure what the command line names. Return the exit code."""
    device, pairs, parts = parse_arguments()
    if parts and device == "cpu":
        minutes = sum(MINUTES[name] for name in parts)
        say(f"{', '.join(parts)}: about {minutes} minutes on two cores; run nothing else")

    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        settings = Settings(device, pairs, Path(folder))
        succeeded = [measure_part(name, settings) for name in parts]

    try:
        write_report()
    except ImportError as error:
        say(
            f"RESULTS.md stays as it was: {error}. "
            "To draw them, run ./setup.sh benchmarks, then this again with --only report."
        )
        return 0 if succeeded and all(succeeded) else 1
    say(f"{HERE / 'RESULTS.md'} is up to date")
    return 0 if all(succeeded) else 1


if __name__ == "__main__":
    sys.exit(main())
