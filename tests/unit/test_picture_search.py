"""The search for pictures that break a decoder, in short. docs/reliability.md has the long form."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

from containers.serving import decoder_sandbox, images
from tests.fakes.costly_pictures import progressive_jpeg
from tests.fakes.picture_flood import samples
from tests.fakes.picture_search import MAX_BYTES, Outcome, Search, corpus, decode, prepare, search

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is for Linux")

EXAMPLES = 100

P = ParamSpec("P")
R = TypeVar("R")


def run_alone(function: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
    """Run a function in a new process: a decoder is forked from one that does nothing else."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **options).result()


def search_samples(folder: Path) -> Counter[str]:
    found = Search(folder)
    # Those of the corpus take seconds each
    search(EXAMPLES, found, samples(), is_repeatable=True)
    return found.ends


def decode_within_a_second(data: bytes) -> Outcome:
    decoder_sandbox.CPU_SECONDS = 1
    return decode(data)


def test_no_changed_picture_is_a_fault_of_ours(tmp_path: Path) -> None:
    ends = run_alone(search_samples, tmp_path)
    assert ends.total() >= EXAMPLES
    assert ends["fault"] == 0
    assert ends["picture"] > 0
    assert ends["refusal"] > 0


def test_a_picture_that_takes_all_its_time_is_noticed() -> None:
    outcome = run_alone(decode_within_a_second, progressive_jpeg())
    assert outcome.end in ("SIGXCPU", "SIGKILL")
    assert outcome.is_worth_keeping


def test_a_fault_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes, longest: int) -> None:
        raise ZeroDivisionError

    prepare()
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
