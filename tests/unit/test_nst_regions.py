"""Neural style transfer with masks, and of large pictures in tiles. Real weights."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from containers.common.tensors import to_tensor
from containers.nst import nst, sizes, tiles, vgg
from containers.nst.losses import gram, multiscale_objective
from containers.nst.options import Options, check
from containers.nst.regions import check_masks, guidance

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def network(nst_weights: Path) -> vgg.VGG19:
    return vgg.VGG19()


def example(name: str, longest: int) -> Tensor:
    with Image.open(EXAMPLES / name) as image:
        image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        return to_tensor(image)


def left_half(height: int, width: int) -> Tensor:
    mask = torch.zeros(1, 1, height, width)
    mask[..., : width // 2] = 1
    return mask


def style_error(image: Tensor, style: Tensor, network: vgg.VGG19) -> float:
    """Return how far the Gram matrices are from the style's, each relative to its size."""
    layers = ["relu1_1", "relu2_1", "relu3_1"]
    found = network(image[None], set(layers))
    wanted = network(style[None], set(layers))
    error = 0.0
    for layer in layers:
        target = gram(wanted[layer])
        error += float(F.mse_loss(gram(found[layer]), target) / target.pow(2).mean())
    return error


# --- regions ---


def test_each_half_gets_the_style_of_its_mask(network: vgg.VGG19) -> None:
    photo = example("photos/chelsea.jpg", 96)
    swirls = example("styles/swirls.jpg", 96)
    waves = example("styles/waves.jpg", 96)
    _, height, width = photo.shape
    mask = left_half(height, width)
    options = Options(size=96, max_epochs=2)
    result = nst.stylize(
        photo, [swirls, waves], options, network, lambda step: False, masks=[mask, 1 - mask]
    )
    left = result.image[..., : width // 2]
    right = result.image[..., width // 2 :]
    assert style_error(left, swirls, network) < style_error(left, waves, network) / 2
    assert style_error(right, waves, network) < style_error(right, swirls, network) / 2


def test_outside_of_all_masks_the_photograph_stays(network: vgg.VGG19) -> None:
    photo = example("photos/chelsea.jpg", 64)
    _, height, width = photo.shape
    mask = left_half(height, width)
    options = Options(size=width, max_epochs=1)
    style = example("styles/swirls.jpg", 64)
    result = nst.stylize(photo, [style], options, network, lambda step: False, masks=[mask])
    difference = (result.image - photo).abs()
    assert difference[..., width // 2 :].max() < 1e-6
    assert difference[..., : width // 2].mean() > 0.05


def test_a_guided_gram_matrix_is_that_of_the_region_alone() -> None:
    features = torch.rand(1, 5, 12, 16)
    factors = guidance(left_half(24, 32), 12, 16)
    assert torch.allclose(gram(features * factors), gram(features[..., :8]), atol=1e-6)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(1, 1, 40, 40), "Mask 2 is 40x40, and the photograph 80x60"),
        (torch.zeros(1, 1, 60, 80), "Mask 2 is black nearly everywhere"),
    ],
)
def test_a_mask_that_cannot_be_used_is_refused_with_its_number(mask: Tensor, message: str) -> None:
    good = torch.ones(1, 1, 30, 40)
    check_masks([good, good[..., :1, :1].expand(1, 1, 601, 800)], (80, 60))
    with pytest.raises(ValueError, match=message):
        check_masks([good, mask], (80, 60))


def test_each_style_needs_a_mask_and_gatys2015_knows_none() -> None:
    check(Options(), 2, 2)
    with pytest.raises(ValueError, match="1 masks for 2 styles"):
        check(Options(), 2, 1)
    with pytest.raises(ValueError, match="gatys2015 knows no masks"):
        check(Options(algorithm="gatys2015"), 1, 1)


# --- tiles ---


@pytest.mark.parametrize("regional", [False, True])
def test_tiles_add_up_to_the_whole_loss_and_gradient(network: vgg.VGG19, regional: bool) -> None:
    """At sides that are no multiples of 16. The border of a tile would show as a seam."""
    generator = torch.Generator().manual_seed(0)
    content = torch.rand(1, 3, 183, 199, generator=generator)
    styles = [torch.rand(1, 3, 100, 243, generator=generator)]
    masks = None
    if regional:
        styles.append(torch.rand(1, 3, 90, 50, generator=generator))
        mask = F.avg_pool2d(left_half(183, 199), 9, 1, 4)
        masks = [mask, 1 - mask]
    start = (content + 0.1 * torch.rand(content.shape, generator=generator)).clamp(0, 1)

    def loss_and_gradient(tile_side: int | None) -> tuple[Tensor, Tensor]:
        objective = multiscale_objective(
            content, styles, None, network, 0.0098, 0.2, masks, tile_side
        )
        image = start.clone().requires_grad_()
        loss = objective(image)
        (gradient,) = torch.autograd.grad(loss * image.numel(), image)
        return loss.detach(), gradient

    whole_loss, whole = loss_and_gradient(None)
    loss, gradient = loss_and_gradient(112)
    assert torch.allclose(loss, whole_loss, rtol=1e-5)
    assert (gradient - whole).abs().max() < 1e-5 * whole.abs().max()


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 300), (4096, 3072), (1030, 999)])
@pytest.mark.parametrize("side", [256, 1024])
def test_tiles_cover_every_feature_once(height: int, width: int, side: int) -> None:
    image = torch.empty(1, 1, height, width, device="meta")
    for stride in (1, 2, 4, 8, 16):
        covered = torch.zeros(1, 1, height // stride, width // stride)
        shares = 0.0
        for tile in tiles.split(image, side):
            tile.part(covered, stride).add_(1)
            shares += tile.share(stride)
        assert (covered == 1).all()
        assert shares == pytest.approx(1)


def test_the_time_and_memory_of_a_large_picture_are_told_before_the_work(
    network: vgg.VGG19, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "seconds_per_pixel", lambda network: 1e-6)
    monkeypatch.setattr(sizes, "available_memory", lambda: 1e12)
    told: list[str] = []
    photo = torch.rand(3, 16, 1100)

    def stop(step: nst.Step) -> bool:
        told.append("step")
        return True

    def ask(size: int) -> None:
        nst.stylize(
            photo,
            [photo],
            Options(size=size, max_epochs=1),
            network,
            stop,
            announce=lambda found: told.append(str(found)),
        )

    monkeypatch.setattr(nst, "DEFAULT_BOX", (100, 100))
    ask(1100)
    assert told == ["1100x16 will take about 0 minutes and 0.1 GB of memory.", "step"]
    told.clear()
    ask(400)
    assert told == ["step"]


def test_tiles_take_more_time_and_less_memory(
    network: vgg.VGG19, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "seconds_per_pixel", lambda network: 1e-6)
    whole = sizes.estimate((4096, 3072), None, Options(size=4096), network)
    tiled = sizes.estimate((4096, 3072), 256, Options(size=4096), network)
    assert whole.seconds == pytest.approx(4096 * 3072 * 1e-6 * 80, rel=0.01)
    assert whole.memory > 40e9
    assert whole.seconds * 3 < tiled.seconds < whole.seconds * 4
    assert tiled.memory < 4e9


def test_4096_pixels_fit_into_four_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "available_memory", lambda: 4.3e9)
    size = (4096, 3072)
    options = Options(size=4096)
    assert sizes.most_pixels(options, sizes.PLANNED_SHARE * 4.3e9) >= 4096 * 3072
    assert sizes.choose_tile_side(size, options, torch.device("cpu")) == 256
    assert sizes.choose_tile_side((800, 600), options, torch.device("cpu")) is None
