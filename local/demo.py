"""`./local.sh demo [PHOTO STYLE]`: a user sends a photograph, and both models paint it."""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from PIL import Image, ImageOps
from tqdm import tqdm

from local.model_servers import has_gpu, model_command
from local.processes import ROOT, StackError, say
from local.sheet import sheet
from local.stack import Options, Stack, run

OUT = ROOT / "out"
PHOTO = ROOT / "examples" / "photos" / "chelsea.jpg"
STYLE = ROOT / "examples" / "styles" / "swirls.jpg"
# What a telephone would send as a photo. Other pictures are sent as files.
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
BAR = "{desc:<10}{percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left"
ANSWER_SECONDS = 60
PICTURE_SECONDS = 3600

# A message and a button as the chat server shows them to its page.
Message = dict[str, Any]
Button = dict[str, str]


def do_nothing() -> None:
    pass


class User:
    """Somebody at the chat. Remembers what the chat shows, and a transcript of the conversation."""

    def __init__(
        self, api: str, key: str, number: int = 1, watch: Callable[[], None] = do_nothing
    ) -> None:
        """`watch` is called about once a second while the user waits."""
        self.url = f"{api}/chat/{number}"
        self.watch = watch
        self.session = requests.Session()
        self.session.trust_env = False  # no proxy
        self.session.headers["X-Chat-Key"] = key
        # The number of the last event that was read.
        self.last_event = 0
        self.messages: dict[int, Message] = {}
        # The messages that ask for a painter. They may show a picture: a sheet of the painters.
        self.questions: set[int] = set()
        self.transcript: list[str] = []

    def send_picture(self, path: Path) -> None:
        kind = "document"
        if path.suffix.lower() in PHOTO_SUFFIXES:
            kind = "photo"
        files = {kind: (path.name, path.read_bytes())}
        answer = self.session.post(f"{self.url}/message", files=files, timeout=30)
        if not answer.ok:
            reason = answer.json()["description"]
            raise StackError(f"The chat does not take {path}: {reason}")

    def press(self, message: Message, button: Button) -> None:
        body = {"message_id": message["message_id"], "data": button["callback_data"]}
        self.session.post(f"{self.url}/press", json=body, timeout=30).raise_for_status()
        self.transcript.append(f"**you** press [{button['text']}]")

    def listen(self, seconds: float) -> Iterator[tuple[str, Message]]:
        """Yield each change of the chat: ("message", "edit" or "delete", the message)."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.watch()
            for event in self.read_events():
                self.last_event = max(self.last_event, event["n"])
                # A chat action, such as typing, has none.
                if "message" in event:
                    message: Message = event["message"]
                    self.messages[message["message_id"]] = message
                    if find_button(message, "style:"):
                        self.questions.add(message["message_id"])
                    yield event["kind"], message

    def read_events(self) -> list[dict[str, Any]]:
        """Return what is new in the chat, after at most a second; [] while the chat restarts."""
        parameters = {"after": self.last_event, "timeout": 1}
        try:
            answer = self.session.get(f"{self.url}/events", params=parameters, timeout=10)
            answer.raise_for_status()
            events: list[dict[str, Any]] = answer.json()
        except (requests.RequestException, ValueError):
            time.sleep(0.5)
            return []
        return events

    def wait_for_button(self, data: str) -> tuple[Message, Button]:
        """Return the bot's next message with a wanted button, and that button.

        It is the first button whose callback data begins with `data`.
        Raises StackError where none comes in a minute.
        """
        for kind, message in self.listen(ANSWER_SECONDS):
            if kind != "message" or message["from"] != "bot":
                continue
            if button := find_button(message, data):
                self.quote(message)
                return message, button
        raise StackError(f"The bot did not answer within {ANSWER_SECONDS} s.")

    def wait_for_picture(self, title: str) -> bytes:
        """Return the picture that the bot sends, and show its progress until then.

        Raises StackError where the bot says that there is none, or where none comes in an hour.
        """
        with tqdm(total=100, desc=title, bar_format=BAR, disable=None) as bar:
            for kind, message in self.listen(PICTURE_SECONDS):
                if kind == "delete" or message["from"] != "bot":
                    continue
                if message["message_id"] in self.questions:
                    continue

                # Only the message that tells the progress has this button. It may show a preview.
                if find_button(message, "cancel:"):
                    bar.update(percentage(message) - bar.n)
                    if kind == "message":
                        self.quote(message)
                    continue

                file = message.get("photo") or message.get("document")
                if file:
                    bar.update(100 - bar.n)
                    self.quote(message, f"{title}.jpg")
                    return self.download(file["file_id"])
                if kind == "message":
                    raise StackError(f"There is no picture. The bot says: {text_of(message)}")
        raise StackError(f"No picture came within {PICTURE_SECONDS} s.")

    def download(self, file_id: str) -> bytes:
        answer = self.session.get(f"{self.url}/file/{file_id}", timeout=30)
        answer.raise_for_status()
        return answer.content

    def quote(self, message: Message, picture: str = "") -> None:
        """Add what the bot said to the transcript, with the picture in the file of this name."""
        lines = []
        if picture:
            lines.append(f"![{picture}]({picture})")
        lines += text_of(message).split("\n")
        if labels := " ".join(f"[{button['text']}]" for button in buttons_of(message)):
            lines.append(labels)
        # Two spaces at its end make a line break in Markdown.
        self.transcript.append("**stylebot** " + "  \n".join(lines))


def text_of(message: Message) -> str:
    text: str = message.get("text") or message.get("caption") or ""
    return text


def percentage(message: Message) -> int:
    found = re.search(r"(\d+)%", text_of(message))
    if not found:
        return 0
    return int(found[1])


def buttons_of(message: Message) -> list[Button]:
    rows = message.get("reply_markup", {}).get("inline_keyboard", [])
    return [button for row in rows for button in row]


def find_button(message: Message, data: str) -> Button | None:
    """Return the message's first button whose callback data begins with `data`."""
    for button in buttons_of(message):
        if button["callback_data"].startswith(data):
            return button
    return None


def talk(user: User, photo: Path, style: Path) -> None:
    """Hold the conversation, and leave the pictures, a sheet of them and the transcript in out/."""
    OUT.mkdir(exist_ok=True)
    photo_image = read_image(photo.read_bytes())
    style_image = read_image(style.read_bytes())
    photo_image.save(OUT / "photo.jpg", quality=92)
    style_image.save(OUT / "style.jpg", quality=92)

    user.send_picture(photo)
    user.transcript.append("**you** ![photo.jpg](photo.jpg)")
    user.wait_for_button("style:")
    user.send_picture(style)
    user.transcript.append("**you** ![style.jpg](style.jpg)")
    user.press(*user.wait_for_button("paint:"))
    nst_picture = user.wait_for_picture("nst")
    (OUT / "nst.jpg").write_bytes(nst_picture)

    result = user.messages[max(user.messages)]
    another_style = find_button(result, "another:")
    if not another_style:
        raise StackError("The result has no button for another style.")
    user.press(result, another_style)

    question, first_style = user.wait_for_button("style:")
    chosen = find_button(question, "style:monet") or first_style
    user.press(question, chosen)
    cyclegan_picture = user.wait_for_picture("cyclegan")
    (OUT / "cyclegan.jpg").write_bytes(cyclegan_picture)

    pictures = [
        ("photograph", photo_image),
        ("style", style_image),
        ("NST", read_image(nst_picture)),
        (f"CycleGAN: {chosen['text']}", read_image(cyclegan_picture)),
    ]
    sheet(pictures).save(OUT / "sheet.jpg", quality=92)
    transcript = ["# A conversation with stylebot", *user.transcript]
    (OUT / "transcript.md").write_text("\n\n".join(transcript) + "\n")


def read_image(data: bytes) -> Image.Image:
    """Return the image upright and in RGB. Raises OSError where it cannot be read."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


@contextmanager
def keep_logs(data: Path) -> Iterator[None]:
    """Copy the logs to out/logs in the end, since `data` is temporary."""
    try:
        yield
    finally:
        shutil.rmtree(OUT / "logs", ignore_errors=True)
        if (data / "logs").is_dir():
            shutil.copytree(data / "logs", OUT / "logs")


def main(command: Callable[[str], list[str]] = model_command) -> int:
    """Parse the command line, and run the demo. `command` is for tests."""
    parser = argparse.ArgumentParser(prog="./local.sh demo", description=__doc__)
    parser.add_argument("photo", nargs="?", type=Path, default=PHOTO, metavar="PHOTO")
    parser.add_argument("style", nargs="?", type=Path, default=STYLE, metavar="STYLE")
    parser.add_argument(
        "--docker", action="store_true", help="the model servers from the images of ./build.sh"
    )
    arguments = parser.parse_args()

    for path in (arguments.photo, arguments.style):
        try:
            read_image(path.read_bytes())
        except OSError:
            print(f"{path} is not a picture that can be read.", file=sys.stderr)
            return 2

    os.environ.pop("TELEGRAM_TOKEN", None)  # The demo has a chat of its own.
    if has_gpu():
        say("Painting on the GPU: this takes seconds, after all parts have started.")
    else:
        say(f"Painting on {os.cpu_count()} CPU cores: this takes one to three minutes.")

    def use(stack: Stack) -> None:
        assert stack.address
        user = User(stack.address.url, stack.address.key, watch=stack.watch)
        talk(user, arguments.photo, arguments.style)

    with tempfile.TemporaryDirectory(prefix="stylebot-demo-") as folder:
        data = Path(folder)
        with keep_logs(data):
            exit_code = run(Options(data, arguments.docker, model_command=command), use)
    if exit_code == 1:
        print(f"Logs: {OUT / 'logs'}", file=sys.stderr)
    if exit_code == 0:
        for name in ("nst.jpg", "cyclegan.jpg", "sheet.jpg", "transcript.md"):
            print(OUT / name)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
