"""Decoding in processes of their own: what comes back, what they may do, and how they end."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from containers.serving import decoder, decoder_sandbox, images
from containers.serving.decoder import ClosedError, DecoderPool, checked_error, checked_size, parse
from containers.serving.errors import ApiError, ClientGoneError
from tests.fakes.costly_pictures import bmp_of_deltas, progressive_jpeg, saved
from tests.fakes.servers import ROOT, wait_until

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
PHOTOGRAPH = Image.open(ROOT / "examples" / "photos" / "chelsea.jpg").convert("RGB")
JPEG = saved(PHOTOGRAPH.resize((96, 64)), "JPEG")

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests may keep the processors busy: the limits of time are tested by themselves."""
    monkeypatch.setattr(decoder, "DECODE_SECONDS", 120.0)
    monkeypatch.setattr(decoder, "WAIT_SECONDS", 120.0)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    pool = DecoderPool(2)
    pool.start()
    yield pool
    pool.stop()


@pytest.fixture
def one() -> Iterator[DecoderPool]:
    """One decoder, which the test may end."""
    pool = DecoderPool(1)
    pool.start()
    yield pool
    pool.stop()


def decode(pool: DecoderPool, data: bytes, gone: threading.Event | None = None) -> Image.Image:
    return pool.decode(data, 2048, "content image", gone)


def refusal(pool: DecoderPool, data: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        decode(pool, data)
    return caught.value


def leave(pool: DecoderPool, data: bytes, gone: threading.Event) -> None:
    with pytest.raises(ClientGoneError):
        decode(pool, data, gone)


def pid_of(pool: DecoderPool) -> int:
    [process] = [decoder.process for decoder in pool.idle]
    assert process
    return process.pid


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


# --- what comes back ---


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_is_the_same_as_if_it_were_decoded_here(pool: DecoderPool, kind: str) -> None:
    data = saved(PHOTOGRAPH, kind)
    image = decode(pool, data)
    assert (image.mode, image.size) == ("RGB", PHOTOGRAPH.size)
    assert image.tobytes() == images.decode(data, 2048).tobytes()


def test_a_large_picture_is_shrunk(pool: DecoderPool) -> None:
    data = saved(PHOTOGRAPH.resize((3000, 2000)), "JPEG")
    assert decode(pool, data).size == (2048, 1365)


@pytest.mark.parametrize(
    "data", [b"", b"%PDF-1.4", saved(Image.new("L", (8, 400)), "PNG"), JPEG[:300]]
)
def test_an_error_has_the_same_words(pool: DecoderPool, data: bytes) -> None:
    with pytest.raises(ApiError) as here:
        images.decode(data, 2048, "content image")
    there = refusal(pool, data)
    assert (there.code, there.message) == (here.value.code, here.value.message)


def test_a_picture_that_takes_too_long_is_refused(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "DECODE_SECONDS", 0.5)
    error = refusal(pool, progressive_jpeg())
    assert (error.status, error.code) == (422, "image_unreadable")
    assert "too much time or memory" in error.message
    monkeypatch.setattr(decoder, "DECODE_SECONDS", 120.0)
    assert decode(pool, JPEG).size == (96, 64)


def test_the_processor_time_of_a_picture_is_limited(
    pool: DecoderPool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "too much time or memory" in refusal(pool, progressive_jpeg(10_000)).message
    assert '"exit_code": 4' in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not limit the address space")
def test_the_memory_of_a_picture_is_limited(pool: DecoderPool) -> None:
    # 2.4 GB
    error = refusal(pool, bmp_of_deltas() + b"\0\2\xff\xff" * 3)
    assert "too much time or memory" in error.message


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[" * 4000,
        b"[]",
        b'{"size": [0, 5]}',
        b'{"size": [2049, 5]}',
        b'{"size": [1.5, 5]}',
        b'{"size": "5x5"}',
        b'{"error": "internal", "message": "a"}',
        b'{"error": ["image_unreadable"], "message": "a"}',
        b'{"error": "image_unreadable"}',
    ],
)
def test_nonsense_from_a_decoder_is_not_believed(text: bytes) -> None:
    def check() -> None:
        answer = parse(text)
        if "error" in answer:
            raise checked_error(answer)
        checked_size(answer, 2048)

    with pytest.raises(ClosedError):
        check()


# --- how it ends ---


def test_it_ends_when_the_client_has_left(one: DecoderPool) -> None:
    decode(one, JPEG)
    before = pid_of(one)
    gone = threading.Event()
    threading.Timer(0.3, gone.set).start()
    started = time.monotonic()
    # It takes 17 s, and is refused after 5
    leave(one, progressive_jpeg(), gone)
    assert time.monotonic() - started < 10
    assert pid_of(one) != before
    assert not is_running(before)


@needs_proc
@pytest.mark.parametrize("victim", ["process", "child"])
def test_a_decoder_that_is_killed_costs_only_its_picture(one: DecoderPool, victim: str) -> None:
    process = pid_of(one)
    [child] = wait_until(lambda: children_of(process), 60, "there is no child")
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(refusal, one, progressive_jpeg())
        wait_until(lambda: not one.idle, 60, "it does not decode")
        time.sleep(0.3)
        os.kill(process if victim == "process" else child, signal.SIGKILL)
        error = future.result()
    assert (error.status, error.code) == (422, "image_unreadable")
    assert pid_of(one) != process
    assert decode(one, JPEG).size == (96, 64)


@needs_proc
@pytest.mark.parametrize("victim", ["process", "child"])
def test_a_decoder_that_is_killed_while_it_waits_costs_nothing(
    one: DecoderPool, victim: str
) -> None:
    process = pid_of(one)
    [child] = wait_until(lambda: children_of(process), 60, "there is no child")
    os.kill(process if victim == "process" else child, signal.SIGKILL)
    wait_until(lambda: not is_running(process) and not is_running(child), 60, "it goes on")
    assert decode(one, JPEG).size == (96, 64)


@needs_proc
def test_each_picture_has_a_process_of_its_own(one: DecoderPool) -> None:
    process = pid_of(one)
    seen: set[int] = set()
    for _ in range(3):
        seen.update(wait_until(lambda: {*children_of(process)} - seen, 60, "there is no other one"))
        decode(one, JPEG)
    assert pid_of(one) == process


@needs_proc
@pytest.mark.parametrize("is_decoding", [False, True])
def test_nothing_is_left_when_the_server_is_killed(is_decoding: bool) -> None:
    code = """
        import sys, threading, time
        from containers.serving import decoder
        from tests.fakes.costly_pictures import progressive_jpeg
        decoder.start()
        data = progressive_jpeg()
        if sys.argv[1] == "True":
            threading.Thread(target=decoder.decode, args=(data, 64, "a"), daemon=True).start()
        time.sleep(0.5)
        print("started", flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(is_decoding)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as server:
        assert server.stdout
        assert server.stdout.readline() == b"started\n"
        processes = children_of(server.pid)
        processes += [child for pid in processes for child in children_of(pid)]
        assert len(processes) >= 2
        server.kill()
    wait_until(lambda: not any(map(is_running, processes)), 60, "a decoder goes on")


# --- many at once ---


def test_a_picture_waits_for_its_turn_but_not_for_long(
    one: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode(one, JPEG)
    gone = threading.Event()
    with ThreadPoolExecutor(2) as executor:
        long = executor.submit(leave, one, progressive_jpeg(), gone)
        wait_until(lambda: not one.idle, 60, "it does not decode")
        monkeypatch.setattr(decoder, "WAIT_SECONDS", 0.2)
        error = refusal(one, JPEG)
        assert (error.status, error.code) == (503, "queue_full")
        assert error.retry_after

        monkeypatch.setattr(decoder, "WAIT_SECONDS", 120.0)
        patient = executor.submit(decode, one, JPEG)
        gone.set()
        assert patient.result().size == (96, 64)
        long.result()


def test_pictures_wait_while_the_decoder_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "WAIT_SECONDS", 0.2)
    pool = DecoderPool(1)
    held = pool.take(None)
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(decode, pool, JPEG)
        time.sleep(0.8)
        assert not waiting.done()
        with pool.changed:
            pool.idle.append(held)
        assert waiting.result().size == (96, 64)
    pool.stop()


def test_a_client_that_leaves_while_it_waits_gives_up_its_turn(one: DecoderPool) -> None:
    first, second = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as executor:
        running = executor.submit(leave, one, progressive_jpeg(), first)
        wait_until(lambda: not one.idle, 60, "it does not decode")
        waiting = executor.submit(leave, one, JPEG, second)
        second.set()
        waiting.result()
        first.set()
        running.result()
    assert decode(one, JPEG).size == (96, 64)


def test_a_decoder_that_cannot_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    error = refusal(DecoderPool(1), JPEG)
    assert (error.status, error.code) == (503, "loading")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert refusal(DecoderPool(1), JPEG).code == "loading"
    monkeypatch.undo()
    pool = DecoderPool(1)
    assert decode(pool, JPEG).size == (96, 64)
    pool.stop()


# --- the sandbox ---


@needs_proc
def test_a_decoder_has_no_credentials_and_neither_pytorch_nor_flask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    pool = DecoderPool(1)
    pool.start()
    decode(pool, JPEG)
    process = Path(f"/proc/{pid_of(pool)}")
    assert b"a-secret" not in (process / "environ").read_bytes()
    maps = (process / "maps").read_text()
    assert "PIL/_imaging" in maps
    assert "torch" not in maps
    pool.stop()

    code = "import containers.serving.decoder_process, json, sys; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert not {"torch", "flask", "werkzeug", "boto3", "requests"} & set(json.loads(done.stdout))


ATTEMPTS = """
import json, os, socket, sys
from containers.serving import decoder_sandbox

attempts = {
    "open a file to read": lambda: open("/etc/passwd"),
    "write a file": lambda: open("/tmp/from-a-decoder", "w").write("a"),
    "connect": lambda: socket.socket(),
    "start a process": lambda: os.fork(),
    "run a program": lambda: os.execv("/bin/true", ["true"]),
    "end another process": lambda: os.kill(os.getppid(), 0),
    "take 2 GB": lambda: bytearray(2 << 30),
}
if len(sys.argv) > 1:
    os.setuid(int(sys.argv[1]))
decoder_sandbox.enter()
possible = []
for name, attempt in attempts.items():
    try:
        attempt()
        possible.append(name)
    except (PermissionError, MemoryError):
        pass
os.write(1, json.dumps(possible).encode())
os._exit(0)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine not in decoder_sandbox.ARCHITECTURES,
    reason="there is no filter for this system",
)
@pytest.mark.parametrize("user", [None, "1000"])
def test_a_decoder_can_do_nothing_but_compute(user: str | None) -> None:
    if user and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    command = [sys.executable, "-c", ATTEMPTS] + ([user] if user else [])
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert json.loads(done.stdout) == []
