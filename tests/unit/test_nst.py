"""Neural style transfer: network, losses, optimizers and options. Small pictures, real weights."""

import importlib
import itertools
import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from containers.common.tensors import to_tensor
from containers.nst import nst, sizes, vgg
from containers.nst.images import (
    MAX_STYLE_AREA,
    color_moments,
    fit,
    match_colors,
    shrink_style,
)
from containers.nst.losses import multiscale_objective
from containers.nst.nst import Result, Step
from containers.nst.optimizers import LBFGS, EarlyStopping, Optimizer
from containers.nst.options import Options, check, check_steps, total_work
from containers.nst.service import MAX_SECONDS
from containers.nst.weights import PATH

EXAMPLES = Path(__file__).parents[2] / "examples"
QUICK = Options(size=96, max_epochs=2, n_steps_in_epoch=5)
# Operators that a test has defined; they vanish with their library
LIBRARIES: list[torch.library.Library] = []


@pytest.fixture(scope="module")
def network(nst_weights: Path) -> vgg.VGG19:
    return vgg.VGG19()


def example(name: str, longest: int = 128) -> Tensor:
    with Image.open(EXAMPLES / name) as image:
        image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        return to_tensor(image)


@pytest.fixture(scope="module")
def photo() -> Tensor:
    return example("photos/chelsea.jpg")


@pytest.fixture(scope="module")
def style() -> Tensor:
    return example("styles/swirls.jpg")


def stylize(
    content: Tensor,
    styles: list[Tensor],
    options: Options,
    network: nn.Module,
    callback: Callable[[Step], bool] = lambda step: False,
    clock: Callable[[], float] = lambda: 0.0,
) -> Result:
    """Return the result, checked. The clock stands still, so no time limit ends the work."""
    result = nst.stylize(
        content,
        styles,
        options,
        network,  # type: ignore[arg-type]
        callback,
        clock,
    )
    assert result.image.dtype == torch.float32
    assert torch.isfinite(result.image).all()
    assert result.image.min() >= 0
    assert result.image.max() <= 1
    return result


def test_each_finished_scale_can_be_shown_and_nothing_between(
    photo: Tensor, style: Tensor, network: vgg.VGG19
) -> None:
    steps: list[Step] = []

    def note(step: Step) -> bool:
        steps.append(step)
        return False

    options = replace(QUICK, size=256)
    stylize(photo, [style], options, network, note)
    shown = [step for step in steps if step.can_be_shown]
    each = options.evaluations()
    assert [step.number for step in shown] == [each + 1, 2 * each + 1]
    assert [max(step.image.shape) for step in shown] == [128, 256]
    assert shown[0].done < 0.15


# --- the network ---


def plain_features(image: Tensor) -> dict[str, Tensor]:
    """Written anew from the papers: BGR pixels in 0..255 minus their mean, zero padding."""
    coded = torch.load(PATH, weights_only=True)
    x = image[:, [2, 1, 0]] * 255 - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    features = {}
    for block, count in enumerate((2, 2, 4, 4, 1), 1):
        for index in range(1, count + 1):
            key = f"block{block}_conv{index}"
            weight = coded[f"{key}_W_table"][coded[f"{key}_W_q"].long()]
            x = F.conv2d(x, weight, coded[f"{key}_b"], padding=1)
            features[f"conv{block}_{index}"] = x
            x = F.relu(x)
            features[f"relu{block}_{index}"] = x
        x = F.max_pool2d(x, 2)
    return features


def test_features_are_those_of_the_original_network(network: vgg.VGG19, photo: Tensor) -> None:
    expected = plain_features(photo[None])
    layers = {"relu1_1", "conv1_1", "relu2_1", "conv3_1", "relu4_2", "conv5_1", "relu5_1"}
    features = network(photo[None], layers, replicate=False)
    assert set(features) == layers
    for layer in layers:
        scaled = features[layer] * vgg.ORIGINAL_UNIT
        assert torch.allclose(
            scaled, expected[layer], rtol=1e-3, atol=1e-3 * float(expected[layer].abs().max())
        ), layer


@pytest.fixture(scope="module")
def torchvision_models() -> ModuleType:
    """The real torchvision.models.

    A torchvision for CUDA lacks its operators beside a PyTorch for CPUs.
    """
    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call]
        LIBRARIES.append(library)
        return importlib.import_module("torchvision.models")


def test_torchvisions_weights_bring_their_own_preprocessing(
    torchvision_models: ModuleType, monkeypatch: pytest.MonkeyPatch, photo: Tensor
) -> None:
    """torchvision's own network and transforms; random weights replace only the download."""
    torch.manual_seed(0)
    features = torchvision_models.vgg.make_layers(torchvision_models.vgg.cfgs["E"])
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    state["classifier.0.weight"] = torch.zeros(1)
    weights = torchvision_models.VGG19_Weights
    monkeypatch.setattr(weights, "get_state_dict", lambda self, progress, check_hash: state)

    layers = {"relu1_1", "relu5_1"}
    found = vgg.VGG19("torchvision")(photo[None], layers, replicate=False)

    # Without the resizing and cropping of its transforms
    transforms = weights.IMAGENET1K_V1.transforms()
    mean = torch.tensor(transforms.mean).view(3, 1, 1)
    std = torch.tensor(transforms.std).view(3, 1, 1)
    normalized = ((photo - mean) / std)[None]
    assert torch.allclose(found["relu1_1"], features[:2](normalized), atol=1e-5)
    assert torch.allclose(found["relu5_1"], features[:30](normalized), atol=1e-5)


def test_missing_weights_name_the_command_that_fetches_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"python -m containers\.nst weights"):
        vgg.original_weights(tmp_path / "none.bin")


# --- what comes out ---


def losses(image: Tensor, content: Tensor, style: Tensor) -> tuple[float, float]:
    """(style, content) by Gatys' formulas at the result's size, on the plain features."""
    size = image.shape[-2:]
    with torch.no_grad():
        made, photo, painting = (
            plain_features(F.interpolate(x[None], size, mode="bicubic", antialias=True))
            for x in (image, content, style)
        )

    def gram(features: Tensor) -> Tensor:
        flat = features[0].flatten(1)
        return flat @ flat.t() / flat.shape[1]

    layers = [f"relu{block}_1" for block in range(1, 6)]
    style_loss = sum(
        float(F.mse_loss(gram(made[k]), gram(painting[k]))) / len(gram(made[k])) ** 2
        for k in layers
    )
    return style_loss, float(F.mse_loss(made["relu4_2"], photo["relu4_2"]))


def test_the_result_has_the_style_and_still_shows_the_photograph(
    network: vgg.VGG19, photo: Tensor, style: Tensor
) -> None:
    result = stylize(photo, [style], replace(QUICK, max_epochs=4), network)
    assert result.image.shape == (3, 64, 96)
    style_loss, content_loss = losses(result.image, photo, style)
    untouched, _ = losses(F.interpolate(photo[None], (64, 96))[0], photo, style)
    _, unrelated = losses(F.interpolate(style[None], (64, 96))[0], photo, style)
    assert style_loss < untouched / 4
    assert content_loss < 0.7 * unrelated


def test_strength_moves_between_photograph_and_style(
    network: vgg.VGG19, photo: Tensor, style: Tensor
) -> None:
    def losses_at(strength: float) -> tuple[float, float]:
        options = replace(QUICK, strength=strength)
        return losses(stylize(photo, [style], options, network).image, photo, style)

    soft_style, soft_content = losses_at(0.1)
    strong_style, strong_content = losses_at(0.9)
    assert soft_content < strong_content
    assert soft_style > strong_style


def test_the_weights_of_old_requests_shift_the_balance(
    network: vgg.VGG19, photo: Tensor, style: Tensor
) -> None:
    usual = stylize(photo, [style], QUICK, network).image
    doubled = replace(QUICK, content_weight=2e-5, style_weight=2e4)
    same = stylize(photo, [style], doubled, network).image
    content = stylize(photo, [style], replace(QUICK, content_weight=1e-3), network).image
    assert torch.allclose(usual, same, atol=1e-3)
    assert losses(content, photo, style)[1] < losses(usual, photo, style)[1]


def test_preserved_colours_are_the_photographs(
    network: vgg.VGG19, photo: Tensor, style: Tensor
) -> None:
    plain = stylize(photo, [style], QUICK, network).image
    kept = stylize(photo, [style], replace(QUICK, preserve_color=True), network).image
    colour = photo.mean((1, 2))
    assert (kept.mean((1, 2)) - colour).abs().max() < 0.05
    assert (plain.mean((1, 2)) - colour).abs().max() > 0.1


def test_the_seed_decides(network: vgg.VGG19, photo: Tensor, style: Tensor) -> None:
    first, again = (
        stylize(photo, [style], replace(QUICK, seed=1), network).image for _ in range(2)
    )
    other = stylize(photo, [style], replace(QUICK, seed=2), network).image
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_styles_are_blended_by_weight(network: vgg.VGG19, photo: Tensor, style: Tensor) -> None:
    other = example("styles/waves.jpg")
    alone = stylize(photo, [style], QUICK, network).image
    both = stylize(photo, [style, other], replace(QUICK, style_weights=[1.0, 0.0]), network).image
    mixed = stylize(photo, [style, other], QUICK, network).image
    assert torch.allclose(alone, both, atol=1e-4)
    assert losses(mixed, photo, other)[0] < losses(alone, photo, other)[0]


@pytest.mark.parametrize("algorithm", ["multiscale", "gatys2015"])
@pytest.mark.parametrize(
    ("width", "height"), [(16, 16), (17, 23), (400, 16), (16, 250), (200, 1), (1, 1)]
)
def test_any_shape_of_photograph_and_style(
    network: vgg.VGG19, algorithm: str, width: int, height: int
) -> None:
    longest = max(width, height)
    size = max(longest, 16)
    options = Options(algorithm=algorithm, max_epochs=1, n_steps_in_epoch=2, size=size)
    odd = torch.rand(3, height, width)
    plain = torch.rand(3, 40, 50)
    expected_height = max(1, round(height * size / longest))
    expected_width = max(1, round(width * size / longest))
    shape = stylize(odd, [plain], options, network).image.shape
    assert shape == (3, expected_height, expected_width)
    assert stylize(plain, [odd], replace(options, size=48), network).image.shape == (3, 38, 48)


@pytest.mark.parametrize("colour", [0.0, 0.5, 1.0])
def test_flat_pictures_give_a_picture(network: vgg.VGG19, photo: Tensor, colour: float) -> None:
    flat = torch.full((3, 48, 64), colour)
    stylize(flat, [photo], QUICK, network)
    stylize(photo, [flat], QUICK, network)
    stylize(flat, [flat], QUICK, network)


def test_lbfgs_steps_as_pytorchs_does() -> None:
    """Down Rosenbrock's valley in ten dimensions; in float64, as the way is chaotic."""
    start = torch.linspace(-0.5, 0.7, 10, dtype=torch.float64)

    def valley(x: Tensor) -> Tensor:
        return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum() / 100

    def losses(make: Callable[[list[Tensor]], Optimizer]) -> list[float]:
        x = start.clone().requires_grad_(True)
        optimizer = make([x])

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = valley(x)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()

        return [float(optimizer.step(closure)) for _ in range(34)]

    def pytorchs(parameters: list[Tensor]) -> Optimizer:
        return torch.optim.LBFGS(
            parameters, max_iter=1, history_size=10, tolerance_grad=0, tolerance_change=0
        )

    theirs = losses(pytorchs)
    assert losses(LBFGS) == pytest.approx(theirs, rel=1e-4)
    assert theirs[-1] < theirs[0] / 10


# --- how long it goes on ---


def steps_of(
    options: Options, network: vgg.VGG19, photo: Tensor, style: Tensor, stop_after: int = 10**9
) -> list[Step]:
    seen: list[Step] = []

    def callback(step: Step) -> bool:
        seen.append(step)
        return len(seen) >= stop_after

    result = stylize(photo, [style], options, network, callback)
    assert result.steps == len(seen)
    return seen


@pytest.mark.parametrize("algorithm", ["multiscale", "gatys2015"])
def test_epochs_times_steps_bound_the_evaluations_at_full_size(
    network: vgg.VGG19, photo: Tensor, style: Tensor, algorithm: str
) -> None:
    options = Options(algorithm=algorithm, size=96, max_epochs=2, n_steps_in_epoch=3)
    steps = steps_of(options, network, photo, style)
    assert sum(step.image.shape[-1] == 96 for step in steps) == 6
    assert [step.number for step in steps] == list(range(1, steps[0].total + 1))
    assert all(0 < a.done < b.done for a, b in pairwise(steps))
    assert steps[-1].done == pytest.approx(1)
    assert all(math.isfinite(step.loss) for step in steps)


@pytest.mark.parametrize("stop_after", [1, 8])
def test_a_callback_that_says_enough_gets_the_picture_so_far_at_full_size(
    network: vgg.VGG19, photo: Tensor, style: Tensor, stop_after: int
) -> None:
    steps = steps_of(QUICK, network, photo, style, stop_after)
    assert len(steps) == stop_after


def test_a_time_budget_ends_it(network: vgg.VGG19, photo: Tensor, style: Tensor) -> None:
    """The clock advances by a second when it is read: once at the start, then after each step."""
    options = Options(size=96, max_epochs=1000, n_steps_in_epoch=1000, time_budget=7)
    seconds = itertools.count()
    result = stylize(photo, [style], options, network, clock=lambda: float(next(seconds)))
    assert result.steps == 8
    assert result.image.shape == (3, 64, 96)


def test_a_cpu_that_may_choose_the_size_stops_after_its_own_limit(
    network: vgg.VGG19, photo: Tensor, style: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "seconds_per_pixel", lambda network: 1e-12)
    times = itertools.chain([0.0, 1.0, sizes.CPU_SECONDS], itertools.repeat(sizes.CPU_SECONDS + 1))
    result = stylize(photo[:, :40, :60], [style], Options(), network, clock=times.__next__)
    assert result.steps == 3


def test_patience_ends_it_early_and_its_absence_never(network: vgg.VGG19, photo: Tensor) -> None:
    flat = torch.full((3, 32, 32), 0.5)
    options = Options(algorithm="gatys2015", size=32, max_epochs=20, n_steps_in_epoch=1, lr=1.0)
    assert len(steps_of(options, network, flat, flat)) == 20
    assert len(steps_of(replace(options, patience=2), network, flat, flat)) < 20


def test_patience_counts_epochs_in_a_row_without_a_lower_loss() -> None:
    early_stopping = EarlyStopping(patience=2, steps_in_epoch=2)
    best_losses = [9.0, 8.0, 8.0, 8.0, 8.0, 7.0, 7.0, 7.0, 7.0, 7.0]
    due = [early_stopping.is_due(step, loss) for step, loss in enumerate(best_losses, 1)]
    assert due == [False] * 9 + [True]


# --- limits ---


def test_more_work_than_the_limit_is_refused_with_what_is_allowed(
    network: vgg.VGG19, photo: Tensor, style: Tensor
) -> None:
    million = Options(size=1024, max_epochs=1000, n_steps_in_epoch=1000)
    with pytest.raises(ValueError, match="1,000,000; at 800x600 at most 10,000 steps"):
        check(million, 1)
    photo_of_shape = photo[:, :60, :80]
    many = replace(million, n_steps_in_epoch=7)
    check(many, 1)
    with pytest.raises(ValueError, match="7,000; at 1024x768 at most 6,103 steps"):
        nst.stylize(photo_of_shape, [style], many, network, lambda step: True)


def test_a_time_budget_allows_any_number_of_steps(
    network: vgg.VGG19, photo: Tensor, style: Tensor
) -> None:
    options = Options(size=64, max_epochs=1000, n_steps_in_epoch=1000, time_budget=60)
    check(options, 1)
    assert stylize(photo, [style], options, network, lambda step: True).steps == 1


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(size=2048),
        Options(algorithm="gatys2015", size=2048, max_epochs=14, n_steps_in_epoch=10),
        Options(max_epochs=1000),
        Options(max_epochs=100, n_steps_in_epoch=100),
        Options(size=2048, max_epochs=100),
    ],
)
def test_what_people_ask_for_is_below_the_limit(options: Options) -> None:
    check(options, 8)
    check_steps(options, fit(4, 3, options.size or 800, options.size or 800, enlarge=True))


def test_a_server_ends_the_work_before_an_hour_is_over_and_says_so(
    network: vgg.VGG19, photo: Tensor, style: Tensor
) -> None:
    """The clock advances by a minute when it is read."""

    def stylize_with(time_budget: float | None) -> Result:
        minutes = itertools.count()
        return nst.stylize(
            photo,
            [style],
            Options(size=64, max_epochs=100, time_budget=time_budget),
            network,
            lambda step: False,
            clock=lambda: 60.0 * next(minutes),
            max_seconds=MAX_SECONDS,
        )

    result = stylize_with(None)
    assert 50 < result.steps < 60
    assert result.notes == [
        f"The work was ended after 55 minutes, at step {result.steps}: "
        "this server takes no longer for a picture."
    ]
    assert stylize_with(3600).steps == result.steps
    assert stylize_with(600).notes == []


def test_of_many_styles_only_what_is_used_is_kept(
    network: vgg.VGG19, photo: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One large style at a time is in memory, and the features of one style at a time."""
    large: list[weakref.ref[Tensor]] = []
    most_at_once = 0

    def styles() -> Iterator[Tensor]:
        nonlocal most_at_once
        for number in range(8):
            style = torch.full((3, 512, 512), number / 8)
            large.append(weakref.ref(style))
            most_at_once = max(most_at_once, sum(each() is not None for each in large))
            yield style

    features: list[weakref.ref[Tensor]] = []
    most_features = 0
    forward = vgg.VGG19.forward

    def counting(self: vgg.VGG19, *arguments: Any, **options: Any) -> dict[str, Tensor]:  # noqa: ANN401
        nonlocal most_features
        alive = sum(each() is not None for each in features)
        most_features = max(most_features, alive)
        found = forward(self, *arguments, **options)
        if not torch.is_grad_enabled():
            features.extend(weakref.ref(each) for each in found.values())
        return found

    monkeypatch.setattr(vgg.VGG19, "forward", counting)
    nst.stylize(photo, styles(), Options(size=64), network, lambda step: True)
    assert most_at_once <= 2
    assert all(each() is None for each in large)
    assert len(features) > 8
    # Of the photograph, the content layer alone
    assert most_features <= 1


def test_a_panorama_does_not_need_the_memory_for_a_square_of_its_width() -> None:
    square = torch.zeros(1, 3, 256, 256)
    for size in ((256, 192), (256, 16), (16, 256)):
        *_, height, width = shrink_style(square, size).shape
        assert width * height < 1.2 * MAX_STYLE_AREA * size[0] * size[1]
        assert width == height
    assert shrink_style(square, (256, 192)) is square


@pytest.mark.parametrize(
    ("weights", "count", "message"),
    [(None, 0, "at least one style"), (None, 9, "At most 8 styles"), ([1.0], 2, "1 numbers for 2")],
)
def test_a_wrong_number_of_styles_is_refused(
    weights: list[float] | None, count: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check(Options(style_weights=weights), count)


# --- the original's algorithm ---


def test_gatys2015_is_the_originals(network: vgg.VGG19, photo: Tensor, style: Tensor) -> None:
    """Against the same, written plainly.

    Adam on the pixels, features before their ReLU, Gram matrices divided by C H W.
    """
    size = (48, 64)
    content = F.interpolate(photo[None], size, mode="bicubic", antialias=True).clamp(0, 1)
    layers = [f"conv{block}_1" for block in range(1, 6)]

    def gram(features: Tensor) -> Tensor:
        flat = features[0].flatten(1) / vgg.ORIGINAL_UNIT
        return flat @ flat.t() / flat.numel()

    small = F.interpolate(style[None], (51, 64), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        target = plain_features(content)["conv5_1"] / vgg.ORIGINAL_UNIT
        grams = {layer: gram(plain_features(small)[layer]) for layer in layers}
    image = content.clone().requires_grad_(True)
    adam = torch.optim.Adam([image], lr=0.02)
    expected = []
    for _ in range(4):
        adam.zero_grad()
        features = plain_features(image)
        loss = 1e-5 * F.mse_loss(features["conv5_1"] / vgg.ORIGINAL_UNIT, target)
        loss = loss + 1e4 * sum(F.mse_loss(gram(features[layer]), grams[layer]) for layer in layers)
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        expected.append(float(loss.detach()))

    options = Options(algorithm="gatys2015", size=64, lr=0.02, max_epochs=2, n_steps_in_epoch=2)
    # The photograph in the shape of `size`, which the algorithm then shrinks to it
    in_shape = F.interpolate(photo[None], (96, 128), mode="bicubic", antialias=True).clamp(0, 1)
    resized = F.interpolate(in_shape, size, mode="bicubic", antialias=True).clamp(0, 1)
    steps = steps_of(options, network, in_shape[0], style)
    assert torch.allclose(steps[0].image, resized)
    assert [step.loss for step in steps] == pytest.approx(expected, rel=0.05)


# --- when things go wrong ---


class Cramped(nn.Module):
    """A network on a GPU with too little memory for pictures of more than `longest` pixels."""

    def __init__(self, network: vgg.VGG19, longest: int) -> None:
        super().__init__()
        self.network = network
        self.longest = longest
        self.device = network.device
        self.precision = network.precision

    def forward(self, image: Tensor, *arguments: object, **options: object) -> dict[str, Tensor]:
        if max(image.shape[-2:]) > self.longest:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        features: dict[str, Tensor] = self.network(image, *arguments, **options)
        return features


def test_out_of_memory_gives_a_smaller_picture_and_says_so(
    network: vgg.VGG19, photo: Tensor, style: Tensor
) -> None:
    options = replace(QUICK, size=128)
    result = stylize(photo, [style], options, Cramped(network, 100))
    assert result.image.shape == (3, 64, 96)
    assert "96x64" in result.notes[0]
    with pytest.raises(torch.OutOfMemoryError):
        stylize(photo, [style], options, Cramped(network, 10))


class Overflowing(Cramped):
    """A network whose features overflow from the call `first` on."""

    def __init__(self, network: vgg.VGG19, first: int) -> None:
        super().__init__(network, 10**9)
        self.calls = 0
        self.first = first

    def forward(self, image: Tensor, *arguments: object, **options: object) -> dict[str, Tensor]:
        self.calls += 1
        features = super().forward(image, *arguments, **options)
        if self.calls < self.first:
            return features
        return {name: value * torch.nan for name, value in features.items()}


def test_a_picture_that_is_not_finite_is_never_returned(
    network: vgg.VGG19, photo: Tensor, style: Tensor
) -> None:
    with pytest.raises(FloatingPointError):
        stylize(photo, [style], QUICK, Overflowing(network, 1))
    one_scale = Options(algorithm="gatys2015", size=64, max_epochs=1, n_steps_in_epoch=3)
    assert stylize(photo, [style], one_scale, Overflowing(network, 5)).image.shape == (3, 42, 64)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_leads_the_same_way(
    network: vgg.VGG19, nst_weights: Path, photo: Tensor, style: Tensor, precision: torch.dtype
) -> None:
    half = vgg.VGG19().to_precision(precision)
    gradients = []
    for each in (network, half):
        image = photo[None, :, :64, :64].clone().requires_grad_(True)
        objective = multiscale_objective(
            photo[None, :, :64, :64],
            [style[None]],
            None,
            each,
            content_weight=nst.CONTENT_WEIGHT,
            total_variation_weight=nst.TOTAL_VARIATION_WEIGHT,
        )
        (objective(image) * image.numel()).backward()  # type: ignore[no-untyped-call]
        assert image.grad is not None
        gradients.append(image.grad.flatten())
    assert F.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.98


# --- size ---


def test_the_default_fits_800_by_600_and_never_enlarges(
    network: vgg.VGG19, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "seconds_per_pixel", lambda network: 1e-12)
    monkeypatch.setattr(sizes, "available_memory", lambda: 1e12)
    for (width, height), expected in {
        (4000, 3000): (800, 600),
        (3000, 4000): (450, 600),
        (4000, 1000): (800, 200),
        (320, 240): (320, 240),
    }.items():
        assert sizes.choose_size(width, height, Options(), network) == (expected, "")
    assert sizes.choose_size(320, 240, Options(size=640), network) == ((640, 480), "")


def test_a_slow_machine_gets_what_it_can_do_in_two_minutes_and_is_told(
    network: vgg.VGG19, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_pixel = 1e-5
    monkeypatch.setattr(sizes, "seconds_per_pixel", lambda network: per_pixel)
    (width, height), reason = sizes.choose_size(4000, 3000, Options(), network)
    seconds = width * height * per_pixel * total_work(Options())
    assert seconds == pytest.approx(sizes.PLANNED_SHARE * sizes.CPU_SECONDS, rel=0.15)
    assert "140 s" in reason
    assert "Ask for a size, such as 800" in reason
    (smaller, _), _ = sizes.choose_size(4000, 3000, Options(time_budget=20), network)
    assert smaller < width


def test_a_note_tells_the_size_and_the_reason(
    network: vgg.VGG19, photo: Tensor, style: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "seconds_per_pixel", lambda network: 1e-4)
    result = stylize(
        photo,
        [style],
        Options(max_epochs=1, n_steps_in_epoch=1000),
        network,
        callback=lambda step: True,
    )
    _, height, width = result.image.shape
    assert f"made {width}x{height}: this machine" in result.notes[0]


def test_the_speed_is_measured_on_the_second_evaluation(network: vgg.VGG19) -> None:
    times = iter([0.0, 100.0, 200.0, 203.2])
    assert sizes.seconds_per_pixel(network, 32, times.__next__) == pytest.approx(3.2 / 32**2)


def test_a_cpu_without_the_memory_makes_a_smaller_picture_and_says_so(
    network: vgg.VGG19, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sizes.available_memory() > 1e6
    monkeypatch.setattr(sizes, "available_memory", lambda: 1e9)
    (width, height), reason = sizes.choose_size(4000, 3000, Options(size=2048), network)
    in_tiles = width * height * sizes.TILED_BYTES_PER_PIXEL
    assert in_tiles + sizes.tile_memory(min(sizes.TILE_SIDES)) < 1e9
    assert width / height == pytest.approx(4 / 3, rel=0.02)
    assert "memory" in reason
    assert sizes.choose_size(4000, 3000, Options(size=400), network) == ((400, 300), "")


# --- color ---


def test_the_linear_color_map_gives_the_wanted_moments() -> None:
    generator = torch.Generator().manual_seed(0)
    image = 0.3 + 0.1 * torch.rand(1, 3, 40, 40, generator=generator)
    contrast = torch.tensor([0.3, 0.1, 0.2]).view(1, 3, 1, 1)
    palette = 0.5 + contrast * (torch.rand(1, 3, 30, 50, generator=generator) - 0.5)
    matched = match_colors(image, palette)
    for ours, theirs in zip(color_moments(matched), color_moments(palette), strict=True):
        assert np.allclose(ours, theirs, atol=2e-3)
