"""The judge of pictures and its rivals. Small pictures, real weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks.judge import lead_over
from benchmarks.judge.check import blur, shuffle
from benchmarks.judge.measures import (
    Judge,
    patch_distances,
    projected_quantiles,
    sliced_wasserstein,
    to_lab,
)
from benchmarks.judge.rivals.nnst import nnst
from benchmarks.judge.rivals.pyramid import from_pyramid, to_pyramid
from benchmarks.judge.rivals.strotss import relaxed_transport, strotss
from benchmarks.judge.rivals.wasserstein import gaussian, squared_distance, wasserstein
from containers.common.tensors import to_tensor
from containers.nst.images import match_colors
from containers.nst.vgg import VGG19

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZE = (96, 64)
# Of each scale
STEPS = 1


def example(name: str) -> Tensor:
    """Return a picture of examples/ as (3, H, W)."""
    image = Image.open(EXAMPLES / name).convert("RGB")
    return to_tensor(image.resize(SIZE, Image.Resampling.LANCZOS))


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    return example("photos/chelsea.jpg")


@pytest.fixture(scope="module")
def style() -> Tensor:
    return example("styles/swirls.jpg")


@pytest.fixture(scope="module")
def network(nst_weights: Path) -> VGG19:
    return VGG19()


@pytest.fixture(scope="module")
def judge(photograph: Tensor, style: Tensor, network: VGG19) -> Judge:
    return Judge(photograph, style, SIZE, network)


# ---- the verdicts ----


def test_the_photograph_is_coherent_and_has_nothing_of_the_style(
    judge: Judge, photograph: Tensor
) -> None:
    verdict = judge(photograph)
    assert verdict.effectiveness == pytest.approx(0, abs=1e-4)
    assert verdict.coherence == pytest.approx(1, abs=1e-4)


def test_the_style_picture_has_all_of_the_style_and_nothing_of_the_photograph(
    judge: Judge, style: Tensor
) -> None:
    verdict = judge(style)
    assert verdict.effectiveness == pytest.approx(1, abs=1e-4)
    assert verdict.coherence == pytest.approx(0, abs=1e-4)
    assert verdict.grain == pytest.approx(1, abs=1e-4)


def test_a_photograph_in_the_colors_of_the_style_is_between_the_two(
    judge: Judge, photograph: Tensor, style: Tensor
) -> None:
    verdict = judge(match_colors(photograph[None], style[None])[0])
    assert 0 < verdict.effectiveness < 1
    assert 0 < verdict.coherence < 1


def test_a_blurred_style_has_less_of_the_style_and_less_grain(judge: Judge, style: Tensor) -> None:
    verdict = judge(blur(style))
    assert verdict.effectiveness < 0.95
    assert verdict.grain < 0.8


def test_noise_shows_as_grain_and_takes_from_the_style(judge: Judge, style: Tensor) -> None:
    noise = 0.2 * torch.randn(style.shape, generator=torch.Generator().manual_seed(0))
    verdict = judge((style + noise).clamp(0, 1))
    assert verdict.grain > 1.2
    assert verdict.effectiveness < 0.95


def test_a_shuffled_photograph_is_not_coherent(judge: Judge, photograph: Tensor) -> None:
    assert judge(shuffle(photograph)).coherence < 0.5


# ---- the statistics ----


def test_the_order_and_the_number_of_the_points_do_not_matter() -> None:
    points = torch.randn(3, 4000, generator=torch.Generator().manual_seed(0))
    half = points[:, torch.randperm(4000)[:2000]]
    distance = sliced_wasserstein(projected_quantiles(half), projected_quantiles(points))
    assert distance < 0.1


def test_the_distance_of_moved_points_is_the_move() -> None:
    """On a line, the Wasserstein distance of moved points is the move."""
    points = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    moved = projected_quantiles(points + 3 * points.std())
    assert sliced_wasserstein(moved, projected_quantiles(points)) == pytest.approx(3, rel=0.05)


def test_patches_are_compared_in_one_direction() -> None:
    many = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    few = many[:1]
    assert patch_distances(few, many) == 0
    # The second patch is 3 and 4 away in its two values, the first one not at all
    assert patch_distances(many, few) == pytest.approx(((9 + 16) / 4) ** 0.5)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [((1, 1, 1), (100, 0, 0)), ((0, 0, 0), (0, 0, 0)), ((1, 0, 0), (53.2, 80.1, 67.2))],
)
def test_colors_are_those_of_cielab(rgb: tuple[float, ...], lab: tuple[float, ...]) -> None:
    found = to_lab(torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1)).flatten()
    assert found.tolist() == pytest.approx(lab, abs=0.2)


# ---- the report ----


def test_a_rival_is_compared_at_equal_coherence() -> None:
    ours = [
        {"coherence": 0.2, "effectiveness": 0.6},
        {"coherence": 0.4, "effectiveness": 0.4},
        {"coherence": 0.1, "effectiveness": 0.7},
    ]
    assert lead_over(ours, {"coherence": 0.3, "effectiveness": 0.6}) == "+0.100"
    assert lead_over(ours, {"coherence": 0.4, "effectiveness": 0.3}) == "-0.100"
    assert lead_over(ours, {"coherence": 0.5, "effectiveness": 0.3}) == "not comparable"


# ---- the rivals ----


@pytest.mark.parametrize("rival", [nnst, strotss, wasserstein])
def test_a_rival_moves_the_photograph_towards_the_style(
    rival: Callable[..., Tensor], judge: Judge, photograph: Tensor, style: Tensor, network: VGG19
) -> None:
    watched: list[int] = []
    made = rival(
        photograph[None], style[None], network, lambda number, image: watched.append(number), STEPS
    )
    assert made.shape == photograph[None].shape
    assert 0 <= made.min() <= made.max() <= 1
    assert judge(made[0]).coherence < 1
    assert watched == list(range(1, len(watched) + 1))


def test_a_pyramid_adds_up_to_its_image(photograph: Tensor) -> None:
    pyramid = to_pyramid(photograph[None], 4)
    assert len(pyramid) == 5
    torch.testing.assert_close(from_pyramid(pyramid), photograph[None])


def test_the_transport_is_the_larger_of_both_directions() -> None:
    distances = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    # Each row has a column at distance 0; the second column is 1 from every row
    assert float(relaxed_transport(distances)) == 0.5


def test_the_distance_of_gaussians_is_that_of_their_roots_where_these_commute() -> None:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(1, 3, 40, 40, generator=random)
    found = (2 * features + 1).requires_grad_(True)
    distance = squared_distance(found, gaussian(features))
    # A channel's mean moved, and its deviation doubled
    mean = features.mean((2, 3))
    variances = features.var((2, 3), unbiased=False)
    expected = ((mean + 1).square() + variances).mean()
    assert distance.item() == pytest.approx(expected.item(), rel=0.01)


def test_the_gradient_of_that_distance_is_its_slope() -> None:
    random = torch.Generator().manual_seed(0)
    target = gaussian(torch.randn(1, 3, 8, 8, generator=random))
    features = torch.rand(1, 3, 8, 8, generator=random)
    move = torch.randn(features.shape, generator=random)
    features.requires_grad_(True)
    squared_distance(features, target).backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    slope = float((features.grad * move).sum())
    step = 1e-2
    with torch.no_grad():
        ahead = squared_distance(features + step * move, target)
        behind = squared_distance(features - step * move, target)
    assert slope == pytest.approx(float(ahead - behind) / (2 * step), rel=0.02)
