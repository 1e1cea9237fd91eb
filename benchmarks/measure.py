"""What all parts share: a measurement in its own process, medians with their spread, the machine."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")  # a JSON file for each part, so that each can be measured again alone


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
        raise MeasurementError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
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
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows]) + "\n"


def machine(device: str) -> dict[str, Any]:
    """What was measured on and with, to be told above the tables."""
    told = run("versions", device=device)
    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": f"{cpu}, {os.cpu_count()} cores",
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **told,
    }


def save(part: str, results: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{part}.json").write_text(json.dumps(results, indent=1) + "\n")
