"""CycleGAN's generator: which checkpoints it takes, and that its pictures are the network's."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from containers.cyclegan import generator as generator_module
from containers.cyclegan.generator import (
    CheckpointError,
    Generator,
    find_styles,
    load_generator,
    stylize,
)

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "coffee.jpg"
LEVEL = 1 / 255


@pytest.fixture(scope="module")
def photo() -> Tensor:
    with Image.open(PHOTO) as image:
        pixels = np.asarray(image.convert("RGB").resize((248, 164)), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def vintage_file(cyclegan_weights: Path) -> Path:
    return cyclegan_weights / "style_vintage.pth"


@pytest.fixture(scope="module")
def vintage(vintage_file: Path) -> Generator:
    return load_generator(vintage_file)


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return Generator().state_dict()


Save = Callable[[object], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def to_file(content: object) -> Path:
        torch.save(content, tmp_path / "style_x.pth")
        return tmp_path / "style_x.pth"

    return to_file


def plain_network(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Run the paper's ResNet-9 with PyTorch's own functions, on x in -1..1.

    state: with the names of vintagify's checkpoints.
    """

    def norm(x: Tensor, name: str) -> Tensor:
        layer = torch.nn.InstanceNorm2d(x.shape[1], affine=True)
        layer.load_state_dict({"weight": state[f"{name}.weight"], "bias": state[f"{name}.bias"]})
        normalized: Tensor = layer(x)
        return normalized

    def conv(x: Tensor, name: str, **options: int) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    def up(x: Tensor, name: str) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)

    def reflected(x: Tensor, by: int) -> Tensor:
        return F.pad(x, (by, by, by, by), mode="reflect")

    x = norm(conv(reflected(x, 3), "model.1"), "model.2").relu()
    x = norm(conv(x, "model.4", stride=2, padding=1), "model.5").relu()
    x = norm(conv(x, "model.7", stride=2, padding=1), "model.8").relu()
    for block in (f"model.{number}.block" for number in range(10, 19)):
        y = norm(conv(reflected(x, 1), f"{block}.1"), f"{block}.2").relu()
        x = x + norm(conv(reflected(y, 1), f"{block}.5"), f"{block}.6")
    x = norm(up(x, "model.19"), "model.20").relu()
    x = norm(up(x, "model.22"), "model.23").relu()
    return conv(reflected(x, 3), "model.26").tanh()


# --- the picture ---


@pytest.mark.parametrize("strip", [64, 20, 4])
def test_real_weights_give_what_the_plain_network_gives(
    photo: Tensor,
    vintage: Generator,
    vintage_file: Path,
    strip: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the height of the strips: within a hundredth of a gray level, so no seam shows."""
    monkeypatch.setattr(generator_module, "STRIP", strip)
    with torch.inference_mode():
        expected = (
            plain_network(torch.load(vintage_file, map_location="cpu"), photo * 2 - 1) / 2 + 0.5
        )
    painted = stylize(vintage, photo)
    assert (painted - expected).abs().max() < 0.01 * LEVEL
    assert (painted - photo).abs().mean() > 2 * LEVEL, "the photograph came back unchanged"


def test_half_precision_leaves_the_picture_within_a_grey_level(
    photo: Tensor, vintage: Generator, vintage_file: Path
) -> None:
    half = load_generator(vintage_file, precision=torch.bfloat16)
    difference = (stylize(half, photo) - stylize(vintage, photo)).abs()
    assert 0 < difference.max() < 1.5 * LEVEL
    assert difference.mean() < 0.2 * LEVEL


def convolutions_of(generator: Generator) -> list[Tensor]:
    """Return the weights of the convolutions, which have four dimensions."""
    return [parameter for parameter in generator.parameters() if parameter.ndim == 4]


def test_a_cpu_keeps_the_outermost_layers_in_float32(vintage_file: Path) -> None:
    half = load_generator(vintage_file, precision=torch.bfloat16)
    first, *inner, second_last, last = [weight.dtype for weight in convolutions_of(half)]
    assert first == second_last == last == torch.float32
    assert set(inner) == {torch.bfloat16}


def test_what_a_gpu_does_leaves_the_picture_within_a_grey_level_on_average(
    photo: Tensor, vintage: Generator, vintage_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its way through the network, on a CPU: all layers in half precision, no strips."""
    expected = stylize(vintage, photo)
    monkeypatch.setattr(Generator, "INNER_CONVOLUTIONS", slice(None))
    half = load_generator(vintage_file, precision=torch.bfloat16)
    assert {parameter.dtype for parameter in convolutions_of(half)} == {torch.bfloat16}
    monkeypatch.setattr(generator_module, "run_in_strips", generator_module.run_at_once)
    monkeypatch.setattr(generator_module, "split_rows", lambda x: [x])
    difference = (stylize(half, photo) - expected).abs()
    assert 0 < difference.mean() < LEVEL


def test_official_weights_give_what_the_plain_network_gives(
    official: dict[str, Tensor], save: Save
) -> None:
    image = torch.rand(1, 3, 100, 72, generator=torch.Generator().manual_seed(1))
    state = {name.replace(".conv_block.", ".block."): tensor for name, tensor in official.items()}
    for name, channels in [
        (n.rsplit(".", 1)[0], t.shape[0]) for n, t in official.items() if n.endswith("bias")
    ]:
        prefix, number = name.rsplit(".", 1)
        # The normalization of each convolution comes next
        norm = f"{prefix.replace('conv_block', 'block')}.{int(number) + 1}"
        state[f"{norm}.weight"], state[f"{norm}.bias"] = torch.ones(channels), torch.zeros(channels)
    with torch.inference_mode():
        expected = plain_network(state, image * 2 - 1) / 2 + 0.5
    assert (stylize(load_generator(save(official)), image) - expected).abs().max() < 0.01 * LEVEL


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 40), (3, 2), (5, 7), (8, 8), (17, 300), (129, 31), (67, 101)]
)
def test_any_size_comes_back_in_that_size(vintage: Generator, height: int, width: int) -> None:
    painted = stylize(vintage, torch.rand(1, 3, height, width))
    assert painted.shape == (1, 3, height, width)
    assert painted.isfinite().all()
    assert painted.min() >= 0
    assert painted.max() <= 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_picture_of_one_color_is_stylized_too(vintage: Generator, value: float) -> None:
    assert stylize(vintage, torch.full((1, 3, 30, 30), value)).isfinite().all()


def test_strength_blends_with_the_photograph(vintage: Generator, photo: Tensor) -> None:
    small = photo[:, :, :60, :80]
    painted = stylize(vintage, small)
    assert torch.equal(stylize(vintage, small, strength=0), small)
    assert torch.allclose(
        stylize(vintage, small, strength=0.25), 0.75 * small + 0.25 * painted, atol=1e-6
    )


def test_progress_rises_to_the_end(vintage: Generator) -> None:
    told: list[float] = []
    stylize(vintage, torch.rand(1, 3, 16, 16), on_progress=told.append)
    assert len(told) > 9
    assert told == sorted(told)
    assert told[-1] == 1


def test_the_photograph_itself_is_left_alone(vintage: Generator) -> None:
    image = torch.rand(1, 3, 16, 16)
    before = image.clone()
    stylize(vintage, image).add_(1)
    stylize(vintage, image, strength=0).add_(1)
    assert torch.equal(image, before)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_channels_last_survives_every_layer(vintage_file: Path, precision: torch.dtype) -> None:
    generator = load_generator(vintage_file, precision=precision)
    broken: list[str] = []

    def check(name: str) -> Callable[..., None]:
        def hook(module: object, inputs: object, output: Tensor) -> None:
            if not output.is_contiguous(memory_format=torch.channels_last):
                broken.append(name)

        return hook

    for name, module in generator.named_modules():
        if name:
            module.register_forward_hook(check(name))
    stylize(generator, torch.rand(1, 3, 96, 40))
    assert not broken


@pytest.mark.parametrize(
    "image",
    [
        torch.rand(3, 16, 16),
        torch.rand(2, 3, 16, 16),
        torch.rand(1, 4, 16, 16),
        torch.rand(1, 3, 0, 16),
        torch.zeros(1, 3, 16, 16, dtype=torch.uint8),
    ],
    ids=["no batch", "two pictures", "four channels", "empty", "bytes"],
)
def test_an_unfit_image_is_refused(vintage: Generator, image: Tensor) -> None:
    with pytest.raises(ValueError, match=r"image must be floats of shape \(1, 3, H, W\)"):
        stylize(vintage, image)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_an_unfit_strength_is_refused(vintage: Generator, strength: float) -> None:
    with pytest.raises(ValueError, match="strength must be within"):
        stylize(vintage, torch.rand(1, 3, 16, 16), strength=strength)


def test_no_picture_of_nan_is_returned(official: dict[str, Tensor], save: Save) -> None:
    generator = load_generator(
        save({**official, "model.4.weight": torch.full((128, 64, 3, 3), 3e38)})
    )
    with pytest.raises(FloatingPointError, match="no finite picture"):
        stylize(generator, torch.rand(1, 3, 32, 32))


def test_what_leaves_the_range_of_half_precision_is_done_in_float32(
    official: dict[str, Tensor], save: Save
) -> None:
    path = save(
        {**official, "model.10.conv_block.1.weight": 6e4 * torch.randn(256, 256, 3, 3).sign()}
    )
    image = torch.rand(1, 3, 24, 24)
    half = stylize(load_generator(path, precision=torch.float16), image)
    assert (half - stylize(load_generator(path), image)).abs().max() < 2 * LEVEL


# --- checkpoints ---


def test_the_layout_is_the_official_one(official: dict[str, Tensor]) -> None:
    plain = [f"model.{i}.{field}" for i in (1, 4, 7, 19, 22, 26) for field in ("weight", "bias")]
    blocks = [
        f"model.{i}.conv_block.{j}.{field}"
        for i in range(10, 19)
        for j in (1, 5)
        for field in ("weight", "bias")
    ]
    assert sorted(official) == sorted(plain + blocks)
    assert len(official) == 48
    assert sum(tensor.numel() for tensor in official.values()) == 11_378_179


def test_old_running_statistics_are_left_out(official: dict[str, Tensor], save: Save) -> None:
    state = dict(official)
    for norm, channels in [("model.2", 64), ("model.10.conv_block.6", 256), ("model.23", 64)]:
        state[f"{norm}.running_mean"] = torch.full((channels,), torch.nan)  # not to be used
        state[f"{norm}.running_var"] = torch.zeros(channels)
        state[f"{norm}.num_batches_tracked"] = torch.tensor(5)
    image = torch.rand(1, 3, 24, 24)
    assert torch.equal(
        stylize(load_generator(save(state)), image), stylize(load_generator(save(official)), image)
    )


def test_half_precision_is_widened(official: dict[str, Tensor], save: Save) -> None:
    generator = load_generator(save({name: tensor.half() for name, tensor in official.items()}))
    assert all(parameter.dtype == torch.float32 for parameter in generator.parameters())
    stylize(generator, torch.rand(1, 3, 24, 24))


def test_each_difference_is_named(
    official: dict[str, Tensor], vintage_file: Path, save: Save
) -> None:
    def without(name: str) -> dict[str, Tensor]:
        return {key: tensor for key, tensor in official.items() if key != name}

    vintage_state = torch.load(vintage_file, map_location="cpu")
    nan = official["model.7.bias"].clone()
    nan[3] = torch.nan
    first = "model.1.weight"
    cases: list[tuple[object, str]] = [
        (without("model.22.bias"), "model.22.bias is missing"),
        ({**official, "extra.weight": torch.ones(1)}, "extra.weight does not belong there"),
        (
            {**official, "model.3.running_mean": torch.ones(64)},
            "model.3.running_mean does not belong there",
        ),
        ({**official, "model.2.weight": torch.ones(64)}, "model.2.bias is missing"),
        (
            {**official, "model.10.block.2.weight": torch.ones(256)},
            "model.10.conv_block.2.weight does not belong",
        ),
        (
            {key: v for key, v in vintage_state.items() if key != "model.14.block.6.bias"},
            "model.14.conv_block.6.bias",
        ),
        ({**official, first: torch.ones(64, 4, 7, 7)}, "(64, 4, 7, 7) instead of (64, 3, 7, 7)"),
        ({**official, first: "weights"}, "model.1.weight is a str"),
        (
            {**official, first: official[first].to_sparse()},
            "model.1.weight is a Tensor without plain values",
        ),
        ({**official, first: official[first].long()}, "model.1.weight is of type torch.int64"),
        (
            {**official, "model.7.bias": nan},
            "model.7.bias has values that are infinite or no numbers",
        ),
        ({"state_dict": official, "epoch": 200}, "model.1.weight is missing"),
        (
            {f"module.{key}": tensor for key, tensor in official.items()},
            "model.1.weight is missing",
        ),
        ({1: torch.ones(1)}, "model.1.weight is missing"),
        ({}, "model.1.weight is missing"),
        ([1, 2], "holds a list instead of tensors by name"),
        (torch.ones(3), "holds a Tensor instead of tensors by name"),
    ]
    for content, message in cases:
        with pytest.raises(CheckpointError) as refusal:
            load_generator(save(content))
        assert message in str(refusal.value)
        assert "style_x.pth" in str(refusal.value)


class Malicious:
    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (f"open({str(self.touched)!r}, 'w').close()",)


@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_code_in_a_checkpoint_never_runs(
    official: dict[str, Tensor], tmp_path: Path, kind: str
) -> None:
    path, touched = tmp_path / "style_x.pth", tmp_path / "touched"
    content = {**official, "model.1.weight": Malicious(touched)}
    if kind == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(CheckpointError, match="code, which is never run"):
        load_generator(path)
    assert not touched.exists()


def test_broken_files_are_refused(vintage_file: Path, tmp_path: Path) -> None:
    whole = vintage_file.read_bytes()
    path = tmp_path / "style_x.pth"
    for content in (
        b"",
        b"PK",
        b"\x80\x02",
        b"<html>not found</html>",
        whole[:1000],
        whole[: len(whole) // 2],
        whole[9:],
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"style_x\.pth is no checkpoint"):
            load_generator(path)
    for unreadable in (tmp_path, tmp_path / "absent.pth"):
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_generator(unreadable)


def test_styles_are_known_by_their_files_names(tmp_path: Path) -> None:
    for name in (
        "style_vangogh.pth",
        "style_monet.pth",
        "autumn.pth",
        ".hidden.pth",
        "notes.txt",
        "SHA256SUMS",
    ):
        (tmp_path / name).touch()
    (tmp_path / "folder.pth").mkdir()
    assert find_styles(tmp_path) == {
        "autumn": tmp_path / "autumn.pth",
        "monet": tmp_path / "style_monet.pth",
        "vangogh": tmp_path / "style_vangogh.pth",
    }
    assert list(find_styles(tmp_path)) == ["autumn", "monet", "vangogh"]
    assert find_styles(tmp_path / "absent") == {}
