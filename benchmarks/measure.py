"""What all parts share: measuring in a process of its own, tables, plots, and stored results."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
# A JSON file for each part, so that each part can be measured again alone.
RESULTS = HERE / "results"
DEVICES = ("cpu", "cuda")

# What a part has measured, as JSON stores it.
Results = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """device: "cpu" or "cuda".

    pairs: (photograph, style). folder: for pictures, deleted in the end.
    """

    device: str
    pairs: list[tuple[str, str]]
    folder: Path


class MeasurementError(Exception):
    """A worker ended without a result. The message is the last line of its error output."""


def run(task: str, **arguments: Any) -> Any:  # noqa: ANN401 - what JSON can hold
    """Run a task of worker.py in a process of its own. Raises MeasurementError."""
    command = [sys.executable, "-m", "benchmarks.worker", json.dumps({"task": task, **arguments})]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise MeasurementError(lines[-1] if lines else f"exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def spread(values: Iterable[float], digits: int = 1) -> str:
    """Return the median, with the smallest and largest if there are several values."""
    values = list(values)
    median = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return f"{median} (once)"
    return f"{median} ({min(values):.{digits}f} to {max(values):.{digits}f}, {len(values)} runs)"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def machine(device: str) -> str:
    """Describe the machine and the versions, for the line above the tables."""
    told = run("versions", device=device)
    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    where = told["gpu"] or f"{cpu}, {os.cpu_count()} cores, {told['threads']} threads"
    return (
        f"{time.strftime('%Y-%m-%d')}, {where}, half precision {told['precision']}; "
        f"Python {platform.python_version()}, PyTorch {told['torch']}; "
        f"load of the machine before: {os.getloadavg()[0]:.1f}."
    )


def save(part: str, device: str, results: Results) -> None:
    path = RESULTS / device / f"{part}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


def found(part: str, device: str) -> Results | None:
    """Return what `save` saved, or None."""
    path = RESULTS / device / f"{part}.json"
    if not path.exists():
        return None
    results: Results = json.loads(path.read_text())
    return results


@contextmanager
def two_plots(path: Path, title: str = "") -> Iterator[Any]:
    """Yield two axes side by side to draw on, then save them."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2))
    yield axes
    if title:
        figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def picture_name(what: str, device: str, kind: str = "png") -> str:
    """Return the file name of a plot or picture; those of other devices carry the device's name."""
    if device == "cpu":
        return f"{what}.{kind}"
    return f"{what}-{device}.{kind}"


def read_pairs(
    parser: argparse.ArgumentParser, pairs: Iterable[Sequence[str]]
) -> list[tuple[str, str]]:
    """Return the pairs of photograph and style. Ends the program where a file is missing."""
    read = []
    for photo, style in pairs:
        for path in (photo, style):
            if not Path(path).is_file():
                parser.error(f"there is no file {path}")
        read.append((photo, style))
    return read
