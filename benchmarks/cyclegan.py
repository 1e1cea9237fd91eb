"""CycleGAN: this project's generator against the plain eager one, NCHW and float32."""

import statistics
from pathlib import Path
from typing import Any

from benchmarks import growth
from benchmarks.measure import MeasurementError, Results, Settings, run, say, spread, table

TITLE = "CycleGAN"
# (processes, pictures in each after the first)
SIZES = {(256, 256): (3, 5), (800, 600): (3, 2)}
# For a pixel
GFLOP = 99 / 256**2
RIVALS = ("stylebot", "eager")


def measure(settings: Settings) -> Results:
    """Measure the seconds, the memory and the difference of the pictures."""
    from containers.cyclegan.generator import find_styles
    from containers.cyclegan.weights import DIRECTORY

    checkpoint = next(iter(find_styles(DIRECTORY).values()), None)
    if checkpoint is None:
        raise MeasurementError(
            "there is no checkpoint; fetch one with: python -m containers.cyclegan weights"
        )
    photo = settings.pairs[0][0]
    results: Results = {"checkpoint": checkpoint.name, "photo": Path(photo).name}
    results["sizes"] = []
    results["growth"] = []

    def stylize(rival: str, width: int, height: int, runs: int) -> Results:
        told: Results = run(
            "stylize",
            checkpoint=str(checkpoint),
            photo=photo,
            width=width,
            height=height,
            rival=rival,
            device=settings.device,
            runs=runs,
            result=str(settings.folder / f"{rival}.pt"),
        )
        seconds = statistics.median(told["seconds"] or [told["first"]])
        say(
            f"CycleGAN {width}x{height}, {rival}: {seconds:.3f} s, "
            f"first {told['first']:.3f} s, {told['memory']:.0f} MB"
        )
        return told

    for (width, height), (processes, runs) in SIZES.items():
        turns: dict[str, list[Any]] = {rival: [] for rival in RIVALS}
        for _ in range(processes):
            for rival in RIVALS:
                turns[rival].append(stylize(rival, width, height, runs))
        pictures = [str(settings.folder / f"{rival}.pt") for rival in RIVALS]
        difference = run("difference", one=pictures[0], other=pictures[1])
        size = {"width": width, "height": height, "turns": turns, "difference": difference}
        results["sizes"].append(size)
    for width, height in growth.SIZES:
        for rival in RIVALS:
            try:
                told = stylize(rival, width, height, 0 if width > 1024 else 1)
            except MeasurementError as error:
                say(f"CycleGAN {width}x{height}, {rival}: {error}")
                continue
            seconds = (told["seconds"] or [told["first"]])[-1]
            row = {"rival": rival, "width": width, "height": height}
            results["growth"].append({**row, "seconds": seconds, "memory": told["memory"]})
    results["throughput"] = run("throughput", device=settings.device)
    return results


def all_seconds(turns: list[Any]) -> list[float]:
    return [seconds for turn in turns for seconds in turn["seconds"]]


def report(results: Results) -> str:
    """Return the section of RESULTS.md."""
    rows = []
    best_rate = max(results["throughput"].values())
    for size in results["sizes"]:
        floor = GFLOP * size["width"] * size["height"] / best_rate
        ours, eager = (statistics.median(all_seconds(size["turns"][rival])) for rival in RIVALS)
        for rival, turns in size["turns"].items():
            ratio = "1"
            off_by = ""
            if rival == "stylebot":
                ratio = f"{eager / ours:.2f}"
                off_by = f"{size['difference']['max']:.2f}, {size['difference']['mean']:.3f}"
            seconds = all_seconds(turns)
            rows.append(
                [
                    f"{size['width']}x{size['height']}",
                    rival,
                    spread(seconds, 3),
                    ratio,
                    spread([turn["first"] for turn in turns], 2),
                    spread([turn["memory"] for turn in turns], 0),
                    off_by,
                    f"{statistics.median(seconds) / floor:.1f}",
                ]
            )
    head = [
        "size",
        "",
        "seconds",
        "times eager",
        "first, s",
        "peak MB",
        "off by (of 255): most, mean",
        "times the floor",
    ]
    rates = ", ".join(
        f"{rate:,.0f} GFLOP/s in {precision}" for precision, rate in results["throughput"].items()
    )
    return (
        f"Checkpoint {results['checkpoint']}, photograph {results['photo']}.\n\n"
        + table(head, rows)
        + f"\nThe floor: {GFLOP * 256**2:.0f} GFLOP at 256x256 at the best rate of these "
        + f"convolutions here ({rates}).\n"
    )
