"""The search for pictures that break a decoder, in short. docs/reliability.md has the long form."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from containers.serving import decoder_sandbox, images
from tests.fakes.costly_pictures import progressive_jpeg
from tests.fakes.picture_flood import samples
from tests.fakes.picture_search import MAX_BYTES, Outcome, Search, corpus, decode, search

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is for Linux")

EXAMPLES = 100


def test_no_changed_picture_is_a_fault_of_ours(tmp_path: Path) -> None:
    found = Search(tmp_path)
    # Those of the corpus take seconds each
    search(EXAMPLES, found, samples(), is_repeatable=True)
    assert found.ends.total() >= EXAMPLES
    assert found.ends["fault"] == 0
    assert found.ends["picture"] > 0
    assert found.ends["refusal"] > 0


def test_a_picture_that_takes_all_its_time_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_sandbox, "CPU_SECONDS", 1)
    outcome = decode(progressive_jpeg())
    assert outcome.end in ("SIGXCPU", "SIGKILL")
    assert outcome.is_worth_keeping


def test_a_fault_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes, longest: int) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(images, "decode", broken)
    assert decode(b"a picture").end == "fault"


def test_the_smallest_picture_of_each_kind_is_kept(tmp_path: Path) -> None:
    found = Search(tmp_path)
    costly = Outcome("picture", seconds=3.0, megabytes=100)
    for size in (300, 200, 250, MAX_BYTES + 1):
        found.note("GIF", bytes(size), costly)
    found.note("GIF", b"short", Outcome("picture", seconds=0.1, megabytes=100))
    [kept] = tmp_path.iterdir()
    assert kept.name.startswith("GIF-picture-")
    assert kept.stat().st_size == 200


def test_the_corpus_is_small() -> None:
    assert all(len(data) <= MAX_BYTES for data in corpus().values())
