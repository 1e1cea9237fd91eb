"""Seconds and memory against pixels, of both algorithms."""

from pathlib import Path

from benchmarks.measure import DEVICES, Results, found, picture_name, two_plots

Curves = dict[str, list[Results]]

SIZES = [(128, 96), (256, 192), (512, 384), (1024, 768), (2048, 1536)]


def plots(folder: Path) -> list[str]:
    """Draw a plot for each device with results. Return the lines of RESULTS.md that show them."""
    lines = []
    for device in DEVICES:
        curves = measured(device)
        if curves:
            plot(curves, folder / picture_name("growth", device))
            picture = picture_name("growth", device)
            lines += [f"![seconds and memory against pixels]({picture})", ""]
    return lines


def measured(device: str) -> Curves:
    """Return {title of a curve: its sizes, each with width, height, seconds and memory}."""
    curves: Curves = {}
    cyclegan = found("cyclegan", device)
    nst = found("nst", device)
    for row in cyclegan["growth"] if cyclegan else []:
        title = "CycleGAN" if row["rival"] == "stylebot" else "CycleGAN, plain eager"
        curves.setdefault(title, []).append(row)
    if nst:
        curves["NST, one evaluation"] = nst["growth"]
    return curves


def plot(curves: Curves, path: Path) -> None:
    with two_plots(path) as axes:
        for title, rows in curves.items():
            pixels = [row["width"] * row["height"] / 1e6 for row in rows]
            for axis, kind in zip(axes, ("seconds", "memory"), strict=True):
                axis.plot(pixels, [row[kind] for row in rows], "o-", label=title)
        for axis, kind in zip(axes, ("seconds", "peak MB"), strict=True):
            label = "megapixels (longer side 128 to 2048)"
            axis.set(xscale="log", yscale="log", xlabel=label, ylabel=kind)
            axis.grid(alpha=0.3, which="both")
        axes[0].legend()
