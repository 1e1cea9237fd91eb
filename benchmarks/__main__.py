"""`python -m benchmarks`: measures this project and its peers, interleaved, and writes RESULTS.md with its plots."""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import cost, cyclegan, nst, serve
from benchmarks.measure import RESULTS, ROOT, MeasurementError, Settings, machine, save, say

HERE = Path(__file__).parent
EXAMPLES = ROOT / "examples"
PAIRS = [("photos/chelsea.jpg", "styles/swirls.jpg"), ("photos/coffee.jpg", "styles/waves.jpg")]
MINUTES = {"cyclegan": 5, "serve": 4, "nst": 35, "bot": 8}  # on two CPU cores
TITLES = {
    "nst": "Neural style transfer",
    "cyclegan": "Painters (CycleGAN)",
    "serve": "Servers",
    "bot": "The bot",
}


def measure_bot(settings: Settings) -> None:
    from benchmarks import bot

    with contextlib.redirect_stdout(io.StringIO()) as said:
        bot.main()
    save("bot", {"table": said.getvalue()})


def write_report() -> None:
    """RESULTS.md and the plots, out of what each part left when it was last measured."""
    found = {part: json.loads((RESULTS / f"{part}.json").read_text()) for part in (*TITLES, "machine") if exists(part)}
    reports = {"nst": nst.report, "cyclegan": cyclegan.report, "serve": serve.report, "bot": lambda r: r["table"]}
    text = ["# Results", "", "Made by `python -m benchmarks`. Medians, with the smallest and largest of the runs.", ""]
    for part, title in TITLES.items():
        if part not in found:
            continue
        text += [f"## {title}", "", told(found["machine"][part]), "", reports[part](found[part])]
        if part in ("nst", "serve"):
            {"nst": nst.plot, "serve": serve.plot}[part](found[part], HERE / f"{part}.png")
            text += [f"![]({part}.png)", ""]
    if "nst" in found or "cyclegan" in found:
        cyclegan.plot_growth(found.get("nst"), found.get("cyclegan"), HERE / "growth.png")
        text += ["## Growth", "", "![seconds and memory against pixels](growth.png)", ""]
    text += ["## Cost", "", cost.report(found), "", (HERE / "notes.md").read_text()]
    (HERE / "RESULTS.md").write_text("\n".join(text).rstrip() + "\n")


def exists(part: str) -> bool:
    return (RESULTS / f"{part}.json").exists()


def told(machine: dict[str, Any]) -> str:
    where = machine["gpu"] or machine["cpu"]
    return (
        f"{machine['date']}, {where}, {machine['threads']} threads, half precision {machine['precision']}; "
        f"Python {machine['python']}, PyTorch {machine['torch']}; load of the machine before: {machine['load']}."
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=list(MINUTES), help="one part; the others' last results stay in RESULTS.md")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--pair",
        nargs=2,
        action="append",
        metavar=("PHOTO", "STYLE"),
        help="pictures for NST, the first photograph for the painters too (by default two pairs of examples/)",
    )
    arguments = parser.parse_args()
    pairs = arguments.pair or [[str(EXAMPLES / path) for path in pair] for pair in PAIRS]
    for path in (path for pair in pairs for path in pair):
        if not Path(path).is_file():
            parser.error(f"there is no file {path}")
    parts = [arguments.only] if arguments.only else list(MINUTES)
    minutes = sum(MINUTES[part] for part in parts)
    say(f"{', '.join(parts)}: about {minutes} minutes on two CPU cores; let nothing else run")
    measures = {"nst": nst.measure, "cyclegan": cyclegan.measure, "serve": serve.measure, "bot": measure_bot}
    failed = False
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        settings = Settings(arguments.device, [(a, b) for a, b in pairs], Path(folder))
        for part in parts:
            started = time.monotonic()
            try:
                here = machine(arguments.device)
                measures[part](settings)
            except MeasurementError as error:
                failed = True
                say(f"{part}: {error}")
                continue
            machines = json.loads((RESULTS / "machine.json").read_text()) if exists("machine") else {}
            save("machine", machines | {part: here})
            write_report()
            say(f"{part} took {(time.monotonic() - started) / 60:.0f} minutes; {HERE / 'RESULTS.md'} is up to date")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
