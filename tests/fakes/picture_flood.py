"""Pictures of strangers, as many as a server gets, and what it may not do then."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from PIL import Image, ImageCms

from tests.fakes.costly_pictures import saved
from tests.fakes.servers import ROOT, Running, wait_until

PHOTOGRAPH = ROOT / "examples" / "photos" / "chelsea.jpg"
FLAGS = (b"\0\0", b"\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff")


@dataclass
class Answer:
    picture: str
    status: int
    code: str | None
    seconds: float
    retry_after: str | None


@dataclass
class Flood:
    """What came of a flood. pings: seconds that /ping took while it went on."""

    answers: list[Answer]
    pings: list[float]

    def faults(self) -> list[Answer]:
        """Return the answers that no picture may get."""
        return [answer for answer in self.answers if is_fault(answer)]

    def slowest(self) -> Answer:
        return max(self.answers, key=lambda answer: answer.seconds)

    def summary(self) -> str:
        codes = [answer.code or "a picture" for answer in self.answers]
        counts = {code: codes.count(code) for code in sorted(set(codes))}
        slowest = self.slowest()
        pings = sorted(self.pings)
        return (
            f"{len(codes)} pictures: {counts}; slowest {slowest.seconds:.1f} s "
            f"({slowest.picture}); /ping {1000 * pings[len(pings) // 2]:.0f} ms, at most "
            f"{1000 * pings[-1]:.0f} ms"
        )


def is_fault(answer: Answer) -> bool:
    if answer.code == "queue_full":
        return answer.retry_after is None
    return answer.status >= 500


def flood(server: Running, pictures: Sequence[tuple[str, bytes]], clients: int) -> Flood:
    """Send pictures, as many at a time as there are clients."""

    def send(picture: tuple[str, bytes]) -> Answer:
        name, data = picture
        started = time.monotonic()
        answer = server.post(files={"content": data})
        seconds = time.monotonic() - started
        code = None if answer.status_code == 200 else answer.json()["error"]["code"]
        return Answer(name, answer.status_code, code, seconds, answer.headers.get("Retry-After"))

    with pinging(server) as pings, ThreadPoolExecutor(clients) as executor:
        answers = list(executor.map(send, pictures))
    return Flood(answers, pings)


@contextmanager
def pinging(server: Running) -> Iterator[list[float]]:
    """Ask /ping all the time. Yields the list of seconds that it took."""
    seconds: list[float] = []
    stop = threading.Event()

    def ping() -> None:
        with requests.Session() as session:
            while not stop.wait(0.05):
                started = time.monotonic()
                status = session.get(f"{server.url}/ping", timeout=60).status_code
                seconds.append(time.monotonic() - started if status == 200 else 60.0)

    thread = threading.Thread(target=ping)
    thread.start()
    try:
        yield seconds
    finally:
        stop.set()
        thread.join()


# --- the server's processes ---


def worker_of(server: Running) -> int:
    [worker] = children_of(server.process.pid)
    return worker


def children_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in children for child in file.read_text().split()]


def processes_of(worker: int, module: str) -> list[int]:
    """Return the children of a worker that run a module, such as containers.serving.door."""
    running = []
    for child in children_of(worker):
        if module.encode() in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
            running.append(child)
    return running


def memory_of(pid: int) -> float:
    """Return the resident set of a process and its children, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6 + sum(memory_of(child) for child in children_of(pid))


def wait_until_at_rest(server: Running, before: float) -> float:
    """Wait until the server's memory is what it was before, in MB. Return it."""
    limit = 1.1 * before + 40

    def is_at_rest() -> bool:
        return memory_of(worker_of(server)) < limit

    wait_until(is_at_rest, 60, f"{memory_of(worker_of(server)):.0f} MB, not {before:.0f}")
    return memory_of(worker_of(server))


# --- damaged pictures ---


def samples() -> dict[str, bytes]:
    """Return a small picture of each kind."""
    photo = Image.open(PHOTOGRAPH).convert("RGB").resize((90, 60))
    clear = photo.convert("RGBA")
    clear.putalpha(128)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a cat"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    frames = [photo.rotate(angle) for angle in (0, 90, 180)]
    return {
        "JPEG": saved(photo, "JPEG", exif=exif, icc_profile=profile),
        "progressive JPEG": saved(photo, "JPEG", progressive=True),
        "CMYK": saved(photo.convert("CMYK"), "JPEG"),
        "PNG": saved(clear, "PNG", exif=exif, icc_profile=profile),
        "PNG with a palette": saved(photo.convert("P"), "PNG", transparency=3),
        "WebP": saved(photo, "WEBP", exif=exif),
        "lossless WebP": saved(clear, "WEBP", lossless=True),
        "GIF": saved(frames[0], "GIF", save_all=True, append_images=frames[1:], comment=b"a cat"),
        "BMP": saved(photo, "BMP"),
        "TIFF": saved(photo, "TIFF", compression="tiff_lzw", exif=exif),
        "TIFF of floats": saved(photo.convert("F"), "TIFF"),
        "AVIF": saved(photo, "AVIF", exif=exif),
        "HEIC": saved(photo, "HEIF", exif=exif),
    }


def damaged(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Return pictures with some bytes changed, cut, repeated or put in; the same for each seed."""
    dice = random.Random(seed)
    originals = sorted(samples().items())
    for number in range(count):
        name, data = dice.choice(originals)
        changed = bytearray(data)
        for _ in range(dice.choice((1, 1, 2, 5, 20))):
            change(changed, dice)
        yield f"{name} {seed}/{number}", bytes(changed)


def change(data: bytearray, dice: random.Random) -> None:
    # The beginning has most of the sizes
    end = dice.choice((64, 700, len(data)))
    place = dice.randrange(min(end, len(data)) or 1)
    kind = dice.randrange(6)
    if kind == 0:
        data[place : place + 1] = bytes([dice.randrange(256)])
    elif kind == 1:
        flag = dice.choice(FLAGS)
        data[place : place + len(flag)] = flag
    elif kind == 2:
        del data[place : place + dice.randrange(1, 40)]
    elif kind == 3:
        data[place:place] = dice.randbytes(dice.randrange(1, 40))
    elif kind == 4:
        data[place:place] = data[place : place + dice.randrange(1, 400)] * dice.randrange(1, 20)
    else:
        del data[dice.randrange(len(data) // 2, len(data) + 1) :]
