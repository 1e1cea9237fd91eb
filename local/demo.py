"""`./local.sh demo [PHOTO STYLE]`: a user talks to the bot, on all of stylebot, and gets a photograph painted twice."""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from PIL import Image, ImageOps
from tqdm import tqdm

from local.processes import StackError
from local.sheet import sheet
from local.stack import ROOT, Options, Stack, has_gpu, run, say

OUT = ROOT / "out"
PHOTO = ROOT / "examples" / "photos" / "chelsea.jpg"
STYLE = ROOT / "examples" / "styles" / "swirls.jpg"
BAR = "{desc:<10}{percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left"
ANSWER_SECONDS, PICTURE_SECONDS = 60, 3600
Json = Any  # whatever JSON can hold


class User:
    """Somebody at the chat: sends, presses, and remembers what the chat shows and what was said, in order."""

    def __init__(self, stack: Stack, number: int = 1) -> None:
        self.stack, self.chat = stack, f"{stack.api}/chat/{number}"
        self.web, self.seen = requests.Session(), 0
        self.web.trust_env = False
        self.web.headers["X-Chat-Key"] = stack.key
        self.messages: dict[int, Json] = {}
        self.transcript: list[str] = []

    def send(self, words: str = "", picture: Path | None = None) -> None:
        """Text, or a picture: as a photo where it is of a kind that a telephone would send so, else as a file."""
        if picture is None:
            answer = self.web.post(f"{self.chat}/message", data={"text": words}, timeout=30)
        else:
            kind = (
                "photo"
                if picture.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")
                else "document"
            )
            files = {kind: (picture.name, picture.read_bytes())}
            answer = self.web.post(f"{self.chat}/message", files=files, timeout=30)
        if not answer.ok:
            raise StackError(
                f"The chat does not take {picture or words}: {answer.json()['description']}"
            )

    def press(self, message: Json, data: str, words: str) -> None:
        body = {"message_id": message["message_id"], "data": data}
        self.web.post(f"{self.chat}/press", json=body, timeout=30).raise_for_status()
        self.transcript.append(f"**you** press [{words}]")

    def listen(self, seconds: float) -> Iterator[tuple[str, Json]]:
        """What changes in the chat, as ("message", "edit" or "delete", message), while the stack is looked after."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.stack.tend()
            try:
                answer = self.web.get(
                    f"{self.chat}/events", params={"after": self.seen, "timeout": 1}, timeout=10
                )
                events = answer.json() if answer.ok else []
            except (requests.RequestException, ValueError):
                time.sleep(0.5)  # the chat is being started again
                continue
            for event in events:
                self.seen = max(self.seen, event["n"])
                if "message" in event:
                    self.messages[event["message"]["message_id"]] = event["message"]
                    yield event["kind"], event["message"]

    def hears(self, wanted: str, seconds: float = ANSWER_SECONDS) -> Json:
        """The bot's next message, of which `wanted`, a button's data, is a pattern."""
        for kind, message in self.listen(seconds):
            if kind == "message" and message["from"] == "bot" and find_button(message, wanted):
                self.quote(message)
                return message
        raise StackError(f"The bot did not answer within {seconds} s. Logs: {self.stack.logs}")

    def gets_picture(self, title: str) -> bytes:
        """The picture that the bot sends, with a bar that follows the message that tells its progress."""
        with tqdm(total=100, desc=title, bar_format=BAR, disable=None) as bar:
            for kind, message in self.listen(PICTURE_SECONDS):
                words = message.get("text") or message.get("caption") or ""
                if message.get("from") != "bot" or kind == "delete":
                    continue
                if find_button(message, "cancel:"):
                    found = re.search(r"(\d+)%", words)
                    bar.update((int(found[1]) if found else 0) - bar.n)
                    if kind == "message":
                        self.quote(message)
                elif file := message.get("photo") or message.get("document"):
                    bar.update(100 - bar.n)
                    answer = self.web.get(f"{self.chat}/file/{file['file_id']}", timeout=30)
                    answer.raise_for_status()
                    self.quote(message, f"{title}.jpg")
                    return answer.content
                elif kind == "message":
                    raise StackError(f"There is no picture. The bot says: {words}")
        raise StackError(f"No picture came within {PICTURE_SECONDS} s. Logs: {self.stack.logs}")

    def quote(self, message: Json, picture: str = "") -> None:
        words = (message.get("text") or message.get("caption") or "").replace("\n", "  \n")
        rows = message.get("reply_markup", {}).get("inline_keyboard", [])
        buttons = " ".join(f"[{button['text']}]" for row in rows for button in row)
        shown = f"![{picture}]({picture})  \n" if picture else ""
        self.transcript.append(
            f"**stylebot** {shown}{words}" + (f"  \n{buttons}" if buttons else "")
        )


def find_button(message: Json, data: str) -> Json:
    """The message's first button whose data begins so."""
    rows = message.get("reply_markup", {}).get("inline_keyboard", [])
    return next(
        (button for row in rows for button in row if button["callback_data"].startswith(data)), None
    )


def talk(user: User, photo: Path, style: Path) -> None:
    """The conversation; leaves the pictures, their sheet and the transcript in out/."""
    OUT.mkdir(exist_ok=True)
    pictures = [("photograph", read(photo.read_bytes())), ("style", read(style.read_bytes()))]
    for name, (_, picture) in zip(("photo.jpg", "style.jpg"), pictures, strict=True):
        picture.save(OUT / name, quality=92)
    user.send(picture=photo)
    user.transcript.append("**you** ![photo.jpg](photo.jpg)")
    user.hears("style:")
    user.send(picture=style)
    user.transcript.append("**you** ![style.jpg](style.jpg)")
    stylised = user.gets_picture("nst")
    result = max(user.messages.values(), key=lambda message: message["message_id"])
    again = find_button(result, "another:")
    user.press(result, again["callback_data"], again["text"])
    question = user.hears("style:")
    painter = find_button(question, "style:monet") or find_button(question, "style:")
    user.press(question, painter["callback_data"], painter["text"])
    painted = user.gets_picture("cyclegan")
    for name, data in (("nst.jpg", stylised), ("cyclegan.jpg", painted)):
        (OUT / name).write_bytes(data)
    pictures += [("NST", read(stylised)), (f"CycleGAN: {painter['text']}", read(painted))]
    sheet(pictures).save(OUT / "sheet.jpg", quality=92)
    (OUT / "transcript.md").write_text(
        "# A conversation with stylebot\n\n" + "\n\n".join(user.transcript) + "\n"
    )


def read(data: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


@contextmanager
def kept_logs(data: Path) -> Iterator[None]:
    """The logs outlive the temporary data, in out/logs."""
    try:
        yield
    finally:
        shutil.rmtree(OUT / "logs", ignore_errors=True)
        with_logs = data / "logs"
        if with_logs.is_dir():
            shutil.copytree(with_logs, OUT / "logs")


def main() -> int:
    parser = argparse.ArgumentParser(prog="./local.sh demo", description=__doc__)
    parser.add_argument("photo", nargs="?", type=Path, default=PHOTO, metavar="PHOTO")
    parser.add_argument("style", nargs="?", type=Path, default=STYLE, metavar="STYLE")
    parser.add_argument(
        "--docker", action="store_true", help="the model servers from the images of ./build.sh"
    )
    given = parser.parse_args()
    for path in (given.photo, given.style):
        try:
            read(path.read_bytes())
        except OSError:
            print(f"{path} is not a picture that can be read.", file=sys.stderr)
            return 2
    os.environ.pop("TELEGRAM_TOKEN", None)  # it is played in a chat of its own
    if has_gpu():
        say("Painting on the GPU: this takes seconds, after all parts have started.")
    else:
        say(f"Painting on {os.cpu_count()} CPU cores: this takes one to three minutes.")
    with tempfile.TemporaryDirectory(prefix="stylebot-demo-") as folder, kept_logs(Path(folder)):
        code = run(
            Options(Path(folder), given.docker),
            lambda stack: talk(User(stack), given.photo, given.style),
        )
    if code == 0:
        for name in ("nst.jpg", "cyclegan.jpg", "sheet.jpg", "transcript.md"):
            print(OUT / name)
    return code


if __name__ == "__main__":
    sys.exit(main())
