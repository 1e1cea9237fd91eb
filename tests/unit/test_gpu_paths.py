"""The ways of both algorithms on a GPU, without one: on PyTorch's device "meta".

Its tensors have a shape and a data type, and no values. As on a GPU, an operation refuses tensors
on different devices. A step that waits for the device to tell a value is an error.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from containers.cyclegan.generator import Generator, Layout
from containers.nst import nst, vgg
from containers.nst.losses import Objective, gatys2015_objective, multiscale_objective
from containers.nst.optimizers import LBFGS, Descent, EarlyStopping, is_read
from containers.nst.options import Options

ROOT = Path(__file__).parents[2]
OTHER_PACKAGES = ["flask", "boto3", "botocore", "requests", "tqdm", "msgspec", "pillow_heif"]
SIZE = (96, 64)
META = torch.device("meta")


@pytest.fixture(params=[torch.float16, torch.bfloat16])
def precision(request: pytest.FixtureRequest) -> torch.dtype:
    chosen: torch.dtype = request.param
    return chosen


def random_weights() -> vgg.VGGWeights:
    """Return weights in the shapes of VGG-19's."""
    channels = {"1": 64, "2": 128, "3": 256, "4": 512, "5": 512}
    convolutions = {}
    before = 3
    for name in vgg.NAMES:
        after = channels[name[0]]
        convolutions[name] = (torch.zeros(after, before, 3, 3), torch.zeros(after))
        before = after
    return vgg.VGGWeights(convolutions, torch.zeros(3), torch.ones(3))


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> vgg.VGG19:
    monkeypatch.setitem(vgg.WEIGHT_SETS, "original", random_weights)
    return vgg.VGG19()


def multiscale_on(network: vgg.VGG19, tile_side: int | None, regional: bool) -> Objective:
    """Return the objective of a picture of SIZE on the network's device, from images on the CPU."""
    content = torch.zeros(3, SIZE[1], SIZE[0])
    styles = [torch.zeros(1, 3, 50, 60)] * 2
    masks = [torch.ones(1, 1, SIZE[1], SIZE[0])] * 2 if regional else []
    options = Options(preserve_color=True)
    work = nst.prepare(content, styles, masks, SIZE, options, network.device)
    return multiscale_objective(
        work.content,
        work.styles,
        [1.0, 2.0],
        network,
        content_weight=1.0,
        total_variation_weight=1.0,
        masks=work.masks,
        tile_side=tile_side,
    )


def image_on(device: torch.device) -> Tensor:
    return torch.zeros(1, 3, SIZE[1], SIZE[0], device=device)


@pytest.mark.parametrize("regional", [False, True])
def test_the_losses_of_nst_stay_on_the_gpu(
    network: vgg.VGG19, precision: torch.dtype, regional: bool
) -> None:
    network = network.to(META).to_precision(precision)
    with torch.no_grad():
        loss = multiscale_on(network, None, regional)(image_on(META))
    assert loss.device == META
    assert loss.dtype == torch.float32


def test_the_losses_of_the_first_version_stay_on_the_gpu(
    network: vgg.VGG19, precision: torch.dtype
) -> None:
    network = network.to(META).to_precision(precision)
    image = image_on(META)
    with torch.no_grad():
        loss = gatys2015_objective(image, [image], None, network, 1.0, 1.0)(image)
    assert loss.device == META
    assert loss.dtype == torch.float32


def channel_statistics(x: Tensor, *averages: object) -> tuple[Tensor, Tensor]:
    """Return tensors in the shapes of a mean and a variance for each channel."""
    mean = x.new_empty(x.shape[1], dtype=torch.float32)
    return mean, torch.empty_like(mean)


@pytest.mark.parametrize("resize", [False, True])
def test_the_generator_stays_on_the_gpu(
    precision: torch.dtype, resize: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # PyTorch knows no autocast for this device, and lacks one operator
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device_type: False)
    library = torch.library.Library("aten", "IMPL", "Meta")  # type: ignore[no-untyped-call]
    library.impl("batch_norm_update_stats", channel_statistics)  # type: ignore[no-untyped-call]
    generator = Generator(Layout(8, affine=resize, resize=resize)).eval().to_precision(precision)
    generator = generator.to(META)
    with torch.no_grad():
        picture = generator(image_on(META))
    assert picture.device == META
    assert picture.shape == (1, 3, SIZE[1], SIZE[0])


def test_an_image_on_the_wrong_device_is_noticed(network: vgg.VGG19) -> None:
    objective = multiscale_on(network.to(META), None, False)
    with torch.no_grad(), pytest.raises((RuntimeError, TypeError), match="device"):
        objective(image_on(torch.device("cpu")))


@pytest.mark.parametrize("tile_side", [None, 48])
@pytest.mark.parametrize("regional", [False, True])
def test_a_step_asks_the_gpu_for_nothing(
    network: vgg.VGG19, tile_side: int | None, regional: bool
) -> None:
    network = network.to(META)
    content = torch.zeros(1, 3, SIZE[1], SIZE[0], device=META)
    masks = [content[:, :1]] * 2 if regional else []
    objective = multiscale_objective(
        content, [content, content], None, network, 1.0, 1.0, masks, tile_side
    )
    descent = Descent(content, objective, LBFGS)
    for _ in range(LBFGS.HISTORY + 2):
        evaluated = descent.step()
        assert evaluated.shape == content.shape
    with pytest.raises(RuntimeError, match="meta"):
        descent.read()


def test_the_benchmarks_of_a_gpu_need_pytorch_and_pillow_alone() -> None:
    """As on a rented GPU, where little else is installed."""
    program = f"""
import sys
for name in {OTHER_PACKAGES}:
    sys.modules[name] = None
import benchmarks.__main__, benchmarks.worker
from benchmarks import cyclegan, nst
from benchmarks.__main__ import ALGORITHMS
from containers.cyclegan.weights import DIRECTORY
assert ALGORITHMS == ["nst", "cyclegan"]
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_loss_is_read_every_ten_steps_on_a_gpu_and_always_on_a_cpu() -> None:
    never = EarlyStopping(None, 10)
    read = [step for step in range(1, 36) if is_read(step, 35, never, META)]
    assert read == [1, 10, 20, 30, 35]
    assert is_read(4, 35, EarlyStopping(1, 4), META)
    assert all(is_read(step, 35, never, torch.device("cpu")) for step in range(1, 36))
