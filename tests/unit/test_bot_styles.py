"""Which styles the bot offers: those of the catalog in S3, of the setting STYLES, or the four."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from moto import mock_aws

import bot
from tests.fakes.names import BUCKET

Json = bot.Json
OFFICIAL = ["monet", "vangogh", "cezanne", "ukiyoe"]
CATALOG = {
    "version": 1,
    "styles": [
        {"name": "waves", "label": "Waves", "thumbnail": "thumbnails/waves.jpg"},
        {"name": "dabs", "label": "Dabs", "thumbnail": "thumbnails/dabs.jpg"},
    ],
    "sheet": "catalog.jpg",
}


class CountingStore(bot.Store):
    """A store that counts its looks at the catalog, and of which S3 can be switched off."""

    looks = 0
    is_down = False

    def get_if_changed(self, key: str, etag: str) -> tuple[bytes, str] | None:
        self.looks += 1
        if self.is_down:
            raise EndpointConnectionError(endpoint_url="http://s3")
        return super().get_if_changed(key, etag)


@pytest.fixture
def store() -> Iterator[CountingStore]:
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket=BUCKET)
        yield CountingStore(s3, BUCKET)


def names(styles: bot.Styles) -> list[str]:
    return list(styles.labels)


def test_without_a_catalog_the_four_official_styles_are_offered(store: CountingStore) -> None:
    styles = bot.StyleCatalog(store, {}).styles()
    assert names(styles) == OFFICIAL
    assert styles.sheet == ""


def test_the_catalog_says_names_order_labels_and_sheet(store: CountingStore) -> None:
    store.put_json("models/catalog.json", CATALOG)
    styles = bot.StyleCatalog(store, {}).styles()
    assert list(styles.labels.items()) == [("waves", "Waves"), ("dabs", "Dabs")]
    assert styles.sheet == "models/catalog.jpg"


def test_the_setting_is_stronger_than_the_catalog(store: CountingStore) -> None:
    store.put_json("models/catalog.json", CATALOG)
    styles = bot.StyleCatalog(store, {"vintage": "Old photo"}).styles()
    assert styles == bot.Styles({"vintage": "Old photo"})
    assert store.looks == 0


def test_s3_is_asked_only_every_half_minute(
    store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = bot.StyleCatalog(store, {})
    for _ in range(3):
        assert names(catalog.styles()) == OFFICIAL
    assert store.looks == 1
    store.put_json("models/catalog.json", CATALOG)
    later = time.monotonic() + bot.CATALOG_SECONDS
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: later)
        assert names(catalog.styles()) == ["waves", "dabs"]
    assert store.looks == 2

    monkeypatch.setattr(bot, "CATALOG_SECONDS", 0.0)
    catalog = bot.StyleCatalog(store, {})
    assert names(catalog.styles()) == ["waves", "dabs"]
    first = catalog.styles()
    assert first is catalog.styles()  # it has not changed, so it is not read
    store.delete(["models/catalog.json"])
    assert names(catalog.styles()) == OFFICIAL


@pytest.mark.parametrize(
    "bad",
    [
        b"{half",
        b"[]",
        b"\xff",
        json.dumps(CATALOG | {"version": 2}).encode(),
        json.dumps(CATALOG | {"styles": []}).encode(),
        json.dumps(CATALOG | {"styles": "monet"}).encode(),
        json.dumps(CATALOG | {"styles": ["monet"]}).encode(),
        json.dumps(CATALOG | {"styles": [{"name": "a/b", "label": "x"}]}).encode(),
        json.dumps(CATALOG | {"styles": [{"name": "x" * 51, "label": "x"}]}).encode(),
        json.dumps(CATALOG | {"styles": [{"name": "x", "label": 5}]}).encode(),
        json.dumps(CATALOG | {"styles": [{"name": "x"}, {"name": "x"}]}).encode(),
        json.dumps(CATALOG | {"styles": [{"name": f"x{n}"} for n in range(101)]}).encode(),
        json.dumps(CATALOG | {"sheet": "../chats/5.json"}).encode(),
        json.dumps(CATALOG | {"sheet": ["catalog.jpg"]}).encode(),
    ],
)
def test_what_is_no_catalog_is_told_once_and_ignored(
    store: CountingStore,
    bad: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(bot, "CATALOG_SECONDS", 0.0)
    catalog = bot.StyleCatalog(store, {})
    store.put_json("models/catalog.json", CATALOG)
    good = catalog.styles()
    store.put("models/catalog.json", bad)
    assert catalog.styles() == good
    assert catalog.styles() == good
    told = [record for record in caplog.records if "is ignored" in record.getMessage()]
    assert len(told) == 1


def test_when_s3_fails_the_last_styles_stay(
    store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot, "CATALOG_SECONDS", 0.0)
    store.put_json("models/catalog.json", CATALOG)
    catalog = bot.StyleCatalog(store, {})
    assert names(catalog.styles()) == ["waves", "dabs"]
    store.is_down = True
    assert names(catalog.styles()) == ["waves", "dabs"]
    store.is_down = False
    assert names(catalog.styles()) == ["waves", "dabs"]


def test_a_label_that_is_missing_is_made_of_the_name() -> None:
    styles = bot.Styles.from_catalog(bot.Catalog(1, [bot.CatalogEntry("dabs")]), "etag")
    assert styles == bot.Styles({"dabs": "Dabs"}, "", "etag")
