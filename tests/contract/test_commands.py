"""The command lines, as a user types them."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from local.processes import free_port
from tests.fakes.servers import Running, answers, wait_until

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "examples" / "photos" / "chelsea.jpg"
STYLE = ROOT / "examples" / "styles" / "mosaic.jpg"
QUICK = ["--size", "64", "--max-epochs", "1", "--n-steps-in-epoch", "2"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("name", ["nst", "cyclegan"])
def test_a_bare_command_explains_itself(name: str) -> None:
    bare, asked = run(f"containers.{name}"), run(f"containers.{name}", "--help")
    assert bare.returncode == asked.returncode == 0
    assert bare.stdout == asked.stdout
    assert "curl" in bare.stdout
    assert "--size" in bare.stdout


def test_nst_stylizes_a_file_with_no_progress_bar_in_a_pipe(
    tmp_path: Path, nst_weights: Path
) -> None:
    out = tmp_path / "stylized.png"
    options = [*QUICK, "--preserve-color", "--style-weights", "2,1"]
    done = run("containers.nst", PHOTO, STYLE, STYLE, "-o", out, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{out}: 64x43\n"
    assert (Image.open(out).format, Image.open(out).size) == ("PNG", (64, 43))


def test_cyclegan_stylizes_a_file(tmp_path: Path, cyclegan_weights: Path) -> None:
    out = tmp_path / "stylized.jpg"
    done = run("containers.cyclegan", PHOTO, "--style", "vintage", "-o", out, "--size", 64)
    assert (done.returncode, done.stderr) == (0, "")
    assert Image.open(out).size == (64, 43)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nst", "missing.jpg", STYLE, "-o", "{out}.jpg"], "missing.jpg"),
        (
            ["nst", ROOT / "README.md", STYLE, "-o", "{out}.jpg"],
            "README.md could not be read as an image",
        ),
        (["nst", PHOTO, STYLE, "-o", "{out}.gif"], ".jpg, .png or .webp"),
        (["nst", PHOTO, STYLE, "-o", "{out}.jpg", "--size", "9000"], "from 16 to 4096"),
        (["nst", PHOTO, STYLE, "-o", "{out}.jpg", "--style-weights", "1,2"], "style_weights"),
        (["nst", PHOTO, STYLE, "-o", "{out}.jpg", "--mask", STYLE], "the photograph's shape"),
        (["cyclegan", PHOTO, "--style", "nobody", "-o", "{out}.jpg"], "vintage"),
        (
            ["cyclegan", PHOTO, "--style", "monet", "-o", "{out}.jpg", "--models", "{out}"],
            "no .pth file",
        ),
    ],
)
def test_a_mistake_is_told_in_one_sentence(
    tmp_path: Path, nst_weights: Path, cyclegan_weights: Path, arguments: list[object], said: str
) -> None:
    out = tmp_path / "out"
    package, *rest = [str(argument).replace("{out}", str(out)) for argument in arguments]
    done = run(f"containers.{package}", *rest)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_serve_becomes_gunicorn_from_any_folder(tmp_path: Path, cyclegan_weights: Path) -> None:
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SAGEMAKER_BIND_TO_PORT": str(port)}
    environment["MODEL_DIR"] = str(tmp_path)
    command = [sys.executable, "-m", "containers.cyclegan", "serve"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as process:
        try:
            server = Running(f"http://127.0.0.1:{port}", process, tmp_path / "unused.log")
            wait_until(lambda: answers(server, healthy=True), 60, "the server did not come up")
            assert b"gunicorn" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        finally:
            process.terminate()
        assert process.wait(40) == 0


def test_the_algorithms_import_where_only_pytorch_and_pillow_are() -> None:
    """On a GPU machine without Flask, boto3 and the rest."""
    blocked = ["flask", "boto3", "botocore", "requests", "gunicorn", "tqdm", "pillow_heif"]
    blocked += ["werkzeug", "urllib3", "containers.serving"]
    code = f"import sys\nfor name in {blocked}: sys.modules[name] = None\n"
    code += "import containers.nst.nst, containers.nst.vgg, containers.cyclegan.generator"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


LONG = ["--size", "64", "--max-epochs", "1000"]  # minutes


@contextmanager
def nst_at_work(tmp_path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run nst on a terminal, until it shows that it has begun."""
    primary, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    arguments = [PHOTO, STYLE, "-o", tmp_path / "a.png", *options]
    command = [sys.executable, "-m", "containers.nst", *map(str, arguments)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=secondary, text=True
    ) as process:
        shown = b""
        while b" 1%" not in shown:
            shown += os.read(primary, 1 << 16)
        try:
            yield process
        finally:
            process.kill()
            os.close(primary)
            os.close(secondary)


def test_ctrl_c_saves_the_best_picture_so_far(tmp_path: Path, nst_weights: Path) -> None:
    with nst_at_work(tmp_path, *LONG) as process:
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert f"{tmp_path / 'a.png'}: 64x43" in told
    assert "the best picture after" in told
    assert Image.open(tmp_path / "a.png").size == (64, 43)


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path, nst_weights: Path) -> None:
    # Steps of seconds, so that the second one comes before the first one's step has ended. Where
    # this process had to wait for its turn, it may come too late, when the picture is there: then
    # once more.
    picture = tmp_path / "a.png"
    exit_code = 0
    attempts = 0
    while (exit_code == 0 or picture.exists()) and attempts < 5:
        attempts += 1
        picture.unlink(missing_ok=True)
        with nst_at_work(tmp_path, "--size", "1024", "--algorithm", "gatys2015") as process:
            process.send_signal(signal.SIGINT)
            wait_until(partial(is_deaf, process.pid), 60, "the first Ctrl-C is not handled")
            process.send_signal(signal.SIGINT)
            exit_code = process.wait(10)
    assert exit_code == -signal.SIGINT
    assert not picture.exists()


def is_deaf(pid: int) -> bool:
    """Return whether a process has no handler of its own for SIGINT."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return not caught & 1 << (signal.SIGINT - 1)


def test_a_progress_bar_is_shown_on_a_terminal(tmp_path: Path, nst_weights: Path) -> None:
    primary, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    arguments = [PHOTO, STYLE, "-o", tmp_path / "a.jpg", *QUICK]
    command = [sys.executable, "-m", "containers.nst", *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=secondary, stderr=secondary) as process:
        assert process.wait(120) == 0
    # What the terminal's buffer holds
    shown = os.read(primary, 1 << 16)
    os.close(primary)
    os.close(secondary)
    assert b"100%" in shown
