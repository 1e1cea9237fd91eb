"""Nobody but the page itself, opened with the key, may use the chat."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from local.processes import free_port
from tests.fakes.chat import KEY, TOKEN, Chat, Guest, running_chat
from tests.fakes.servers import ROOT


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chat]:
    with running_chat(tmp_path_factory.mktemp("chat") / "data") as chat:
        yield chat


def status(chat: Chat, path: str, method: str = "GET", **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.request(method, f"{chat.url}{path}", headers=named, timeout=10).status_code


PATHS = [
    ("GET", "/chat/7/events"),
    ("GET", "/chat/7/commands"),
    ("GET", "/chat/7/file/x"),
    ("GET", "/chat/7/button-picture?data=x"),
    ("POST", "/chat/7/message"),
    ("POST", "/chat/7/press"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_without_the_key_nothing_is_answered(chat: Chat, method: str, path: str) -> None:
    assert status(chat, path, method) == 401
    assert status(chat, path, method, X_Chat_Key=KEY + "x") == 401
    assert status(chat, path, method, X_Chat_Key="ключ".encode().decode("latin-1")) == 401
    assert status(chat, f"{path}?key={KEY}", method) == 401
    assert status(chat, path, method, X_Chat_Key=KEY) != 401


@pytest.mark.parametrize(
    ("method", "path"), [*PATHS, ("GET", f"/bot{TOKEN}/getMe"), ("POST", f"/bot{TOKEN}/getMe")]
)
def test_other_sites_are_refused(chat: Chat, method: str, path: str) -> None:
    other = f"127.0.0.1:{chat.port + 1}"
    for headers in (
        {"Origin": "https://example.com"},
        {"Origin": "null"},
        {"Origin": f"http://{other}"},
        {"Origin": f"https://127.0.0.1:{chat.port}"},
        {"Host": f"example.com:{chat.port}"},
        {"Host": f"example.com:{chat.port}", "Origin": f"http://example.com:{chat.port}"},
        {"Host": other},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert status(chat, path, method, X_Chat_Key=KEY, **headers) == 403, headers
    for host in ("127.0.0.1", "localhost"):
        ours = {
            "Host": f"{host}:{chat.port}",
            "Origin": f"http://{host}:{chat.port}",
            "Sec-Fetch-Site": "same-origin",
        }
        assert status(chat, path, method, X_Chat_Key=KEY, **ours) != 403


def test_a_script_elsewhere_gets_no_permission(chat: Chat) -> None:
    asked = {"Origin": "https://example.com", "Access-Control-Request-Headers": "x-chat-key"}
    answer = requests.options(f"{chat.url}/chat/7/events", headers=asked, timeout=10)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_the_page_holds_no_secret_and_may_do_little(chat: Chat) -> None:
    page = requests.get(chat.url, timeout=10)
    assert KEY not in page.text
    assert TOKEN not in page.text
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    elsewhere = re.search(r"https?://(?!www\.w3\.org)", page.text)
    assert not elsewhere, "the page needs nothing from elsewhere"
    guest = Guest(chat, 7)
    sent = guest.send("document", "page.html", b"<script>alert(1)</script>")
    file = guest.ask("GET", f"file/{sent['document']['file_id']}")
    assert file.headers["Content-Type"] == "application/octet-stream"
    assert file.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/chat/0/events", f"/chat/{2**63}/events", "/chat/-1/events", "/chat/x/events"]
)
def test_users_that_cannot_be(chat: Chat, path: str) -> None:
    assert status(chat, path, X_Chat_Key=KEY) == 404


def test_it_listens_on_this_machine_only(chat: Chat) -> None:
    address = "127.0.0.1"
    with suppress(OSError):
        address = socket.gethostbyname(socket.gethostname())
    for other in {address, "127.0.0.2"} - {"127.0.0.1"}:
        with socket.socket() as probe:
            probe.settimeout(2)
            assert probe.connect_ex((other, chat.port)) != 0, other


def test_no_secret_reaches_the_log(chat: Chat) -> None:
    requests.get(f"{chat.url}/bot{TOKEN}/sendMessage?chat_id=[", timeout=10)
    requests.get(f"{chat.url}/file/bot{TOKEN}/x", timeout=10)
    requests.post(f"{chat.url}/bot{TOKEN}/getUpdates", json={"offset": 2**80}, timeout=10)
    Guest(chat, 7).write("private words")
    log = chat.log.read_text()
    assert not [secret for secret in (TOKEN, KEY, "private") if secret in log], log


def test_what_the_command_line_says(chat: Chat, tmp_path: Path) -> None:
    def run(port: int, token: str, data: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        arguments = [f"--port={port}", f"--data={data}"]
        environment = {"TELEGRAM_TOKEN": token, "PYTHONPATH": str(ROOT), "PATH": ""}
        return subprocess.run(
            [sys.executable, "-m", "local.telegram", *arguments],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )

    refused = run(free_port(), "")
    assert refused.returncode == 2
    assert "TELEGRAM_TOKEN" in refused.stderr
    taken = run(chat.port, TOKEN)
    assert taken.returncode == 1
    assert "in use" in taken.stderr, taken.stderr
    (tmp_path / "file").touch()
    no_folder = run(free_port(), TOKEN, tmp_path / "file")
    assert no_folder.returncode == 2
    assert no_folder.stderr.startswith(f"{tmp_path / 'file'} cannot be used")
    assert "Traceback" not in refused.stderr + taken.stderr + no_folder.stderr
