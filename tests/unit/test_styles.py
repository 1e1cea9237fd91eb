"""Each checkpoint proves itself before it is served; directories of them are styles."""

import json
import os
import resource
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from containers.common.errors import InvalidParameterError, UnknownStyleError
from containers.cyclegan import service, styles
from containers.cyclegan.checkpoint_file import check_file
from containers.cyclegan.generator import CheckpointError, Generator, Layout
from containers.cyclegan.service import CycleGanModel, model_directories
from containers.cyclegan.styles import in_order, label_of, load_style
from containers.serving.model import CatalogModel

CPU = torch.device("cpu")


def checkpoint(filters: int = 8) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return Generator(Layout(filters)).state_dict()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "style_x.pth"


# --- the proof ---


def test_real_weights_are_served_in_the_faster_precision(cyclegan_weights: Path) -> None:
    style = load_style(cyclegan_weights / "style_vintage.pth", CPU, torch.bfloat16)
    assert style.precision == torch.bfloat16
    assert style.difference is not None
    assert 0 < style.difference <= 2
    assert {p.dtype for p in style.generator.parameters()} == {torch.float32, torch.bfloat16}
    assert style.facts()["precision"] == "bfloat16"


def test_weights_that_need_float32_are_served_in_it(path: Path) -> None:
    """Random weights exaggerate each difference."""
    torch.save(checkpoint(filters=32), path)
    style = load_style(path, CPU, torch.bfloat16)
    assert style.precision == torch.float32
    assert style.difference is not None
    assert style.difference > 2
    assert {p.dtype for p in style.generator.parameters()} == {torch.float32}


def test_weights_beyond_the_range_of_half_precision_are_served_in_float32(path: Path) -> None:
    state = checkpoint()
    name = "model.10.conv_block.1.weight"
    state[name] = 6e4 * torch.randn_like(state[name]).sign()
    torch.save(state, path)
    style = load_style(path, CPU, torch.float16)
    assert style.precision == torch.float32
    assert style.difference is None


def test_where_only_float32_is_fast_nothing_is_compared(path: Path) -> None:
    torch.save(checkpoint(), path)
    style = load_style(path, CPU, torch.float32)
    assert (style.precision, style.difference) == (torch.float32, None)
    assert "difference" not in style.facts()


def test_weights_that_give_no_picture_are_refused(path: Path) -> None:
    state = checkpoint()
    state["model.4.weight"] = torch.full_like(state["model.4.weight"], 3e38)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"style_x\.pth cannot be used: .*no finite picture"):
        load_style(path, CPU, torch.bfloat16)


# --- files that are larger than they seem ---


def test_a_checkpoint_that_grows_when_it_is_read_is_refused(path: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    torch.save({"model.1.weight": torch.zeros(10 << 20)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(CheckpointError, match=r"style_x\.pth is compressed, and becomes 40 MB"):
        load_style(path, CPU, torch.float32)
    check_file(plain)


class Bytes:
    """Pickled, it is 30 bytes that ask for 4 GB of zeros, which weights_only allows."""

    def __reduce__(self) -> tuple[type[bytearray], tuple[int]]:
        return bytearray, (4 << 30,)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_checkpoint_that_asks_for_memory_is_refused(path: Path, is_zip: bool) -> None:
    torch.save(
        {**checkpoint(), "model.1.weight": Bytes()}, path, _use_new_zipfile_serialization=is_zip
    )
    before = peak_memory()
    with pytest.raises(CheckpointError, match=r"style_x\.pth .* it holds '\w+ bytearray'"):
        load_style(path, CPU, torch.float32)
    assert peak_memory() - before < 1 << 30


def peak_memory() -> int:
    """Return this process's largest resident set so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def test_a_checkpoint_that_is_too_large_is_refused(path: Path) -> None:
    torch.save(checkpoint(), path)
    # A hole, which takes no room on the disk
    os.truncate(path, 3 << 30)
    with pytest.raises(CheckpointError, match=r"style_x\.pth has 3072 MB"):
        load_style(path, CPU, torch.float32)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_checkpoint_of_any_format_is_taken(path: Path, kind: torch.dtype, is_zip: bool) -> None:
    state = {name: value.to(kind) for name, value in checkpoint().items()}
    torch.save(state, path, _use_new_zipfile_serialization=is_zip)
    load_style(path, CPU, torch.float32)


@pytest.mark.parametrize(
    "data", [b"", b"PK", b"PK\x03\x04" + bytes(100), b"\x80\x02", b"\x80\x02.", b"hello"]
)
def test_a_damaged_file_is_no_checkpoint(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"style_x\.pth is no checkpoint of tensors"):
        load_style(path, CPU, torch.float32)


def test_a_checkpoint_of_one_value_under_many_names_is_refused(path: Path) -> None:
    one = torch.zeros(1)
    torch.save({name: one.expand(value.shape) for name, value in checkpoint().items()}, path)
    with pytest.raises(CheckpointError, match="fewer values than its tensors claim"):
        load_style(path, CPU, torch.float32)


# --- names ---


def test_people_see_the_painters_in_the_order_that_they_expect() -> None:
    names = ["vintage", "waves", "ukiyoe", "dabs", "monet", "cezanne", "vangogh"]
    assert in_order(names) == ["monet", "vangogh", "cezanne", "ukiyoe", "dabs", "waves", "vintage"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("monet", "Monet"),
        ("vangogh", "Van Gogh"),
        ("ukiyoe", "Ukiyo-e"),
        ("starry_night", "Starry Night"),
        ("my-cat", "My Cat"),
    ],
)
def test_a_label_is_for_people(name: str, label: str) -> None:
    assert label_of(name) == label


# --- directories ---


def test_shipped_and_fetched_checkpoints_are_styles_and_mounted_ones_replace_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painters, fetched, mounted = (tmp_path / name for name in ("painters", "fetched", "mounted"))
    mounted.mkdir()
    monkeypatch.setattr(service, "PAINTERS", painters)
    monkeypatch.setattr(service, "FETCHED", fetched)
    monkeypatch.setenv("MODEL_DIR", str(mounted))
    for folder, name in ((painters, "waves"), (fetched, "monet")):
        folder.mkdir()
        torch.save(checkpoint(), folder / f"style_{name}.pth")
    # What a painter's recipe is
    (painters / "waves.json").write_text("{}")
    assert CycleGanModel(model_directories()).styles() == ["monet", "waves"]

    torch.save(checkpoint(), mounted / "style_klimt.pth")
    assert CycleGanModel(model_directories()).styles() == ["klimt"]


def test_a_directory_that_is_not_there_has_no_styles(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "style_waves.pth")
    model = CycleGanModel([tmp_path / "absent", tmp_path])
    model.load_all()
    assert model.styles() == ["waves"]
    assert isinstance(model, CatalogModel)


def test_a_directory_without_any_usable_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"No style .* There is no \.pth file"):
        CycleGanModel([tmp_path])
    (tmp_path / "style_torn.pth").write_bytes(b"PK")
    model = CycleGanModel([tmp_path])
    with pytest.raises(CheckpointError, match=r"No style .*style_torn\.pth is no checkpoint"):
        model.load_all()


def test_a_start_tells_how_each_style_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(checkpoint(), tmp_path / "style_waves.pth")
    (tmp_path / "style_torn.pth").write_bytes(b"PK")
    CycleGanModel([tmp_path]).load_all()
    log = capsys.readouterr().out
    assert '{"event": "style", "style": "waves", "precision": "' in log
    assert '{"event": "style refused", "style": "torn", "reason": "' in log


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS refuses such names")
def test_a_name_that_is_not_utf_8_is_left_out_and_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(checkpoint(), tmp_path / "style_waves.pth")
    for name in (b"style_caf\xe9.pth", b"style_a\nb.pth"):
        torch.save(checkpoint(), tmp_path / os.fsdecode(name))
    model = CycleGanModel([tmp_path])
    model.load_all()
    assert model.styles() == ["waves"]
    log = capsys.readouterr().out.splitlines()
    ignored = [json.loads(line)["file"] for line in log if "style ignored" in line]
    assert ignored == ["style_a\\nb.pth", "style_caf\\xe9.pth"]


def test_one_picture_from_files_loads_one_style(tmp_path: Path) -> None:
    for name in ("waves", "dabs"):
        torch.save(checkpoint(), tmp_path / f"style_{name}.pth")
    (tmp_path / "style_torn.pth").write_bytes(b"PK")
    model = CycleGanModel([tmp_path])
    model.generator("dabs")
    assert list(model.generators) == ["dabs"]
    with pytest.raises(UnknownStyleError, match=r"torn could not be loaded. .*style_torn\.pth"):
        model.generator("torn")
    with pytest.raises(UnknownStyleError, match=r"no style 'x+'\. Choose one of: dabs, waves"):
        model.generator("x" * 1000)
    with pytest.raises(InvalidParameterError, match="style_name is missing"):
        model.generator(None)


def test_a_proof_is_made_on_a_photograph_and_on_fields_of_one_color() -> None:
    """Not on a photograph alone: the largest differences are in flat parts."""
    photograph, fields = styles.proof_pictures()
    assert photograph.size == fields.size == styles.PROOF_SIZE
    largest = sorted(count for count, _ in fields.getcolors(10_000) or [])[-8:]
    assert min(largest) >= 30 * 20


def test_the_photograph_of_all_proofs_stays_the_same() -> None:
    styles.load_photograph().thumbnail((10, 10))
    assert styles.load_photograph().size == (360, 240)
