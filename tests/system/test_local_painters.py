"""Painters of one's own on this machine: `./local.sh train`, and how the chat offers them."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from local.demo import PHOTO, STYLE, User, buttons_of, text_of
from local.stack import PAGE_USER
from local.telegram.page_files import read_page
from tests.fakes.servers import ROOT
from tests.system.test_local_stack import is_negative, running

# Stands in for the trainer: it writes the painter's file, and prints its arguments.
TRAINER = """
import pathlib, sys
values = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
folder = pathlib.Path(values["output"])
(folder / f"style_{values['name']}.pth").write_text("trained")
print(sorted(values.items()))
"""
COMMAND = "import sys, local.train; sys.exit(local.train.main([sys.executable, sys.argv.pop(1)]))"


def train(folder: Path, data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    trainer = folder / "trainer.py"
    trainer.write_text(TRAINER)
    command = [sys.executable, "-c", COMMAND, str(trainer), "--data", str(data), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def wait_for_text(user: User, words: str) -> None:
    for _, message in user.listen(seconds=60):
        if words in text_of(message):
            return
    raise AssertionError(f"the bot does not say {words!r}")


def test_a_painter_is_offered_in_the_running_chat(tmp_path: Path) -> None:
    with running(tmp_path) as stack:
        told = train(tmp_path, stack.data, str(STYLE), "--name", "klimt")
        assert told.returncode == 0, told.stderr
        assert "The running chat offers klimt" in told.stdout

        stack.says("New painter: klimt")
        # The bot looks at the catalog every half minute.
        user = stack.user(3)
        deadline = time.monotonic() + 60
        labels: list[str] = []
        while "Klimt" not in labels and time.monotonic() < deadline:
            user.send_picture(PHOTO)
            question, _ = user.wait_for_button("style:")
            labels = [button["text"] for button in buttons_of(question)]
            time.sleep(2)
        assert labels == ["Negative", "Klimt"]

        klimt = buttons_of(question)[1]
        assert read_button_picture(user, klimt).size == (36, 24)
        user.press(question, klimt)
        assert is_negative(user.wait_for_picture("painted"))


def test_the_page_s_user_teaches_a_painter(tmp_path: Path) -> None:
    with running(tmp_path) as stack:
        user = stack.user(PAGE_USER)
        form = {"text": "/teach klimt"}
        user.session.post(f"{user.url}/message", data=form, timeout=30).raise_for_status()
        wait_for_text(user, "Send me the picture")
        user.send_picture(STYLE)
        wait_for_text(user, "Training the painter klimt")
        wait_for_text(user, "klimt is ready")
        user.send_picture(PHOTO)
        question, _ = user.wait_for_button("style:")
        assert [button["text"] for button in buttons_of(question)] == ["Negative", "Klimt"]

    assert f"const user = {PAGE_USER};" in read_page()


def read_button_picture(user: User, button: dict[str, str]) -> Image.Image:
    """Return what the page shows on the button."""
    query = {"data": button["callback_data"], "version": button["picture"]}
    answer = user.session.get(f"{user.url}/button-picture", params=query, timeout=10)
    answer.raise_for_status()
    return Image.open(io.BytesIO(answer.content))


def test_training_says_where_the_painter_is_and_what_to_do(tmp_path: Path) -> None:
    data = tmp_path / "data"

    told = train(tmp_path, data, str(STYLE), "--name", "klimt", "--minutes", "3")

    assert told.returncode == 0, told.stderr
    assert (data / "models" / "style_klimt.pth").read_text() == "trained"
    assert "('minutes', '3')" in told.stdout
    assert "Start ./local.sh, and the chat offers klimt." in told.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([str(STYLE), "--name", "Bad Name"], "is no name for a painter"),
        ([str(STYLE), "--name", "vintage"], "stylebot has already"),
        (["--name", "klimt"], "Name a picture to learn from"),
        (["missing.jpg", "--name", "klimt"], "There is no file missing.jpg"),
        (["README.md", "--name", "klimt"], "README.md is not a picture"),
    ],
)
@pytest.mark.usefixtures("cyclegan_weights")
def test_what_is_wrong_is_told_before_anything_is_spent(
    tmp_path: Path, arguments: list[str], reason: str
) -> None:
    data = tmp_path / "data"

    told = train(tmp_path, data, *arguments)

    assert told.returncode == 2
    assert reason in told.stderr
    assert "Traceback" not in told.stderr
    assert not data.exists()


def test_a_painter_is_replaced_only_on_demand(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert train(tmp_path, data, str(STYLE), "--name", "klimt").returncode == 0

    again = train(tmp_path, data, str(STYLE), "--name", "klimt")

    assert again.returncode == 2
    assert "or replace it: --replace" in again.stderr
