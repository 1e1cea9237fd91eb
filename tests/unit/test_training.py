"""Training a painter: from a picture of a style to a checkpoint, and whatever comes between."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from containers.cyclegan.generator import (
    CheckpointError,
    Generator,
    Layout,
    load_generator,
    stylize,
)
from containers.cyclegan.training import command, initial, loop
from containers.cyclegan.training.loop import Losses, Run, TrainingError
from containers.cyclegan.training.options import Options, from_hyperparameters, parse_command_line
from containers.cyclegan.training.painter import Files, read_sources
from containers.cyclegan.training.perceptual import PerceptualTraining, learn_to_copy
from containers.cyclegan.training.pictures import Photographs, find_pictures, random_number
from containers.nst.vgg import VGG19
from tests.fakes.training import run, stop_after

ROOT = Path(__file__).parents[2]
STYLE = ROOT / "examples" / "styles" / "waves.jpg"
PHOTO = ROOT / "examples" / "photos" / "coffee.jpg"

pytestmark = pytest.mark.usefixtures("nst_weights")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a short warm-up and small crops, since every step costs a quarter of a second."""
    monkeypatch.setattr("containers.cyclegan.training.perceptual.COPY_STEPS", 2)
    monkeypatch.setattr("containers.cyclegan.training.perceptual.CROP", 64)
    monkeypatch.setattr("containers.cyclegan.training.perceptual.LAST_CROP", 96)
    monkeypatch.setattr("containers.cyclegan.training.perceptual.STYLE_SIDE", 96)
    monkeypatch.setattr("containers.cyclegan.training.painter.PREVIEW_SIDE", 64)


def options_for(folder: Path, **changes: Any) -> Options:  # noqa: ANN401 - any of the fields
    options = Options("waves", [STYLE], steps=6, filters=8, output=folder)
    return replace(options, **changes)


def read_points(options: Options) -> list[dict[str, float]]:
    recipe = json.loads(Files.of(options).recipe.read_text())
    points: list[dict[str, float]] = recipe["points"]
    for point in points:
        del point["seconds"]
    return points


# ---------------------------------------------------------------- a painter, from end to end


@pytest.mark.parametrize("layout", ["stylebot", "official"])
def test_a_picture_of_a_style_becomes_a_checkpoint(tmp_path: Path, layout: str) -> None:
    options = options_for(tmp_path, layout=layout)

    assert run(options)

    files = Files.of(options)
    generator = load_generator(files.checkpoint)
    ours = layout == "stylebot"
    assert generator.layout == Layout(8, affine=ours, resize=ours)
    photo = torch.rand(1, 3, 40, 60)
    assert stylize(generator, photo).shape == photo.shape
    recipe = json.loads(files.recipe.read_text())
    assert (recipe["name"], recipe["steps"], recipe["seed"]) == ("waves", 6, 0)
    for picture in (files.preview, files.curve):
        with Image.open(picture) as image:
            image.load()
    assert not files.training.parent.exists()


def test_the_official_layout_has_the_official_names_and_shapes(tmp_path: Path) -> None:
    options = options_for(tmp_path, layout="official", filters=64, steps=1)

    run(options)

    state = torch.load(Files.of(options).checkpoint, weights_only=True)
    assert len(state) == 48
    assert sum(tensor.numel() for tensor in state.values()) == 11_378_179
    assert state["model.19.weight"].shape == (256, 128, 3, 3)
    assert state["model.10.conv_block.1.weight"].shape == (256, 256, 3, 3)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    options = options_for(tmp_path, steps=40)

    run(options)

    points = read_points(options)
    first = sum(point["loss"] for point in points[:5])
    last = sum(point["loss"] for point in points[-5:])
    assert last < 0.8 * first


def test_a_training_starts_from_another_painter(tmp_path: Path) -> None:
    first = options_for(tmp_path)
    run(first)

    second = replace(first, name="again", start=Files.of(first).checkpoint, filters=None)
    run(second)

    assert load_generator(Files.of(second).checkpoint).layout.filters == 8


def test_minutes_become_a_number_of_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "TIMED_STEPS", 4)
    options = options_for(tmp_path, steps=None, minutes=0.1)

    run(options)

    recipe = json.loads(Files.of(options).recipe.read_text())
    assert recipe["steps"] > 4
    assert recipe["minutes"] < 0.5


# ---------------------------------------------------------------- interrupted


def test_a_stopped_training_goes_on_to_the_same_result(tmp_path: Path) -> None:
    whole = options_for(tmp_path / "whole")
    parts = options_for(tmp_path / "parts")
    run(whole)

    assert not run(parts, stop_after(2))
    assert not Files.of(parts).checkpoint.exists()
    assert not run(parts, stop_after(3))
    assert run(parts)

    assert read_points(parts) == read_points(whole)
    result = torch.load(Files.of(parts).checkpoint, weights_only=True)
    expected = torch.load(Files.of(whole).checkpoint, weights_only=True)
    for name, tensor in expected.items():
        torch.testing.assert_close(result[name], tensor)


def test_another_recipe_does_not_go_on_with_a_foreign_checkpoint(tmp_path: Path) -> None:
    options = options_for(tmp_path)
    run(options, stop_after(1))

    with pytest.raises(TrainingError, match=r"other settings: seed\. .*delete it to begin anew"):
        run(replace(options, seed=1))


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    options = options_for(tmp_path)
    run(options, stop_after(1))
    Files.of(options).training.write_bytes(b"PK not a checkpoint")

    with pytest.raises(TrainingError, match="damaged"):
        run(options)


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = options_for(tmp_path)
    run(options, stop_after(2))
    before = Files.of(options).training.read_bytes()

    def full(*_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file: file write failed")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(TrainingError, match="make room and run the same command again"):
            run(options)

    assert Files.of(options).training.read_bytes() == before
    assert run(options)


class Stub:
    """A training whose losses are given. A loss of None is not finite."""

    def __init__(self, losses: list[float | None]) -> None:
        self.losses = losses
        self.steps = 0
        self.total_steps: int | None = 3
        self.learning_rate = 1.0

    def step(self) -> Losses:
        loss = self.losses.pop(0)
        if loss is None:
            raise FloatingPointError("The loss of this step is not finite.")
        self.steps += 1
        return {"loss": loss}

    def scale_learning_rate(self, factor: float) -> None:
        self.learning_rate *= factor

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "learning_rate": self.learning_rate}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.learning_rate = state["learning_rate"]


def run_stub(stub: Stub, path: Path, told: list[str]) -> bool:
    return loop.train(stub, Run({}), path, 60, lambda _: None, told.append, lambda: False)


def test_a_loss_that_is_not_finite_goes_back_with_half_the_learning_rate(tmp_path: Path) -> None:
    stub = Stub([1.0, None, None, 0.9, 0.8, 0.7])
    told: list[str] = []

    assert run_stub(stub, tmp_path / "checkpoint.pt", told)

    assert stub.learning_rate == 0.25
    assert stub.steps == stub.total_steps
    assert len(told) == 2
    assert "half the learning rate" in told[0]


def test_a_training_that_stays_infinite_gives_up(tmp_path: Path) -> None:
    stub = Stub([1.0, *[None] * 10])

    with pytest.raises(TrainingError, match="Another picture of the style"):
        run_stub(stub, tmp_path / "checkpoint.pt", [])


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("name", ["", "Klimt", "../up", "a b", "x" * 33, "-x", "ключ"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(TrainingError, match="no name for a painter"):
        parse_command_line(["--style", str(STYLE), f"--name={name}"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to learn from"),
        (["--style", "a.jpg", "--minutes", "-1"], "minutes must be"),
        (["--style", "a.jpg", "--minutes", "nan"], "minutes must be"),
        (["--style", "a.jpg", "--steps", "0"], "steps must be"),
        (["--style", "a.jpg", "--filters", "4096"], "filters must be"),
        (["--style", "a.jpg", "--paintings", "b"], "either pictures of a style, or a folder"),
        (["--style", "a.jpg", "--name", "b"], "2 names for 1 pictures"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        parse_command_line(["--name", "klimt", *arguments])


def test_a_style_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "style.jpg"
    text.write_text("not a picture")

    with pytest.raises(TrainingError, match="cannot be the style"):
        read_sources(options_for(tmp_path, styles=[text]))
    with pytest.raises(TrainingError, match="cannot be read: No such file"):
        read_sources(options_for(tmp_path, styles=[tmp_path / "missing.jpg"]))


def test_too_few_photographs_are_refused_with_the_reasons(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    with Image.open(PHOTO) as photo:
        photo.save(folder / "good.jpg")
        photo.resize((90, 60)).save(folder / "small.jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no")
    (folder / "notes.txt").write_text("hello")

    with pytest.raises(TrainingError) as caught:
        read_sources(options_for(tmp_path, photos=folder))

    message = str(caught.value)
    assert "has 1 photographs that can be used, and 3 are needed" in message
    assert "small.jpg is smaller than" in message
    assert "broken.jpg" in message


def test_photographs_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(PHOTO.read_bytes())
    (folder / "broken.png").write_bytes(b"no")

    sources = read_sources(options_for(tmp_path, photos=folder))

    # One is held out
    assert len(sources.photographs.paths) == 4
    assert len(sources.notes) == 1


def test_an_existing_painter_is_not_replaced_by_accident(tmp_path: Path) -> None:
    options = options_for(tmp_path)
    Files.of(options).checkpoint.write_bytes(b"precious")

    with pytest.raises(TrainingError, match=r"exists\. Choose another --name, or add --replace"):
        read_sources(options)
    assert read_sources(replace(options, replace=True))


def test_a_disk_with_too_little_room_is_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)

    with pytest.raises(TrainingError, match="Make room, or choose another folder"):
        read_sources(options_for(tmp_path))


def test_a_start_of_another_width_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "style_wide.pth"
    torch.save(Generator(Layout(16)).state_dict(), path)

    with pytest.raises(CheckpointError, match="Train with --filters 16"):
        initial.generator_from(path, Layout(8))


# ---------------------------------------------------------------- SageMaker's contract


def make_job(root: Path, hyperparameters: dict[str, str], styles: list[Path]) -> None:
    config = root / "input" / "config"
    config.mkdir(parents=True)
    (config / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    folder = root / "input" / "data" / "style"
    folder.mkdir(parents=True)
    for path in styles:
        (folder / path.name).write_bytes(path.read_bytes())


def start_job(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "containers.cyclegan", "train"],
        cwd=ROOT,
        env={"ML_ROOT": str(root), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_job_is_stopped_by_sigterm_and_goes_on(tmp_path: Path) -> None:
    make_job(tmp_path, {"name": "waves", "steps": "3", "seed": "1"}, [STYLE])
    start = tmp_path / "input" / "data" / "from" / "style_start.pth"
    start.parent.mkdir()
    torch.save(Generator(Layout(8)).state_dict(), start)
    checkpoint = tmp_path / "checkpoints" / ".training-waves" / "checkpoint.pt"

    first = start_job(tmp_path)
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    output, _ = first.communicate(timeout=60)
    # It may have been done before the signal came
    if first.returncode != 0:
        assert first.returncode == command.STOPPED, output
        assert not (tmp_path / "model").exists()

    second = start_job(tmp_path)
    output, _ = second.communicate(timeout=120)

    assert second.returncode == 0, output
    assert load_generator(tmp_path / "model" / "style_waves.pth").layout.filters == 8
    lines = [json.loads(line) for line in output.splitlines()]
    assert any("loss" in line for line in lines)


@pytest.mark.parametrize(
    ("hyperparameters", "styles", "reason"),
    [
        ({"minutes": "1"}, [STYLE], "hyperparameter name is missing"),
        ({"name": "waves", "epochs": "3"}, [STYLE], "no hyperparameter 'epochs'"),
        ({"name": "waves", "minutes": "soon"}, [STYLE], "must be a number, not 'soon'"),
        ({"name": "waves"}, [], "nothing to learn from"),
        ({"name": "waves", "models_url": "ftp://x/y"}, [STYLE], "models_url must begin with"),
    ],
)
def test_a_failed_job_leaves_its_reason(
    tmp_path: Path, hyperparameters: dict[str, str], styles: list[Path], reason: str
) -> None:
    make_job(tmp_path, hyperparameters, styles)

    assert command.run_job(tmp_path, threading.Event()) == command.FAILURE

    assert reason in (tmp_path / "output" / "failure").read_text()


def test_hyperparameters_of_sagemakers_own_toolkits_are_ignored(tmp_path: Path) -> None:
    options = from_hyperparameters(
        {"name": "waves", "sagemaker_region": '"us-east-1"', "minutes": "30"},
        {"style": STYLE.parent},
        tmp_path,
    )

    assert options.minutes == 30
    assert STYLE in options.styles


# ---------------------------------------------------------------- parts


def test_crops_differ_and_are_repeatable() -> None:
    photographs = Photographs(find_pictures(PHOTO.parent))
    photographs.check(96)

    random = torch.Generator().manual_seed(3)
    first = [photographs.crop(96, random) for _ in range(3)]
    again = torch.Generator().manual_seed(3)

    assert all(crop.shape == (1, 3, 96, 96) for crop in first)
    assert not torch.equal(first[0], first[1])
    torch.testing.assert_close(photographs.crop(96, again), first[0])
    assert 0 <= random_number(random) < 1


def test_a_fresh_generator_learns_to_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("containers.cyclegan.training.perceptual.COPY_STEPS", 40)
    photographs = Photographs([PHOTO])
    photographs.check(96)
    random = torch.Generator().manual_seed(0)
    generator = initial.fresh_generator(Layout(8, affine=True, resize=True), random)
    photo = photographs.crop(96, torch.Generator().manual_seed(5))

    def error() -> float:
        generator.eval()
        return (stylize(generator, photo) - photo).abs().mean().item()

    before = error()
    learn_to_copy(generator, photographs, torch.float32, random)
    assert error() < 0.7 * before


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("resize", [False, True])
def test_a_generator_paints_the_same_in_train_and_in_eval_mode(affine: bool, resize: bool) -> None:
    generator = initial.fresh_generator(Layout(8, affine, resize), torch.Generator().manual_seed(0))
    image = torch.rand(1, 3, 72, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1

    with torch.no_grad():
        trained = generator.train()(image)
        used = generator.eval()(image)

    torch.testing.assert_close(used, trained, atol=1e-4, rtol=0)


def test_a_transposed_convolution_is_taken_over_as_a_resize_convolution(tmp_path: Path) -> None:
    official = initial.fresh_generator(Layout(8), torch.Generator().manual_seed(0))
    path = tmp_path / "style_x.pth"
    torch.save(official.state_dict(), path)

    converted = initial.generator_from(path, Layout(8, affine=True, resize=True))
    torch.save(converted.state_dict(), tmp_path / "style_y.pth")
    back = initial.generator_from(tmp_path / "style_y.pth", Layout(8))

    for name, tensor in official.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], tensor)


def test_a_step_without_finite_loss_changes_no_weight() -> None:
    photographs = Photographs([PHOTO])
    photographs.check(96)
    generator = initial.fresh_generator(Layout(8, True, True), torch.Generator().manual_seed(0))
    style = torch.rand(1, 3, 96, 96)
    training = PerceptualTraining(generator, [style], photographs, VGG19(), torch.float32, seed=0)
    with torch.no_grad():
        next(generator.parameters())[0, 0, 0, 0] = float("nan")
    before = [parameter.clone() for parameter in generator.parameters()]

    with pytest.raises(FloatingPointError):
        training.step()

    for parameter, old in zip(generator.parameters(), before, strict=True):
        torch.testing.assert_close(parameter, old, equal_nan=True)
