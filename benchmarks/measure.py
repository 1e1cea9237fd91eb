"""What all parts share: a measurement in its own process, medians with their spread, the machine."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = HERE / "results"  # a JSON file for each part, so that each can be measured again alone
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Settings:
    """device: "cpu" or "cuda"; pairs: (photograph, style); folder: for pictures, thrown away in the end."""

    device: str
    pairs: list[tuple[str, str]]
    folder: Path


class MeasurementError(Exception):
    """A worker ended without a result; the message is the last line that it said."""


def run(task: str, **arguments: Any) -> Any:  # noqa: ANN401 - what JSON can hold
    """One task of worker.py in a process of its own. Raises MeasurementError."""
    command = [sys.executable, "-m", "benchmarks.worker", json.dumps({"task": task, **arguments})]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise MeasurementError(
            (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        )
    return json.loads(done.stdout.splitlines()[-1])


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def spread(values: Iterable[float], digits: int = 1) -> str:
    """Median, and the smallest and largest where there are more than one."""
    values = list(values)
    median = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return f"{median} (once)"
    return f"{median} ({min(values):.{digits}f} to {max(values):.{digits}f}, {len(values)} runs)"


def table(head: list[str], rows: list[list[str]]) -> str:
    return (
        "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows]) + "\n"
    )


def machine(device: str) -> str:
    """What is measured on and with, to be told above the tables."""
    told = run("versions", device=device)
    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    where = told["gpu"] or f"{cpu}, {os.cpu_count()} cores, {told['threads']} threads"
    return (
        f"{time.strftime('%Y-%m-%d')}, {where}, half precision {told['precision']}; Python "
        f"{platform.python_version()}, PyTorch {told['torch']}; load of the machine before: {os.getloadavg()[0]:.1f}."
    )


def save(part: str, device: str, results: dict[str, Any]) -> None:
    path = RESULTS / device / f"{part}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


def found(part: str, device: str) -> Any:  # noqa: ANN401
    """What `save` saved, or None."""
    path = RESULTS / device / f"{part}.json"
    return json.loads(path.read_text()) if path.exists() else None


@contextmanager
def two_plots(path: Path, title: str = "") -> Iterator[Any]:
    """Two axes side by side, to be drawn on and then saved."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2))
    yield axes
    if title:
        figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def picture_name(what: str, device: str, kind: str = "png") -> str:
    return f"{what}.{kind}" if device == "cpu" else f"{what}-{device}.{kind}"
