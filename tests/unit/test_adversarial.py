"""Training a painter from a folder of paintings, as in CycleGAN's paper."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from containers.cyclegan.generator import (
    Generator,
    InstanceNorm,
    Layout,
    load_generator,
    stylize,
)
from containers.cyclegan.training import adversarial, command, painter
from containers.cyclegan.training.adversarial import AdversarialTraining, PicturePool
from containers.cyclegan.training.discriminator import Discriminator
from containers.cyclegan.training.loop import TrainingError
from containers.cyclegan.training.options import Options, from_hyperparameters, parse_command_line
from containers.cyclegan.training.painter import (
    Files,
    make_training,
    read_sources,
    recipe_of,
)
from containers.cyclegan.training.pictures import Photographs, find_pictures
from tests.fakes.training import run, stop_after

SIDE = 48
# Of the comparison with plain PyTorch
STEPS = 6


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use crops of 48 pixels, since every step runs ten networks."""
    monkeypatch.setattr(adversarial, "CROP", SIDE)
    monkeypatch.setattr(adversarial, "RESIZED", 54)
    monkeypatch.setattr(painter, "PREVIEW_SIDE", SIDE)
    monkeypatch.setattr(painter, "best_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(painter, "working_precision", lambda _: torch.float32)


def make_pictures(folder: Path, count: int, seed: int) -> Path:
    """Fill a folder with pictures of a few colored spots."""
    folder.mkdir(parents=True)
    numbers = random.Random(seed)
    for number in range(count):
        image = Image.new("RGB", (4, 3))
        pixels = [tuple(numbers.randrange(256) for _ in range(3)) for _ in range(12)]
        image.putdata(pixels)
        image.resize((80, 60), Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def paintings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("a") / "paintings", 11, seed=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("b") / "photos", 5, seed=2)


@pytest.fixture
def options(tmp_path: Path, paintings: Path, photos: Path) -> Options:
    return Options(
        "klimt",
        paintings=paintings,
        photos=photos,
        steps=5,
        filters=8,
        layout="official",
        output=tmp_path / "out",
    )


def make(options: Options, steps: int | None = 8) -> AdversarialTraining:
    training = make_training(options, read_sources(options))
    assert isinstance(training, AdversarialTraining)
    training.total_steps = steps
    return training


# ---------------------------------------------------------------- beside plain PyTorch
# The paper once more, from stock modules, in the order of the authors' program: the generators'
# weights change first, then those of the discriminators.


class PlainBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.conv_block(x)
        return result


class Plain(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.model(x)
        return result


def plain_generator() -> Plain:
    return Plain(
        nn.ReflectionPad2d(3),
        nn.Conv2d(3, 8, 7),
        nn.InstanceNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.InstanceNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.InstanceNorm2d(32),
        nn.ReLU(),
        *[PlainBlock(32) for _ in range(9)],
        nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1),
        nn.InstanceNorm2d(16),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1),
        nn.InstanceNorm2d(8),
        nn.ReLU(),
        nn.ReflectionPad2d(3),
        nn.Conv2d(8, 3, 7),
        nn.Tanh(),
    )


def plain_discriminator() -> Plain:
    return Plain(
        nn.Conv2d(3, 8, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 16, 4, 2, 1),
        nn.InstanceNorm2d(16),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.InstanceNorm2d(32),
        nn.LeakyReLU(0.2),
        nn.Conv2d(32, 64, 4, 1, 1),
        nn.InstanceNorm2d(64),
        nn.LeakyReLU(0.2),
        nn.Conv2d(64, 1, 4, 1, 1),
    )


def copy_of(network: nn.Module, plain: Plain) -> Plain:
    plain.double().load_state_dict(network.state_dict())
    return plain


def plain_cyclegan(
    training: AdversarialTraining,
    photographs: list[Tensor],
    paintings: list[Tensor],
    pool_size: int,
    total_steps: int,
) -> list[dict[str, float]]:
    """Return the losses of one step for each pair of pictures, all (1, 3, H, W) in -1..1."""
    to_painting = copy_of(training.to_painting, plain_generator())
    to_photo = copy_of(training.to_photograph, plain_generator())
    judge_painting = copy_of(training.painting_discriminator, plain_discriminator())
    judge_photo = copy_of(training.photograph_discriminator, plain_discriminator())
    generator_weights = [*to_painting.parameters(), *to_photo.parameters()]
    judge_weights = [*judge_painting.parameters(), *judge_photo.parameters()]
    generator_adam = torch.optim.Adam(generator_weights, lr=0.0002, betas=(0.5, 0.999))
    judge_adam = torch.optim.Adam(judge_weights, lr=0.0002, betas=(0.5, 0.999))
    numbers = torch.Generator().manual_seed(0)
    painting_pool: list[Tensor] = []
    photo_pool: list[Tensor] = []

    def from_pool(pool: list[Tensor], picture: Tensor) -> Tensor:
        if len(pool) < pool_size:
            pool.append(picture)
            return picture
        if torch.rand((), generator=numbers) > 0.5:
            place = int(torch.randint(pool_size, (), generator=numbers))
            older, pool[place] = pool[place], picture
            return older
        return picture

    found = []
    for step, (photo, painting) in enumerate(zip(photographs, paintings, strict=True)):
        rate = 0.0002
        if step > total_steps / 2:
            rate = 0.0002 * (total_steps - step) / (total_steps / 2)
        for optimizer in (generator_adam, judge_adam):
            optimizer.param_groups[0]["lr"] = rate

        fake_painting = to_painting(photo)
        fake_photo = to_photo(painting)
        cycle = (to_photo(fake_painting) - photo).abs().mean() * 10
        cycle = cycle + (to_painting(fake_photo) - painting).abs().mean() * 10
        identity = (to_painting(painting) - painting).abs().mean() * 10 * 0.5
        identity = identity + (to_photo(photo) - photo).abs().mean() * 10 * 0.5
        gan = ((judge_painting(fake_painting) - 1) ** 2).mean()
        gan = gan + ((judge_photo(fake_photo) - 1) ** 2).mean()
        total = gan + cycle + identity
        generator_adam.zero_grad()
        total.backward()
        generator_adam.step()

        judge_adam.zero_grad()
        judged = 0.0
        for judge, pool, real, fake in (
            (judge_painting, painting_pool, painting, fake_painting),
            (judge_photo, photo_pool, photo, fake_photo),
        ):
            shown = from_pool(pool, fake.detach())
            loss = ((judge(real) - 1) ** 2).mean() * 0.5 + (judge(shown) ** 2).mean() * 0.5
            loss.backward()
            judged += loss.item()
        judge_adam.step()
        found.append(
            {
                "loss": total.item(),
                "cycle": cycle.item(),
                "identity": identity.item(),
                "discriminator": judged,
            }
        )
    return found


def test_its_steps_are_those_of_a_plain_implementation(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In float64: in float32 rounding alone becomes 1e-4 in a few steps. The networks' results are
    # made float32 at the end.
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    monkeypatch.setattr(adversarial, "POOL_SIZE", 2)
    training = make(options, STEPS)
    training.generators.double()
    training.discriminators.double()
    numbers = torch.Generator().manual_seed(7)

    def random_pictures() -> list[Tensor]:
        pictures = torch.rand(STEPS, 1, 3, SIDE, SIDE, generator=numbers, dtype=torch.float64)
        return list(pictures * 2 - 1)

    photographs = random_pictures()
    pictures = random_pictures()
    given = {id(training.photographs): photographs, id(training.paintings): pictures}
    monkeypatch.setattr(
        training, "crop_of", lambda source: given[id(source)][training.steps].clone()
    )
    expected = plain_cyclegan(training, photographs, pictures, pool_size=2, total_steps=STEPS)
    # It would show little that they are equal, if these were as well
    others = [
        plain_cyclegan(training, photographs, pictures, pool_size=STEPS, total_steps=STEPS),
        plain_cyclegan(training, photographs, pictures, pool_size=2, total_steps=2 * STEPS),
    ]

    found = [training.step() for _ in range(STEPS)]

    for losses, plain in zip(found, expected, strict=True):
        assert losses == pytest.approx(plain, abs=1e-9)
    for other in others:
        assert found[-1] != pytest.approx(other[-1], abs=1e-3)


# ---------------------------------------------------------------- parts


def test_the_discriminator_is_the_one_of_the_paper() -> None:
    state = Discriminator().state_dict()

    shapes = [tuple(tensor.shape) for name, tensor in state.items() if name.endswith("weight")]
    assert shapes == [
        (64, 3, 4, 4),
        (128, 64, 4, 4),
        (256, 128, 4, 4),
        (512, 256, 4, 4),
        (1, 512, 4, 4),
    ]
    assert sum(tensor.numel() for tensor in state.values()) == 2_764_737
    small = Discriminator(8)
    assert small(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)
    assert small(torch.zeros(1, 3, 32, 32)).shape == (1, 1, 2, 2)


def test_a_value_of_the_discriminator_sees_70_by_70_pixels() -> None:
    discriminator = Discriminator(8)
    # A normalization sees the whole picture
    for number, layer in enumerate(discriminator.model):
        if isinstance(layer, InstanceNorm):
            discriminator.model[number] = nn.Identity()
    picture = torch.rand(1, 3, 256, 256, requires_grad=True)

    discriminator(picture)[0, 0, 15, 15].backward()

    assert picture.grad is not None
    seen = picture.grad.abs().sum(dim=(0, 1)).nonzero()
    height, width = (seen.amax(0) - seen.amin(0) + 1).tolist()
    assert (height, width) == (70, 70)


def test_the_pool_gives_older_pictures_half_of_the_time() -> None:
    pool = PicturePool(50)
    numbers = torch.Generator().manual_seed(0)
    pictures = [torch.full((1,), float(number)) for number in range(1050)]

    given = [pool.exchange(picture, numbers) for picture in pictures]

    # The first ones are given as they come
    assert all(torch.equal(given[number], pictures[number]) for number in range(50))
    older = [
        number for number in range(50, 1050) if not torch.equal(given[number], pictures[number])
    ]
    assert 440 < len(older) < 560
    # An older one that was given has left: none comes twice, and none is lost
    values = [float(picture) for picture in [*given[50:], *pool.pictures]]
    assert sorted(values) == [float(number) for number in range(1050)]
    assert len(pool.pictures) == 50


def test_the_learning_rate_is_constant_and_then_falls_to_zero(options: Options) -> None:
    training = make(options, None)
    assert training.schedule() == 1

    training.total_steps = 100
    factors = []
    for training.steps in (0, 49, 50, 75, 99, 100):
        factors.append(training.schedule())
    assert factors == pytest.approx([1, 1, 1, 0.5, 0.02, 0])

    training.steps = 0
    training.scale_learning_rate(0.5)
    training.step()
    for optimizer in (training.generator_optimizer, training.discriminator_optimizer):
        assert [group["lr"] for group in optimizer.param_groups] == [1e-4]


def test_it_starts_with_the_weights_of_the_paper(options: Options) -> None:
    training = make(options)

    for networks in (training.generators, training.discriminators):
        for name, weight in networks.state_dict().items():
            if name.endswith("bias"):
                assert weight.abs().max() == 0
            elif weight.numel() > 5000:
                assert weight.std() == pytest.approx(0.02, rel=0.05)
                assert weight.mean() == pytest.approx(0, abs=0.001)


def test_crops_are_of_the_resized_picture_and_mirrored(options: Options, tmp_path: Path) -> None:
    # Brighter to the right, by one level for each pixel
    path = tmp_path / "ramp.png"
    ramp = Image.new("L", (216, 108))
    ramp.putdata([column for _ in range(108) for column in range(216)])
    ramp.convert("RGB").save(path)
    training = make(options)
    ramps = Photographs([path])
    ramps.check(SIDE)

    crops = [training.crop_of(ramps) for _ in range(40)]

    assert {crop.shape for crop in crops} == {(1, 3, SIDE, SIDE)}
    # 108 pixels high became 54, so that a pixel is two of the picture
    slopes = [float((crop[..., 1:] - crop[..., :-1]).mean()) * 255 / 2 for crop in crops]
    assert [abs(slope) for slope in slopes] == pytest.approx([2] * 40, abs=0.1)
    assert {slope > 0 for slope in slopes} == {True, False}
    starts = {round(float(crop.min()), 2) for crop in crops}
    assert len(starts) > 10
    assert min(starts) < -0.8


def test_bfloat16_gives_about_the_same_losses(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [make(options).step()]
    monkeypatch.setattr(painter, "working_precision", lambda _: torch.bfloat16)
    training = make(options)
    assert training.precision == torch.bfloat16

    half = [training.step()]

    assert half != whole
    for name, loss in whole[0].items():
        assert half[0][name] == pytest.approx(loss, rel=0.05)
    assert {parameter.dtype for parameter in training.generators.parameters()} == {torch.float32}


@pytest.mark.parametrize("network", ["to_painting", "to_photograph", "photograph_discriminator"])
def test_a_step_without_finite_loss_changes_no_weight(options: Options, network: str) -> None:
    training = make(options)
    training.step()
    with torch.no_grad():
        next(getattr(training, network).parameters())[0, 0, 0, 0] = float("inf")
    weights = [*training.generators.parameters(), *training.discriminators.parameters()]
    before = [weight.clone() for weight in weights]

    with pytest.raises(FloatingPointError, match="step 2 is not finite"):
        training.step()

    assert training.steps == 1
    for weight, old in zip(weights, before, strict=True):
        torch.testing.assert_close(weight, old, rtol=0, atol=0, equal_nan=True)


# ---------------------------------------------------------------- a painter, from end to end


def read_recipe(options: Options) -> dict[str, Any]:
    recipe: dict[str, Any] = json.loads(Files.of(options).recipe.read_text())
    return recipe


def test_a_folder_of_paintings_becomes_a_painter(options: Options) -> None:
    assert run(options)

    files = Files.of(options)
    generator = load_generator(files.checkpoint)
    assert generator.layout == Layout(8)
    photo = torch.rand(1, 3, 40, 60)
    assert stylize(generator, photo).shape == photo.shape
    recipe = read_recipe(options)
    assert recipe["paintings"] == [f"{number:02}.png" for number in range(11)]
    # The last one is held out
    assert recipe["photographs"] == [f"{number:02}.png" for number in range(4)]
    assert recipe["steps"] == 5
    assert recipe["points"][0].keys() == {
        "step",
        "seconds",
        "loss",
        "cycle",
        "identity",
        "discriminator",
    }
    for picture in (files.preview, files.curve):
        with Image.open(picture) as image:
            image.load()
    assert not files.training.parent.exists()


def test_it_learns_the_colors_of_paintings_that_show_other_things(
    options: Options, tmp_path: Path
) -> None:
    folder = make_pictures(tmp_path / "red", 10, seed=3)
    for path in folder.iterdir():
        with Image.open(path) as image:
            red, green, blue = image.split()
        red = red.point([155 + level * 100 // 255 for level in range(256)])
        green = green.point([level // 2 for level in range(256)])
        blue = blue.point([level // 4 for level in range(256)])
        Image.merge("RGB", (red, green, blue)).save(path)
    training = make(replace(options, paintings=folder), steps=1000)
    photos = [training.crop_of(training.photographs).add(1).div(2) for _ in range(8)]

    for _ in range(110):
        training.step()

    shown = torch.cat(photos)
    painted = torch.cat([painter.paint(training.generator, photo) for photo in photos])
    assert painted.mean((0, 2, 3)).tolist() == pytest.approx([0.8, 0.25, 0.12], abs=0.1)
    # Light is where the photograph has it
    light = torch.stack([shown.mean(1).flatten(), painted.mean(1).flatten()])
    assert torch.corrcoef(light)[0, 1] > 0.3  # at the start 0.0


def test_a_stopped_training_goes_on_to_exactly_the_same_result(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So small that older pictures are among those of a checkpoint and needed later
    monkeypatch.setattr(adversarial, "POOL_SIZE", 2)
    whole = options
    parts = replace(options, output=options.output / "parts")
    run(whole)

    assert not run(parts, stop_after(3))
    assert not Files.of(parts).checkpoint.exists()
    assert run(parts)

    for one, other in zip(read_recipe(whole)["points"], read_recipe(parts)["points"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    expected = torch.load(Files.of(whole).checkpoint, weights_only=True)
    result = torch.load(Files.of(parts).checkpoint, weights_only=True)
    assert expected.keys() == result.keys()
    for name, tensor in expected.items():
        assert torch.equal(result[name], tensor)


def test_a_checkpoint_brings_back_the_whole_state(options: Options, tmp_path: Path) -> None:
    first = make(options)
    for _ in range(2):
        first.step()
    first.scale_learning_rate(0.5)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    expected = [first.step() for _ in range(2)]

    second = make(replace(options, seed=5))
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))

    assert [second.step() for _ in range(2)] == expected
    assert second.steps == first.steps


def test_it_starts_from_another_painter(options: Options, tmp_path: Path) -> None:
    start = tmp_path / "style_start.pth"
    torch.save(Generator(Layout(16)).state_dict(), start)

    training = make(replace(options, start=start, filters=None))

    given = torch.load(start, weights_only=True)
    for name, tensor in training.generator.state_dict().items():
        assert torch.equal(tensor, given[name])
    assert training.to_photograph.layout == Layout(16)


def test_a_painter_of_ours_is_no_start(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(Generator(Layout(8)).state_dict(), tmp_path / "style_ours.pth")
    monkeypatch.setattr(painter, "PAINTERS", tmp_path)

    assert read_sources(options).start is None


def test_the_command_line_trains_and_tells_the_length(
    paintings: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(adversarial, "EPOCHS", 1)
    arguments = ["--paintings", str(paintings), "--photos", str(photos), "--name", "klimt"]

    code = command.main([*arguments, "--filters", "8", "-o", str(tmp_path)])

    output, errors = capfd.readouterr()
    assert code == 0, errors
    assert "It takes 11 steps: as in the paper, 1 times the 11 paintings." in output
    assert "Training klimt from 11 paintings and 4 photographs" in output
    assert load_generator(tmp_path / "style_klimt.pth").layout == Layout(8)
    assert json.loads((tmp_path / "klimt.json").read_text())["steps"] == 11


def test_the_length_is_that_of_the_paper_unless_one_is_given(
    paintings: Path, photos: Path, tmp_path: Path
) -> None:
    folders = ["--paintings", str(paintings), "--photos", str(photos), "-o", str(tmp_path)]

    def length(*more: str) -> int | None:
        [options] = parse_command_line(["--name=klimt", "--filters=8", *folders, *more])
        return make_training(options, read_sources(options)).total_steps

    assert length() == 200 * 11
    assert length("--steps=7") == 7
    # Found from the time of the first steps
    assert length("--minutes=3") is None


def test_the_layout_is_the_official_one_unless_another_is_given(
    options: Options, tmp_path: Path
) -> None:
    channels = {"paintings": options.paintings or tmp_path, "photos": options.photos or tmp_path}

    given = from_hyperparameters({"name": "klimt"}, channels, tmp_path)
    assert given.layout == "official"
    assert given.minutes is None
    ours = from_hyperparameters({"name": "klimt", "layout": "stylebot"}, channels, tmp_path)
    assert ours.layout == "stylebot"
    [style] = parse_command_line(["--name=klimt", "--style=klimt.jpg"])
    assert (style.layout, style.minutes) == ("stylebot", 20)


def test_a_painter_of_our_layout_can_be_trained(options: Options) -> None:
    ours = replace(options, layout="stylebot", steps=1)

    assert run(ours)

    assert load_generator(Files.of(ours).checkpoint).layout == Layout(8, affine=True, resize=True)


def test_other_paintings_are_another_recipe(options: Options, tmp_path: Path) -> None:
    other = replace(options, paintings=make_pictures(tmp_path / "more", 12, seed=3))

    first = recipe_of(options, read_sources(options))
    assert first != recipe_of(other, read_sources(other))


# ---------------------------------------------------------------- bad input


def test_paintings_need_photographs(options: Options, tmp_path: Path) -> None:
    arguments = ["--name=klimt", "--paintings", str(options.paintings)]
    with pytest.raises(TrainingError, match="give --photos DIR as well"):
        parse_command_line(arguments)

    with pytest.raises(TrainingError, match="is no folder of photographs"):
        read_sources(replace(options, photos=tmp_path / "missing"))


def test_a_folder_that_is_none_is_told(options: Options, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is no folder of paintings"):
        read_sources(replace(options, paintings=tmp_path / "missing"))


def test_too_few_paintings_are_refused_with_the_reasons(options: Options, tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "few", 9, seed=3)
    Image.new("RGB", (100, SIDE - 1)).save(folder / "low.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no")

    with pytest.raises(TrainingError) as caught:
        read_sources(replace(options, paintings=folder))

    message = str(caught.value)
    assert "has 9 paintings that can be used, and 10 are needed" in message
    assert "low.png is smaller than" in message
    assert "broken.jpg" in message
    assert "use --style" in message


def test_paintings_that_cannot_be_read_are_left_out(options: Options, tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "some", 10, seed=3)
    (folder / "broken.png").write_bytes(b"no")

    sources = read_sources(replace(options, paintings=folder))

    assert sources.paintings is not None
    assert sources.paintings.paths == find_pictures(folder)[:10]
    assert len(sources.notes) == 1
    assert "broken.png" in sources.notes[0]


def test_a_disk_with_too_little_room_is_told_at_the_start(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)

    with pytest.raises(TrainingError, match="Make room, or choose another folder"):
        read_sources(options)


def test_the_room_for_a_checkpoint_is_known_before(options: Options, tmp_path: Path) -> None:
    training = make(options)
    for _ in range(2):
        training.step()
    path = tmp_path / "state.pt"
    torch.save(training.state_dict(), path)
    missing = 2 * (adversarial.POOL_SIZE - 2) * 4 * 3 * SIDE**2

    expected = adversarial.checkpoint_bytes(training.to_painting) - missing

    # Beside the numbers there are names
    assert path.stat().st_size == pytest.approx(expected, rel=0.1)
