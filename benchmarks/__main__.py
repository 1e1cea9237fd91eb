"""`python -m benchmarks`: measures this project and its peers, interleaved, and writes RESULTS.md with its plots."""

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
    Settings,
    found,
    machine,
    picture_name,
    save,
    say,
)

EXAMPLES = ROOT / "examples"
PAIRS = [("photos/chelsea.jpg", "styles/swirls.jpg"), ("photos/coffee.jpg", "styles/waves.jpg")]
MINUTES = {
    "nst": 28,
    "cyclegan": 4,
    "serve": 2,
    "bot": 2,
}  # each part, a module with its name, on two CPU cores
ALGORITHMS = ["nst", "cyclegan"]  # which PyTorch alone is enough for


def write_report() -> None:
    """RESULTS.md and the plots, out of what each part left when it was last measured."""
    text = [
        "# Results",
        "",
        "Made by `python -m benchmarks`. Medians, with the smallest and largest of the runs.",
        "",
    ]
    for name in MINUTES:
        part = import_module(f"benchmarks.{name}")
        for device in DEVICES:
            results = found(name, device)
            if results is None:
                continue
            text += [
                f"## {part.TITLE}{' on a GPU' if device == 'cuda' else ''}",
                "",
                results["machine"],
                "",
            ]
            text += [part.report(results), ""]
            if hasattr(part, "plot"):
                part.plot(results, HERE / picture_name(name, device))
                text += [f"![]({picture_name(name, device)})", ""]
    text += [
        "## Growth",
        "",
        *growth.plots(HERE),
        "## Cost",
        "",
        cost.report(),
        "",
        (HERE / "notes.md").read_text(),
    ]
    (HERE / "RESULTS.md").write_text("\n".join(text).rstrip() + "\n")


def main() -> int:
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
        help="pictures for NST, the first photograph for the painters too (by default two pairs of examples/)",
    )
    arguments = parser.parse_args()
    pairs = [
        (a, b)
        for a, b in arguments.pair or [[str(EXAMPLES / path) for path in pair] for pair in PAIRS]
    ]
    for path in (path for pair in pairs for path in pair):
        if not Path(path).is_file():
            parser.error(f"there is no file {path}")
    parts = list(MINUTES) if arguments.device == "cpu" else ALGORITHMS
    if arguments.only:
        parts = [arguments.only] if arguments.only != "report" else []
    if parts and arguments.device == "cpu":
        say(
            f"{', '.join(parts)}: about {sum(map(MINUTES.__getitem__, parts))} minutes on two cores; run nothing else"
        )
    failed = False
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        settings = Settings(arguments.device, pairs, Path(folder))
        for name in parts:
            started = time.monotonic()
            try:
                part, here = import_module(f"benchmarks.{name}"), machine(arguments.device)
                results = {"machine": here, **part.measure(settings)}
            except MeasurementError as error:
                failed = True
                say(f"{name}: {error}")
                continue
            save(name, arguments.device, results)
            say(f"{name} took {(time.monotonic() - started) / 60:.0f} minutes")
            print(part.report(results))
    try:
        write_report()
    except ImportError as error:
        say(
            f"RESULTS.md stays as it was: {error}. Where benchmarks/requirements.txt is installed, --only report"
        )
        return int(failed or not parts)
    say(f"{HERE / 'RESULTS.md'} is up to date")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
