"""Training a painter: minutes against both losses, on photographs that it has not seen.

Beside ours, pytorch/examples' fast_neural_style, plainly, and neural style transfer itself, which
makes each picture anew.
"""

from pathlib import Path
from typing import Any

from benchmarks.measure import Results, Settings, run, say, table, two_plots
from containers.cyclegan.training.painter import EXAMPLES
from containers.cyclegan.training.pictures import find_pictures

TITLE = "Training a painter"
# The pictures are judged with this longer side, at which painters see their style.
SIZE = 512
# The pictures are made after so many minutes of training.
MARKS = (0.5, 1.0, 2.0, 4.0, 8.0)
RIVALS = ("stylebot", "fast_neural_style")
NST = "neural style transfer"


def measure(settings: Settings) -> Results:
    """Train a painter for each style by each rival, and judge it on each photograph."""
    photographs = unique(content for content, _ in settings.pairs)
    styles = unique(style for _, style in settings.pairs)
    held_out = {Path(path).resolve() for path in photographs}
    learned = [str(path) for path in find_pictures(EXAMPLES) if path.resolve() not in held_out]

    results: Results = {"size": SIZE, "learned": len(learned), "styles": []}
    for style in styles:
        curves: dict[str, list[Results]] = {}
        for rival in RIVALS:
            curves[rival] = run(
                "train",
                rival=rival,
                style=style,
                learned=learned,
                photographs=photographs,
                marks=MARKS,
                size=SIZE,
                device=settings.device,
                folder=str(settings.folder),
            )
            say(f"{rival}, {Path(style).stem}: {curves[rival][-1]['steps']} steps")
        curves[NST] = [transfer(settings, photographs, style)]
        for points in curves.values():
            for point in points:
                point |= judged(style, photographs, point.pop("pictures"))
        results["styles"].append({"style": Path(style).name, "curves": curves})
    results["photographs"] = [Path(path).name for path in photographs]
    return results


def unique(paths: Any) -> list[str]:  # noqa: ANN401 - any iterable of texts
    return list(dict.fromkeys(paths))


def transfer(settings: Settings, photographs: list[str], style: str) -> Results:
    """Return the pictures of neural style transfer, and the seconds of each."""
    pictures = []
    seconds = 0.0
    for number, content in enumerate(photographs):
        told = run(
            "nst",
            rival="stylebot",
            content=content,
            style=style,
            size=SIZE,
            device=settings.device,
            folder=str(settings.folder),
            name=f"painters_{Path(style).stem}_{number}",
        )
        pictures.append(told["frames"][-1]["path"])
        seconds += told["seconds"]
    return {"pictures": pictures, "seconds_a_picture": seconds / len(photographs)}


def judged(style: str, photographs: list[str], pictures: list[str]) -> Results:
    """Return the mean of each loss over the photographs."""
    losses = [
        run("judged", content=content, style=style, pictures=[picture])[0]
        for content, picture in zip(photographs, pictures, strict=True)
    ]
    return {kind: sum(one[kind] for one in losses) / len(losses) for kind in ("style", "content")}


def report(results: Results) -> str:
    """Return the table of the last pictures."""
    rows = []
    for one in results["styles"]:
        for name, points in one["curves"].items():
            last = points[-1]
            minutes = f"{last['minutes']:.1f}" if "minutes" in last else "none"
            rows.append(
                [
                    Path(one["style"]).stem,
                    name,
                    minutes,
                    str(last.get("steps", "")),
                    f"{last['style']:.2e}",
                    f"{last['content']:.2e}",
                    f"{last['seconds_a_picture']:.2f}",
                ]
            )
    head = ["style", "", "minutes", "steps", "style loss", "content loss", "seconds a picture"]
    names = ", ".join(results["photographs"])
    text = f"{results['size']} pixels, the mean of photographs held out ({names}); learned from "
    return f"{text}{results['learned']} photographs.\n\n{table(head, rows)}"


def plot(results: Results, path: Path) -> None:
    """Plot both losses against the minutes, for the first style."""
    first = results["styles"][0]
    with two_plots(path, f"A painter of {first['style']}") as axes:
        for axis, kind in zip(axes, ("style", "content"), strict=True):
            for name in RIVALS:
                points = first["curves"][name]
                minutes = [point["minutes"] for point in points]
                axis.plot(minutes, [point[kind] for point in points], "o-", label=name)
            axis.axhline(first["curves"][NST][0][kind], color="gray", linestyle="--", label=NST)
            axis.set(
                xscale="log",
                yscale="log",
                xlabel="minutes of training",
                title=f"{kind} loss, neutral (lower is closer)",
            )
            axis.grid(alpha=0.3, which="both")
        axes[0].legend()
