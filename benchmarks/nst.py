"""Neural style transfer: this project, pastiche, neural-style, the project's first version, PyTorch's tutorial."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import MeasurementError, Settings, run, save, say, spread, table

SIZE = 320
EVALUATION_GFLOP = 378.7 / 512**2  # a pixel: forward and the input's gradient, to relu5_1
GROWTH = [(128, 96), (256, 192), (512, 384), (1024, 768), (2048, 1536)]
PASTICHE_STEPS = (100, 500)


def rounds() -> list[list[tuple[str, dict[str, Any]]]]:
    """Who runs when: in turn, so that a machine that slows down slows all of them. The longest runs once."""
    short, long = ({"steps": steps} for steps in PASTICHE_STEPS)
    each: list[tuple[str, dict[str, Any]]] = [("stylebot", {}), ("pastiche", short), ("seed", {}), ("tutorial", {})]
    return [each, [("stylebot", {}), ("pastiche", long)], each]


def measure(settings: Settings) -> None:
    results: dict[str, Any] = {"size": SIZE, "pairs": []}
    for number, (content, style) in enumerate(settings.pairs):
        turns = rounds() if number == 0 else [[("stylebot", {}), ("pastiche", {"steps": PASTICHE_STEPS[0]})]]
        runs: dict[str, list[Any]] = {}
        for turn, rivals in enumerate(turns):
            for rival, more in rivals:
                title = " ".join([rival, *(str(value) for value in more.values())])
                name = f"nst_{number}_{turn}_{title.replace(' ', '_')}"
                told = attempt(settings, title, rival, content, style, name, more)
                if told:
                    runs.setdefault(title, []).append(told)
                    say(f"NST, {Path(content).stem} + {Path(style).stem}, {title}: {told['seconds']:.1f} s")
        judge_all(content, style, runs)
        results["pairs"].append({"content": Path(content).name, "style": Path(style).name, "runs": runs})
    results["neural-style"] = neural_style(settings)
    results["throughput"] = run("throughput", device=settings.device)
    content, style = settings.pairs[0]
    results["growth"] = []
    for width, height in GROWTH:
        try:
            told = run("evaluation", content=content, style=style, width=width, height=height, device=settings.device)
        except MeasurementError as error:
            say(f"NST, one evaluation at {width}x{height}: {error}")
            continue
        results["growth"].append({"width": width, "height": height, **told})
        say(f"NST, one evaluation at {width}x{height}: {told['seconds']:.2f} s, {told['memory']:.0f} MB")
    save("nst", results)


def attempt(
    settings: Settings, title: str, rival: str, content: str, style: str, name: str, more: dict[str, Any]
) -> Any:  # noqa: ANN401
    common = {"content": content, "style": style, "size": SIZE, "device": settings.device}
    try:
        return run("nst", rival=rival, folder=str(settings.folder), name=name, **common, **more)
    except MeasurementError as error:
        say(f"NST, {title}: {error}")
        return None


def judge_all(content: str, style: str, runs: dict[str, list[Any]]) -> None:
    frames = [frame for told in runs.values() for one in told for frame in one["frames"]]
    losses = run("judged", content=content, style=style, pictures=[frame.pop("path") for frame in frames])
    for frame, loss in zip(frames, losses, strict=True):
        frame |= loss


def neural_style(settings: Settings) -> str:
    """Why the package cannot be measured here, or that it can: it only runs as a command, and needs torchvision."""
    command = [sys.executable, "-c", "import neural_style, torchvision.transforms"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return f"not measured: {done.stderr.strip().splitlines()[-1]}"
    content, style = settings.pairs[0]
    return neural_style_run(settings, content, style)


def neural_style_run(settings: Settings, content: str, style: str) -> str:
    weights, output = settings.folder / "vgg19-original.pth", settings.folder / "neural-style.png"
    run("export_vgg", path=str(weights))
    command = [sys.executable, "-m", "neural_style.neural_style", "-content_image", content, "-style_image", style]
    command += ["-model_file", str(weights), "-disable_check", "-image_size", str(SIZE), "-num_iterations", "100"]
    command += ["-init", "image", "-gpu", "c" if settings.device == "cpu" else "0", "-output_image", str(output)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        return f"not measured: {done.stderr.strip().splitlines()[-1]}"
    loss = run("judged", content=content, style=style, pictures=[str(output)])[0]
    return f"100 iterations {seconds:.0f} s with its start, style {loss['style']:.3g}, content {loss['content']:.3g}"


def reached(run_: Any, style: float, content: float) -> float | None:  # noqa: ANN401
    """Seconds until both losses were at most these, by the first frame where they were."""
    return next((f["seconds"] for f in run_["frames"] if f["style"] <= style and f["content"] <= content), None)


def report(results: dict[str, Any]) -> str:
    parts = []
    for pair in results["pairs"]:
        rows = []
        bar = pair["runs"].get(f"pastiche {PASTICHE_STEPS[0]}")
        for title, told in pair["runs"].items():
            final = told[0]["frames"][-1]
            cells = [title, spread(one["seconds"] for one in told), f"{final['style']:.3g}", f"{final['content']:.3g}"]
            if bar:
                goal = bar[0]["frames"][-1]
                times = [reached(one, goal["style"], goal["content"]) for one in told]
                cells.append(spread([t for t in times if t is not None]) if None not in times else "never")
            rows.append([*cells, spread([one["memory"] for one in told], 0), spread([one["start"] for one in told])])
        head = ["", "seconds", "style loss", "content loss"]
        head += [f"seconds to both of pastiche {PASTICHE_STEPS[0]}'s losses"] if bar else []
        parts += [f"### {pair['content']} in the style of {pair['style']}, longer side {results['size']}\n"]
        parts += [table([*head, "peak MB", "start, s"], rows)]
    rates = results["throughput"]
    ours = results["pairs"][0]["runs"]["stylebot"]
    parts.append("neural-style (of the package index): " + results["neural-style"] + ".\n")
    work = schedule_gflop(results["size"], results["size"] * 3 // 4)
    best = max(rates.values())
    seconds = sorted(one["seconds"] for one in ours)[len(ours) // 2]
    parts.append(
        f"The floor: the default schedule at {results['size']}x{results['size'] * 3 // 4} is {work:,.0f} GFLOP; "
        f"convolutions here reach {' or '.join(f'{v:,.0f} GFLOP/s in {k}' for k, v in rates.items())}, "
        f"so {work / best:.1f} s; the default took {seconds * best / work:.1f} times that.\n"
    )
    return "\n".join(parts)


def schedule_gflop(width: int, height: int) -> float:
    from containers.nst.nst import Options, schedule

    work = sum(count * share**2 for share, count in schedule((width, height), Options()))
    return work * EVALUATION_GFLOP * width * height


def plot(results: dict[str, Any], path: Path) -> None:
    """Loss against seconds: style and content, a line for each rival's first run."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2))
    pair = results["pairs"][0]
    for title, told in pair["runs"].items():
        frames = told[0]["frames"]
        for axis, kind in zip(axes, ("style", "content"), strict=True):
            line = axis.plot([f["seconds"] for f in frames], [f[kind] for f in frames], label=title)
            axis.plot(frames[-1]["seconds"], frames[-1][kind], "o", color=line[0].get_color())
    for axis, kind in zip(axes, ("style", "content"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="seconds", title=f"{kind} loss, neutral (lower is closer)")
        axis.grid(alpha=0.3, which="both")
    axes[0].legend()
    figure.suptitle(f"{pair['content']} in the style of {pair['style']}, longer side {results['size']}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
