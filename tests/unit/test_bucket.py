"""Styles at MODELS_URL: they come, change and go while the server runs. S3 is moto."""

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch
from moto import mock_aws

from containers.common.errors import ErrorCode, UnknownStyleError
from containers.cyclegan import bucket as bucket_module
from containers.cyclegan import service
from containers.cyclegan.bucket import BucketStyles
from containers.cyclegan.generator import Generator, Layout
from containers.cyclegan.service import CycleGanModel
from containers.serving import storage
from containers.serving.errors import ApiError

CPU = torch.device("cpu")
MODELS_URL = "s3://bucket/models/"


def checkpoint(seed: int = 0) -> bytes:
    """Return a file as the trainer writes it, but tiny."""
    torch.manual_seed(seed)
    state = Generator(Layout(filters=4)).state_dict()
    file = io.BytesIO()
    torch.save({name: tensor.half() for name, tensor in state.items()}, file)
    return file.getvalue()


@dataclass
class Store:
    """S3 with a bucket. error: what every call ends with."""

    client: Any
    lists: int = 0
    reads: list[str] = field(default_factory=list)
    error: ApiError | None = None

    def put(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket="bucket", Key=f"models/{name}", Body=data)

    def delete(self, name: str) -> None:
        self.client.delete_object(Bucket="bucket", Key=f"models/{name}")


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    storage.s3.cache_clear()
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        store = Store(client)
        real_list, real_read = storage.list_s3, storage.read

        def list_s3(url: str, name: str) -> list[storage.ListedObject]:
            store.lists += 1
            if store.error:
                raise store.error
            return real_list(url, name)

        def read(url: str, name: str) -> bytes:
            store.reads.append(url.rpartition("/")[2])
            if store.error:
                raise store.error
            return real_read(url, name)

        monkeypatch.setattr(storage, "list_s3", list_s3)
        monkeypatch.setattr(storage, "read", read)
        yield store
    storage.s3.cache_clear()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def styles(store: Store, clock: Clock) -> BucketStyles:
    return BucketStyles(MODELS_URL, CPU, torch.float32, clock)


def ask(styles: BucketStyles, name: str) -> Generator | None:
    """Do what a request for a picture does."""
    styles.prepare(name)
    return styles.generator(name)


def first_weight(generator: Generator | None) -> float:
    assert generator is not None
    return float(next(generator.parameters()).flatten()[0])


# --- they come, change and go ---


def test_a_checkpoint_that_is_put_there_is_a_style(
    styles: BucketStyles, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put("style_klimt.pth", checkpoint())
    generator = ask(styles, "klimt")
    assert generator is not None
    assert generator.layout.filters == 4
    assert styles.names() == ["klimt"]
    assert '{"event": "style", "style": "klimt", "precision": "float32"' in capsys.readouterr().out

    assert ask(styles, "klimt") is generator
    assert store.reads == ["style_klimt.pth"], "it was downloaded twice"


def test_a_new_style_is_found_after_ten_seconds_and_the_bucket_is_not_asked_more_often(
    styles: BucketStyles, store: Store, clock: Clock
) -> None:
    assert ask(styles, "klimt") is None
    store.put("style_klimt.pth", checkpoint())
    for _ in range(5):
        clock.now += 1.9
        assert ask(styles, "klimt") is None
    assert store.lists == 1
    clock.now += 1
    assert ask(styles, "klimt") is not None
    assert store.lists == 2


def test_a_catalog_finds_a_new_style_at_once(styles: BucketStyles, store: Store) -> None:
    """It is asked for when a training is done; the bucket may have been listed just before."""
    styles.look()
    store.put("style_klimt.pth", checkpoint())
    styles.look()
    assert styles.names() == ["klimt"]


def test_a_checkpoint_that_has_changed_is_loaded_anew(
    styles: BucketStyles, store: Store, clock: Clock
) -> None:
    store.put("style_klimt.pth", checkpoint(seed=1))
    store.put("style_miro.pth", checkpoint(seed=2))
    before, other = ask(styles, "klimt"), ask(styles, "miro")
    store.put("style_klimt.pth", checkpoint(seed=3))
    assert ask(styles, "klimt") is before
    clock.now += 10
    assert first_weight(ask(styles, "klimt")) != first_weight(before)
    assert ask(styles, "miro") is other


def test_a_style_whose_checkpoint_is_deleted_is_gone(
    styles: BucketStyles, store: Store, clock: Clock
) -> None:
    store.put("style_klimt.pth", checkpoint())
    ask(styles, "klimt")
    store.delete("style_klimt.pth")
    clock.now += 10
    assert ask(styles, "klimt") is None
    assert styles.names() == []


def test_the_style_that_was_not_used_for_longest_leaves_the_memory(
    styles: BucketStyles, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "MAX_LOADED", 2)
    for name in ("a", "b", "c"):
        store.put(f"style_{name}.pth", checkpoint())
    for name in ("a", "b", "a", "c"):
        ask(styles, name)
    loaded = [name for name, style in styles.styles.items() if style.generator]
    assert loaded == ["a", "c"]
    assert styles.names() == ["a", "b", "c"], "it is still a style"
    store.reads.clear()
    assert ask(styles, "b") is not None
    assert store.reads == ["style_b.pth"]


def test_a_style_that_left_while_its_picture_waited_is_fetched_again(
    styles: BucketStyles, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "MAX_LOADED", 1)
    for name in ("a", "b"):
        store.put(f"style_{name}.pth", checkpoint())
    ask(styles, "a")
    styles.prepare("a")
    ask(styles, "b")
    assert styles.generator("a") is not None


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/"])
def test_the_models_may_be_at_the_top_of_a_bucket(store: Store, url: str) -> None:
    store.client.put_object(Bucket="bucket", Key="style_klimt.pth", Body=checkpoint())
    assert ask(BucketStyles(url, CPU, torch.float32), "klimt") is not None


# --- what is there and is no style ---


@pytest.mark.parametrize("data", [b"", b"PK", checkpoint()[:1000], b"<html>"])
def test_a_broken_checkpoint_is_refused_with_its_reason_until_it_is_replaced(
    styles: BucketStyles, store: Store, clock: Clock, data: bytes
) -> None:
    store.put("style_klimt.pth", data)
    for _ in range(3):
        with pytest.raises(UnknownStyleError) as refusal:
            ask(styles, "klimt")
        assert "klimt could not be loaded" in str(refusal.value)
        assert "s3://bucket/models/style_klimt.pth is no checkpoint" in str(refusal.value)
    assert styles.names() == []
    assert len(store.reads) <= 2, "it is downloaded for everyone who asks"

    store.put("style_klimt.pth", checkpoint())
    clock.now += 10
    assert ask(styles, "klimt") is not None


def test_a_checkpoint_above_the_limit_is_refused_without_a_download(
    styles: BucketStyles, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "MAX_FILE_MEGABYTES", 0)
    store.put("style_klimt.pth", checkpoint())
    with pytest.raises(UnknownStyleError, match="larger than 0 MB"):
        ask(styles, "klimt")
    assert store.reads == []


def test_other_objects_are_no_styles_and_a_bad_name_is_told_once(
    styles: BucketStyles, store: Store, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = ["style_Klimt.pth", "style_.pth", "style_a/style_b.pth", "style_..pth", "style_a.pt"]
    bad.append(f"style_{'a' * 33}.pth")
    for name in [*bad, "catalog.json", "thumbnails/klimt.jpg", "xstyle_c.pth"]:
        store.put(name, b"")
    styles.look()
    clock.now += 10
    styles.look()
    assert styles.names() == []
    log = capsys.readouterr().out
    for name in bad:
        assert log.count(f'"{name}"') == 1
    assert log.count("style ignored") == len(bad)


@pytest.mark.parametrize("name", ["", "../klimt", "Klimt", "a" * 33, "klimt\n", "кот", "a b"])
def test_the_bucket_is_not_asked_for_what_can_be_no_style(
    styles: BucketStyles, store: Store, name: str
) -> None:
    assert ask(styles, name) is None
    assert store.lists == 0


@pytest.mark.parametrize(
    "url", ["models", "https://host/models/", "s3://", "s3:///a", "s3://b/a b"]
)
def test_an_address_that_is_none_is_told_and_costs_only_the_bucket(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODELS_URL", url)
    assert service.bucket_styles() is None
    assert "MODELS_URL must be an address such as s3://bucket/models/" in capsys.readouterr().out


@pytest.mark.parametrize("url", ["", None])
def test_without_an_address_there_is_no_bucket(
    url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODELS_URL", raising=False)
    if url is not None:
        monkeypatch.setenv("MODELS_URL", url)
    assert service.bucket_styles() is None


# --- a store that fails ---


@pytest.fixture
def model(styles: BucketStyles, tmp_path: Path) -> CycleGanModel:
    (tmp_path / "style_waves.pth").write_bytes(checkpoint())
    model = CycleGanModel([tmp_path], styles)
    model.load_all()
    return model


def test_a_store_that_fails_costs_only_its_own_styles(
    model: CycleGanModel, store: Store, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put("style_klimt.pth", checkpoint())
    model.prepare("klimt")
    klimt = model.generator("klimt")
    store.error = ApiError(ErrorCode.STORAGE_FAILED, "MODELS_URL: its server could not be reached.")
    clock.now += 10

    for name in ("waves", "klimt"):
        model.prepare(name)
        model.generator(name)
    assert model.generator("klimt") is klimt
    assert [style.name for style in model.look_for_styles()] == ["klimt", "waves"]

    for _ in range(3):
        with pytest.raises(ApiError) as refusal:
            model.prepare("miro")
        assert refusal.value.code == ErrorCode.STORAGE_FAILED
        assert "miro is not built in" in refusal.value.message
        assert "could not be reached" in refusal.value.message
    assert store.lists == 3, "a store that fails is asked by everyone"
    assert '"event": "styles not listed"' in capsys.readouterr().out

    store.error = None
    clock.now += 10
    store.put("style_miro.pth", checkpoint())
    model.prepare("miro")
    model.generator("miro")


def test_a_download_that_fails_is_tried_again_by_the_next_request(
    styles: BucketStyles, store: Store
) -> None:
    store.put("style_klimt.pth", checkpoint())
    styles.look()
    store.error = ApiError(ErrorCode.STORAGE_FAILED, "style klimt: S3 answered 500.")
    with pytest.raises(ApiError, match="S3 answered 500"):
        ask(styles, "klimt")
    store.error = None
    assert ask(styles, "klimt") is not None


def test_a_bucket_that_is_not_there_is_told(store: Store) -> None:
    styles = BucketStyles("s3://no-such-bucket/models/", CPU, torch.float32)
    with pytest.raises(ApiError) as refusal:
        styles.prepare("klimt")
    assert refusal.value.code == ErrorCode.OBJECT_NOT_FOUND


# --- with the built-in styles ---


def test_a_built_in_style_needs_no_bucket_and_hides_one_of_its_name(
    model: CycleGanModel, store: Store
) -> None:
    store.put("style_waves.pth", b"broken")
    store.put("style_klimt.pth", checkpoint())
    model.prepare("waves")
    model.generator("waves")
    assert (store.lists, store.reads) == (0, [])
    assert [style.name for style in model.look_for_styles()] == ["klimt", "waves"]
    assert model.styles() == ["klimt", "waves"]


def test_an_unknown_style_is_told_with_those_of_the_bucket(
    model: CycleGanModel, store: Store
) -> None:
    store.put("style_klimt.pth", checkpoint())
    model.prepare("miro")
    with pytest.raises(UnknownStyleError, match=r"no style 'miro'\. Choose one of: klimt, waves\."):
        model.generator("miro")


def test_the_bucket_can_replace_a_built_in_style_that_is_broken(
    styles: BucketStyles, store: Store, tmp_path: Path
) -> None:
    for name in ("waves", "torn"):
        (tmp_path / f"style_{name}.pth").write_bytes(checkpoint())
    (tmp_path / "style_torn.pth").write_bytes(b"PK")
    model = CycleGanModel([tmp_path], styles)
    model.load_all()
    model.prepare("torn")
    with pytest.raises(UnknownStyleError, match="torn could not be loaded"):
        model.generator("torn")
    store.put("style_torn.pth", checkpoint())
    model.look_for_styles()
    model.prepare("torn")
    model.generator("torn")


# --- threads ---


def test_those_who_wait_for_the_same_style_download_it_once(
    styles: BucketStyles, store: Store
) -> None:
    store.put("style_klimt.pth", checkpoint())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(styles.prepare, ["klimt"] * 8))
    assert (store.lists, store.reads) == (1, ["style_klimt.pth"])


def test_a_slow_store_delays_no_one_who_needs_nothing_from_it(
    model: CycleGanModel, styles: BucketStyles, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither GET /, nor a built-in style, nor a picture whose style is in memory."""
    store.put("style_klimt.pth", checkpoint())
    store.put("style_miro.pth", checkpoint())
    ask(styles, "klimt")
    reading, may_end = threading.Event(), threading.Event()

    def read(url: str, name: str) -> bytes:
        reading.set()
        assert may_end.wait(30)
        return checkpoint()

    monkeypatch.setattr(storage, "read", read)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(styles.prepare, "miro")
        assert reading.wait(30)
        assert model.styles() == ["klimt", "miro", "waves"]
        model.prepare("waves")
        model.generator("waves")
        model.prepare("klimt")
        model.generator("klimt")
        may_end.set()
        waiting.result(30)
