"""The judge of pictures: `python -m benchmarks.judge`, and its section of RESULTS.md."""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Results, table, two_plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "The judge"
# The start of the titles of our own pictures.
OURS = "stylebot"
# The steps of each scale, as the papers have them.
STEPS = {"nnst": 200, "strotss": 250, "wasserstein": 500}
EXPLANATION = """\
The statistics are those of judge/measures.py, which no algorithm of this project optimizes.
Effectiveness: 0 is as far from the style as the photograph, 1 is the style's own statistics.
Coherence: 1 is the photograph, 0 is as far from it as the style picture is. Grain is the fine
contrast, relative to the style's. A rival whose coherence is outside of what our three strengths
have is not comparable. NNST, STROTSS and Wasserstein-2 (judge/rivals) are written from
their papers; the number is their steps for each scale.
"""


def report(results: Results) -> str:
    """Return the section of RESULTS.md."""
    steps = ", ".join(f"{name} {count}" for name, count in STEPS.items())
    parts = [EXPLANATION, f"The papers' steps: {steps}. Longer side here: {results['size']}.\n"]
    for pair in results["pairs"]:
        parts.append(f"### {pair['content']} in the style of {pair['style']}, judged\n")
        parts.append(pair_table(pair["pictures"]))
        if pair["sheet"]:
            parts.append(f"![]({pair['sheet']})\n")
    parts.append(check_table(results["pairs"]))
    return "\n".join(parts)


def pair_table(pictures: Results) -> str:
    """Return the table of one pair's pictures, the most effective first."""
    ranked = sorted(pictures.items(), key=lambda item: -item[1]["effectiveness"])
    ours = [told for title, told in pictures.items() if title.startswith(OURS)]
    rows = []
    for title, told in ranked:
        figures = [f"{told[what]:.3f}" for what in ("effectiveness", "coherence")]
        lead = ""
        if not title.startswith(OURS):
            lead = lead_over(ours, told)
        seconds = ""
        if told["processor_seconds"] is not None:
            seconds = f"{told['processor_seconds']:.0f}"
        rows.append([title, *figures, lead, f"{told['grain']:.2f}", seconds])
    head = ["", "effectiveness", "coherence", f"ahead of {OURS} at equal coherence", "grain"]
    return table([*head, "processor seconds"], rows)


def lead_over(ours: list[Results], told: Results) -> str:
    """Return how much more effective a picture is than ours would be at its coherence.

    Ours are several strengths, taken as one line of effectiveness over coherence.
    """
    points = sorted((one["coherence"], one["effectiveness"]) for one in ours)
    for (low, effectiveness_low), (high, effectiveness_high) in pairwise(points):
        if low <= told["coherence"] <= high:
            share = (told["coherence"] - low) / max(high - low, 1e-9)
            expected = effectiveness_low + share * (effectiveness_high - effectiveness_low)
            return f"{told['effectiveness'] - expected:+.3f}"
    return "not comparable"


def check_table(pairs: list[Results]) -> str:
    """Return how often the judge ranked known pictures where they belong."""
    rows = []
    for order in pairs[0]["check"]:
        kept = sum(pair["check"][order] for pair in pairs)
        rows.append([order, f"{kept} of {len(pairs)}"])
    return table(["the judge, checked on known pictures", "pairs"], rows)


def plot(results: Results, path: Path) -> None:
    """Plot effectiveness against coherence for the two pairs that have the most pictures."""
    fullest = sorted(results["pairs"], key=lambda pair: -len(pair["pictures"]))[:2]
    with two_plots(path) as axes:
        for axis, pair in zip(axes, fullest, strict=False):
            for title, told in pair["pictures"].items():
                draw_point(axis, title, told["coherence"], told["effectiveness"])
            heading = f"{pair['content']} in the style of {pair['style']}"
            axis.set(xlabel="coherence", ylabel="effectiveness", title=heading)
            axis.margins(0.25)
            axis.grid(alpha=0.3)


def draw_point(axis: "Axes", title: str, coherence: float, effectiveness: float) -> None:
    axis.plot(coherence, effectiveness, "o")
    axis.annotate(
        title, (coherence, effectiveness), xytext=(4, 4), textcoords="offset points", fontsize=8
    )
