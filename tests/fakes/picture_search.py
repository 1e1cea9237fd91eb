"""A search for pictures that break or exhaust a decoder: hypothesis changes the known ones.

`python -m tests.fakes.picture_search --minutes 10` searches for what costs most processor time and
memory, and for what fails. What it finds goes to tests/corpus/, from where the next search begins.
tests/soak/test_costly_pictures.py sends it to a server.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings, target
from hypothesis import strategies as st

from containers.serving import decoder_sandbox, images
from containers.serving.decoder_process import warm_up
from containers.serving.errors import ApiError
from containers.serving.limits import LONGEST_SIDE
from tests.fakes.costly_pictures import COSTLY
from tests.fakes.picture_flood import FLAGS, samples
from tests.fakes.servers import ROOT

CORPUS = ROOT / "tests" / "corpus"
# A picture that takes less is an ordinary one.
COSTLY_SECONDS = 1.0
COSTLY_MEGABYTES = 500
# The corpus stays small: one picture of each kind and outcome, and none that is large.
MAX_BYTES = 20_000
EXAMPLES_A_ROUND = 500
SMALL_COSTLY = ("BMP of deltas", "TIFF in a circle", "HEIC that says it is small")

# How a decoding ends: the exit codes of its process.
PICTURE, REFUSAL, FAULT = 0, 1, 2


@dataclass(frozen=True)
class Outcome:
    """How a decoding ended, and what it took: seconds of processor time, and memory in MB."""

    end: str
    seconds: float
    megabytes: float

    @property
    def is_worth_keeping(self) -> bool:
        is_costly = self.seconds > COSTLY_SECONDS or self.megabytes > COSTLY_MEGABYTES
        return is_costly or self.end not in ("picture", "refusal")


@dataclass
class Search:
    """What has been found. saved: the size of the file for each kind of picture and outcome."""

    folder: Path
    ends: Counter[str] = field(default_factory=Counter)
    saved: dict[str, int] = field(default_factory=dict)

    def note(self, name: str, data: bytes, outcome: Outcome) -> None:
        self.ends[outcome.end] += 1
        if not outcome.is_worth_keeping or len(data) > MAX_BYTES:
            return
        kind = f"{name.split('-')[0]}-{outcome.end}".replace(" ", "_")
        if len(data) >= self.saved.get(kind, MAX_BYTES + 1):
            return
        self.saved[kind] = len(data)
        self.folder.mkdir(exist_ok=True)
        for smaller in self.folder.glob(f"{kind}-*"):
            smaller.unlink()
        digest = hashlib.sha256(data).hexdigest()[:8]
        (self.folder / f"{kind}-{digest}").write_bytes(data)
        print(f"{kind}: {len(data)} bytes, {outcome}", flush=True)


@cache
def prepare() -> None:
    decoder_sandbox.prepare()
    warm_up()


def decode(data: bytes) -> Outcome:
    """Decode a picture as a decoder does, in a process of its own."""
    prepare()
    child = os.fork()
    if child == 0:
        decode_and_exit(data)
    _, status, usage = os.wait4(child, 0)
    seconds = usage.ru_utime + usage.ru_stime
    return Outcome(end_of(os.waitstatus_to_exitcode(status)), seconds, usage.ru_maxrss / 1024)


def decode_and_exit(data: bytes) -> None:
    code = FAULT
    try:
        decoder_sandbox.enter()
        images.decode(data, LONGEST_SIDE)
        code = PICTURE
    except ApiError:
        code = REFUSAL
    finally:
        os._exit(code)


def end_of(code: int) -> str:
    if code < 0:
        return signal.Signals(-code).name
    return {PICTURE: "picture", REFUSAL: "refusal"}.get(code, "fault")


def originals() -> dict[str, bytes]:
    """Return the pictures that a search begins with: ordinary and costly ones, and the corpus."""
    costly = {name: COSTLY[name]() for name in SMALL_COSTLY}
    return {**samples(), **costly, **corpus()}


def corpus() -> dict[str, bytes]:
    """Return what earlier searches have found."""
    return {path.name: path.read_bytes() for path in sorted(CORPUS.glob("*"))}


@st.composite
def changes(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Return a change of a file: some bytes replaced, removed, repeated, or put in."""
    # The beginning has most of the sizes
    end = draw(st.sampled_from((64, 700, 1 << 20)))
    place = draw(st.integers(0, end - 1))
    kind = draw(st.sampled_from(("replace", "remove", "repeat", "insert", "cut")))
    piece = draw(st.one_of(st.sampled_from(FLAGS), st.binary(min_size=1, max_size=8)))
    count = draw(st.integers(1, 400))

    def change(data: bytes) -> bytes:
        start = place % max(1, len(data))
        if kind == "replace":
            return data[:start] + piece + data[start + len(piece) :]
        if kind == "remove":
            return data[:start] + data[start + count :]
        if kind == "repeat":
            return data[:start] + data[start : start + count] * 20 + data[start:]
        if kind == "insert":
            return data[:start] + piece * (1 + count // 40) + data[start:]
        return data[: max(start, len(data) // 2)]

    return change


def search(
    count: int, found: Search, begun_with: dict[str, bytes], is_repeatable: bool = False
) -> None:
    """Try changed pictures, and note what is found.

    begun_with: what is changed. is_repeatable: try the same changes each time.
    """

    @settings(
        max_examples=count,
        derandomize=is_repeatable,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.target),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(sorted(begun_with)), st.lists(changes(), min_size=1, max_size=20))
    def try_one(name: str, changed: list[Callable[[bytes], bytes]]) -> None:
        data = begun_with[name]
        for change in changed:
            data = change(data)
        outcome = decode(data)
        target(outcome.seconds, label="seconds")
        target(outcome.megabytes, label="megabytes")
        found.note(name, data, outcome)

    try_one()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.picture_search")
    parser.add_argument("--minutes", type=float, default=10, help="of the search")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    found = Search(CORPUS)
    while time.monotonic() < end:
        search(EXAMPLES_A_ROUND, found, originals())
    print(dict(found.ends))


if __name__ == "__main__":
    main()
