"""`python -m benchmarks.judge`: paint pairs with each rival, judge the pictures, check the judge.

Pictures are kept in --folder: a run that was interrupted goes on where it was. The figures go to
benchmarks/results/cpu/judge.json; `python -m benchmarks --only report` puts them into RESULTS.md.
"""

import argparse
import dataclasses
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from benchmarks import nst
from benchmarks.judge import OURS, STEPS
from benchmarks.judge.check import check, known_pictures
from benchmarks.judge.measures import Judge, Verdict
from benchmarks.measure import (
    HERE,
    ROOT,
    MeasurementError,
    Results,
    Settings,
    machine,
    read_pairs,
    run,
    save,
    say,
)
from benchmarks.worker import picture
from containers.nst.vgg import VGG19
from local.sheet import sheet

EXAMPLES = ROOT / "examples"
PAIRS = [
    ("chelsea", "swirls"),
    ("coffee", "waves"),
    ("astronaut", "dabs"),
    ("china", "mosaic"),
    ("flower", "swirls"),
    ("rocket", "dabs"),
    ("chelsea", "waves"),
    ("china", "swirls"),
    ("astronaut", "mosaic"),
    ("coffee", "dabs"),
]
# The first frame of the last scale is the picture of the scale before, enlarged.
FEW_STEPS = 8


@dataclass(frozen=True)
class Rival:
    """One way to make a picture.

    worker: its name in worker.RIVALS, with its arguments; NEURAL_STYLE for the package.
    """

    title: str
    worker: str
    arguments: dict[str, float] = field(default_factory=dict)


NEURAL_STYLE = "neural-style"


def rivals_with(share_of_steps: float) -> list[Rival]:
    """Return all rivals; those of papers make this share of their steps.

    Our own picture comes first, at three strengths: others are compared at equal coherence.
    """
    rivals = [Rival(OURS, "stylebot")]
    for strength in (0.35, 0.65):
        title = f"{OURS}, strength {strength}"
        rivals.append(Rival(title, "stylebot", {"strength": strength}))
    for worker, most in STEPS.items():
        steps = max(1, round(most * share_of_steps))
        rivals.append(Rival(f"{worker} {steps}", worker, {"steps": steps}))
    rivals.append(Rival("pastiche 100", "pastiche", {"steps": 100}))
    rivals.append(Rival(f"{NEURAL_STYLE} {nst.NEURAL_STYLE_STEPS}", NEURAL_STYLE))
    rivals += [Rival("seed", "seed"), Rival("tutorial", "tutorial")]
    return rivals


def file_name(text: str) -> str:
    return text.replace(", ", "_").replace(" ", "_")


def paint(pair: tuple[str, str], rival: Rival, size: int, folder: Path) -> Results | None:
    """Return {"path", "frames", "processor_seconds"}, of a new picture or of an earlier run."""
    content, style = pair
    name = file_name(f"{Path(content).stem} {Path(style).stem} {size} {rival.title}")
    told_path = folder / f"{name}.json"
    if not told_path.exists():
        try:
            told = paint_anew(pair, rival, size, folder, name)
        except MeasurementError as error:
            say(f"{name}: {error}")
            return None
        told_path.write_text(json.dumps(told))
        say(name)
    results: Results = json.loads(told_path.read_text())
    return results


def paint_anew(pair: tuple[str, str], rival: Rival, size: int, folder: Path, name: str) -> Results:
    """Return what `paint` returns. Raises MeasurementError."""
    if rival.worker == NEURAL_STYLE:
        runs, reason = nst.neural_style(Settings("cpu", [pair], folder), size)
        if not runs:
            raise MeasurementError(reason)
        path = folder / f"{name}.png"
        (folder / "neural-style.png").rename(path)
        # It is only a command, so its processor seconds are not known
        return {"path": str(path), "frames": [], "processor_seconds": None}

    content, style = pair
    arguments: Results = {"content": content, "style": style, "size": size, "name": name}
    arguments |= {"device": "cpu", "folder": str(folder), **rival.arguments}
    told: Results = run("nst", rival=rival.worker, **arguments)
    return {**told, "path": told["frames"][-1]["path"]}


def judge_pair(
    pair: tuple[str, str], rivals: list[Rival], size: int, folder: Path, network: VGG19
) -> Results | None:
    """Paint and judge one pair; None if our own picture failed."""
    painted: dict[str, Results] = {}
    for rival in rivals:
        told = paint(pair, rival, size, folder)
        if told is not None:
            painted[rival.title] = told
    if OURS not in painted:
        return None

    content, style = pair
    photograph = picture(content)
    painting = picture(style)
    stylized = picture(painted[OURS]["path"])
    judge = Judge(photograph, painting, (stylized.shape[2], stylized.shape[1]), network)
    verdicts = {}
    for title, told in painted.items():
        verdict = judge(picture(told["path"]))
        say_verdict(title, verdict)
        seconds = told["processor_seconds"]
        verdicts[title] = {**dataclasses.asdict(verdict), "processor_seconds": seconds}

    few_steps = picture(frame_after(painted[OURS]["frames"], FEW_STEPS))
    known = known_pictures(photograph, painting, stylized, few_steps)
    return {
        "content": Path(content).name,
        "style": Path(style).name,
        "pictures": verdicts,
        "check": check(judge, known),
        "sheet": draw_sheet(pair, painted, folder),
    }


def frame_after(frames: list[Results], evaluation: int) -> str:
    """Return the path of the first frame at or after this evaluation."""
    for frame in frames:
        if frame["evaluation"] is None or frame["evaluation"] >= evaluation:
            return str(frame["path"])
    raise ValueError("There is no frame.")


def say_verdict(title: str, verdict: Verdict) -> None:
    say(
        f"  {title}: effectiveness {verdict.effectiveness:.3f}, coherence {verdict.coherence:.3f}, "
        f"grain {verdict.grain:.2f}"
    )


def draw_sheet(pair: tuple[str, str], painted: dict[str, Results], folder: Path) -> str | None:
    """Draw all pictures of a pair on one sheet in the folder.

    Returns the name of its copy in benchmarks/, or None: other people's pictures may not be ours to
    publish.
    """
    paths = [("photograph", pair[0]), ("style", pair[1])]
    paths += [(title, told["path"]) for title, told in painted.items()]
    images = [(title, Image.open(path).convert("RGB")) for title, path in paths]
    name = f"judge-{Path(pair[0]).stem}-{Path(pair[1]).stem}.jpg"
    sheet(images).save(folder / name, quality=90)
    if not all(Path(path).resolve().is_relative_to(ROOT) for path in pair):
        return None
    shutil.copy(folder / name, HERE / name)
    return name


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judge", description=__doc__)
    parser.add_argument(
        "--pair",
        nargs=2,
        action="append",
        metavar=("PHOTO", "STYLE"),
        help="default: ten of examples/",
    )
    parser.add_argument("--size", type=int, default=320, help="longer side (default: 320)")
    parser.add_argument(
        "--share-of-steps",
        type=float,
        default=1.0,
        help="of the steps that the rivals' papers make (default: 1)",
    )
    parser.add_argument(
        "--rivals-on",
        type=int,
        metavar="PAIRS",
        help="how many pairs the rivals paint; ours paints all (default: all)",
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "judge")
    arguments = parser.parse_args()

    pairs = [
        (str(EXAMPLES / "photos" / f"{photo}.jpg"), str(EXAMPLES / "styles" / f"{style}.jpg"))
        for photo, style in PAIRS
    ]
    pairs = read_pairs(parser, arguments.pair or pairs)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    network = VGG19()
    rivals = rivals_with(arguments.share_of_steps)
    judged = []
    for number, pair in enumerate(pairs):
        painters = rivals
        if arguments.rivals_on is not None and number >= arguments.rivals_on:
            painters = rivals[:1]
        found = judge_pair(pair, painters, arguments.size, arguments.folder, network)
        if found is not None:
            judged.append(found)
    save("judge", "cpu", {"machine": machine("cpu"), "size": arguments.size, "pairs": judged})


if __name__ == "__main__":
    main()
