"""Print the coverage of the last test run: `python -m tests.coverage_table [--require PERCENT]`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import coverage

# A line of the table stands for all files whose path starts so.
PARTS = (
    "bot.py",
    "deploy.py",
    "aws/",
    "containers/common/",
    "containers/serving/",
    "containers/nst/",
    "containers/cyclegan/",
    "local/",
    "packages/sagemaker-local-async/src/",
)
# Everything that strangers send goes through these two.
REQUIRED_PARTS = ("bot.py", "containers/serving/")


@dataclass
class Covered:
    """How many lines and branches there are, and how many of them ran."""

    lines: int = 0
    lines_run: int = 0
    branches: int = 0
    branches_run: int = 0

    def line_percent(self) -> float:
        return _percent(self.lines_run, self.lines)

    def branch_percent(self) -> float:
        return _percent(self.branches_run, self.branches)


def _percent(part: int, whole: int) -> float:
    return 100.0 if whole == 0 else 100.0 * part / whole


def measure() -> dict[str, Covered]:
    """Return the coverage of each part, read from the data file of the last run."""
    data = coverage.Coverage()
    data.load()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        data.json_report(outfile=str(report))
        files = json.loads(report.read_text())["files"]

    parts: dict[str, Covered] = {}
    for path, file in files.items():
        part = next((part for part in PARTS if path.startswith(part)), None)
        if part is None:
            continue
        covered = parts.setdefault(part, Covered())
        summary = file["summary"]
        covered.lines += summary["num_statements"]
        covered.lines_run += summary["covered_lines"]
        covered.branches += summary["num_branches"]
        covered.branches_run += summary["covered_branches"]
    return parts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.coverage_table", description=__doc__)
    parser.add_argument(
        "--require",
        type=float,
        metavar="PERCENT",
        help=f"fail if {' or '.join(REQUIRED_PARTS)} has less of its branches covered",
    )
    required: float | None = parser.parse_args().require

    parts = measure()
    print(f"{'covered by the tests':<24}{'lines':>8}{'branches':>10}")
    for name in PARTS:
        if covered := parts.get(name):
            print(f"{name:<24}{covered.line_percent():>7.1f}%{covered.branch_percent():>9.1f}%")

    if required is None:
        return 0
    failed = False
    for name in REQUIRED_PARTS:
        covered = parts.get(name, Covered(branches=1))
        if covered.branch_percent() < required:
            failed = True
            print(
                f"{name}: {covered.branch_percent():.1f} % of the branches are covered, "
                f"{required:.0f} % are required. `.venv/bin/coverage html` shows which are not.",
                file=sys.stderr,
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
