"""The chat in a real browser, with the real bot: what a person does, and what they see.

With SCREENSHOTS=FOLDER set, each state is kept there as a picture.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.fakes.chat import KEY, TOKEN, Chat, Guest, running_chat
from tests.fakes.names import BUCKET, ROOT, eventually
from tests.fakes.sagemaker import Endpoint
from tests.fakes.storage import Storage

PHOTO, STYLE = ROOT / "examples/photos/chelsea.jpg", ROOT / "examples/styles/swirls.jpg"
DROP = """
const bytes = Uint8Array.from(atob(arguments[1]), letter => letter.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], "dropped.jpg", {type: "image/jpeg"}));
const event = arguments[0] === "paste" ? new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true})
  : new DragEvent(arguments[0], {dataTransfer: transfer, bubbles: true, cancelable: true});
document.querySelector("#text").dispatchEvent(event);
"""


class Painter(Endpoint):
    """Paints slowly, and only the cat of examples/: with what the two models made of it for examples/sheet.jpg."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.seconds, self.steps = 4.0, 3
        sheet = Image.open(ROOT / "examples/sheet.jpg")
        self.paintings = {
            name: sheet.crop((left, 16, left + 541, 376))
            for name, left in (("nst", 1039), ("gan", 1596))
        }

    def _paint(self, call: dict[str, Any]) -> None:
        request = json.loads(self._read(call["input"]))
        self.requests.append(request)
        painting = self.paintings["nst" if call["endpoint"] == "nst" else "gan"]
        for step in range(1, self.steps + 1):
            progress: dict[str, Any] = {
                "step": step,
                "steps": self.steps + 1,
                "seconds_left": 30 * (1 - step / self.steps) + 8,
            }
            preview = painting.resize((256 * step // self.steps, 170 * step // self.steps))
            progress["preview"] = base64.b64encode(jpeg(preview)).decode()
            self._write(request["progress_url"].split("/", 3)[3], json.dumps(progress).encode())
            time.sleep(self.seconds / self.steps)
        self._write(request["result_url"].split("/", 3)[3], jpeg(painting))
        said = {
            "result_url": request["result_url"],
            "size": [541, 360],
            "seconds": 88 if "nst" in call["endpoint"] else 2,
        }
        self._write(call["output"], json.dumps(said).encode())


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def storage() -> Iterator[Storage]:
    storage = Storage()
    yield storage
    storage.close()


@pytest.fixture(scope="module")
def painter(storage: Storage) -> Iterator[Painter]:
    painter = Painter(storage)
    yield painter
    painter.close()


@pytest.fixture(scope="module")
def chat(
    storage: Storage, painter: Painter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Chat]:
    """The chat, with bot.py behind it."""
    folder = tmp_path_factory.mktemp("chat")
    with running_chat(folder / "data") as chat:
        environment = os.environ | {
            "TELEGRAM_TOKEN": TOKEN,
            "TELEGRAM_API": chat.url,
            "BUCKET": BUCKET,
            "NST_ENDPOINT": "nst",
            "CYCLEGAN_ENDPOINT": "cyclegan",
            "STYLES": "monet,vangogh,cezanne,ukiyoe,vintage",
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{storage.port}",
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": painter.url,
        }
        with open(folder / "bot.log", "w") as log:
            bot = subprocess.Popen(
                [sys.executable, str(ROOT / "bot.py")], env=environment, stderr=log
            )
        eventually(lambda: len(Guest(chat, 1).ask("GET", "commands").json()) == 3, "the bot is up")
        yield chat
        bot.kill()
        bot.wait()
        assert TOKEN not in (folder / "bot.log").read_text() + chat.log.read_text()


class Tab:
    """A browser's tab with the page, and a person before it."""

    def __init__(
        self,
        chat: Chat,
        language: str = "en",
        dark: bool = False,
        size: tuple[int, int] = (1100, 800),
    ) -> None:
        browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if not browser or not driver:
            why = "Chromium is missing: apt-get install chromium chromium-driver"
            (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
            raise AssertionError(why)
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        options.add_experimental_option("prefs", {"intl.accept_languages": language})
        for flag in (
            "headless=new",
            "no-sandbox",
            "disable-dev-shm-usage",
            "hide-scrollbars",
            f"lang={language}",
        ):
            options.add_argument(f"--{flag}")
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(driver))
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        width, height = size
        metrics = {
            "width": width,
            "height": height,
            "deviceScaleFactor": 1 if width > 600 else 2,
            "mobile": width <= 600,
        }
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.get(f"{chat.url}/#{KEY}")

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def sees(self, css: str, words: str = "", seconds: float = 20) -> WebElement:
        """The last element that has these words in it, as soon as there is one that is shown."""

        def find() -> WebElement | None:
            script = "return [...document.querySelectorAll(arguments[0])].filter(it => it.checkVisibility() && "
            script += "it.textContent.includes(arguments[1])).at(-1)"
            found: WebElement | None = self.driver.execute_script(script, css, words)
            return found

        try:
            return eventually(find, f"the page shows {css} with {words!r}", seconds)
        except AssertionError as error:
            page = self.driver.find_element(By.TAG_NAME, "body").text
            raise AssertionError(
                f"{error}; it shows:\n{page}\n{self.driver.get_log('browser')}"
            ) from None

    def click(self, css: str, words: str = "") -> None:
        found = self.sees(css, words)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
        found.click()

    def write(self, text: str) -> None:
        self.sees("#text").send_keys(text, Keys.ENTER)

    def pick(self, *paths: Path, as_: str = "photo") -> None:
        self.driver.find_element(By.ID, "picker").send_keys("\n".join(map(str, paths)))
        self.click(f"#as-{as_}")

    def has_picture(self, article: str) -> tuple[int, int]:
        """The size of the newest picture that has been loaded in such a message, or of none."""
        script = "const image = [...document.querySelectorAll(arguments[0] + ' img')].at(-1);"
        size = self.driver.execute_script(
            script + "return image ? [image.naturalWidth, image.naturalHeight] : [0, 0]", article
        )
        return size[0], size[1]

    def shoot(self, name: str) -> None:
        if folder := os.environ.get("SCREENSHOTS"):
            time.sleep(0.4)
            self.driver.save_screenshot(f"{folder}/{name}.png")

    def complaints(self) -> list[Any]:
        """What the browser's console says, above all about what the page's own policy forbids."""
        return [line for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]

    def close(self) -> None:
        self.driver.quit()


@pytest.fixture
def open_tab(chat: Chat) -> Iterator[Any]:
    tabs: list[Tab] = []

    def open_one(**options: Any) -> Tab:  # noqa: ANN401
        tabs.append(Tab(chat, **options))
        return tabs[-1]

    yield open_one
    for tab in tabs:
        tab.close()


LOOKS = [
    ("en", False, (1100, 800), "desktop-light"),
    ("ru", True, (390, 844), "phone-dark"),
]
WORDS = {
    "en": (
        "Start",
        "send me the photo",
        "Choose a painter",
        "Painting your photo",
        "left",
        "Cancel",
        "Cancelled",
    ),
    "ru": (
        "Начать",
        "Пришлите фотографию",
        "Выберите художника",
        "Рисую ваше",
        "ещё",
        "Отменить",
        "Отменено",
    ),
}


@pytest.mark.parametrize(
    ("language", "dark", "size", "name"), LOOKS, ids=[look[3] for look in LOOKS]
)
def test_from_a_photo_to_two_paintings(
    open_tab: Any,  # noqa: ANN401
    painter: Painter,
    language: str,
    dark: bool,
    size: tuple[int, int],
    name: str,
) -> None:
    tab: Tab = open_tab(language=language, dark=dark, size=size)
    start, ask_photo, ask_style, painting, left, cancel, cancelled = WORDS[language]
    tab.sees("#empty")
    tab.shoot(f"{name}-1-empty")
    tab.click("#start", start)
    tab.sees("article.bot", ask_photo)
    tab.driver.find_element(By.ID, "picker").send_keys(str(PHOTO))
    tab.sees("#chosen img")
    tab.shoot(f"{name}-2-choose")
    tab.click("#as-photo")
    tab.sees("article.bot", ask_style)
    tab.shoot(f"{name}-3-style")
    tab.pick(STYLE)
    status = tab.sees("article.bot", painting)
    eventually(
        lambda: tab.all("article.bot progress") and tab.has_picture("article.bot.framed") > (0, 0),
        "a preview",
    )
    assert left in status.text
    assert tab.sees("#status.busy")
    tab.shoot(f"{name}-4-progress")
    eventually(lambda: tab.has_picture("article.bot") == (541, 360), "the painting is there")
    eventually(lambda: not tab.all("article.bot progress"), "the status message is gone")
    tab.shoot(f"{name}-5-painting")
    tab.click("article.bot .keys button", "Vintage")
    eventually(
        lambda: len(tab.all("article.bot img")) == 2 and not tab.all("progress"),
        "the second painting",
    )
    tab.shoot(f"{name}-6-painter")
    tab.click("article.bot .picture")
    tab.sees("#viewer-image")
    tab.shoot(f"{name}-7-enlarged")
    tab.click("#viewer-close")
    painter.seconds = 60
    tab.click("article.bot .keys button", "Monet")
    tab.click("article.bot .keys button", cancel)
    tab.sees("article.bot", cancelled)
    painter.seconds = 4
    tab.shoot(f"{name}-8-cancelled")
    assert tab.complaints() == []


def test_files_come_by_paste_and_drop_and_leave_untouched(open_tab: Any, painter: Painter) -> None:  # noqa: ANN401
    tab: Tab = open_tab()
    tab.sees("#empty")
    data = base64.b64encode(PHOTO.read_bytes()).decode()
    tab.driver.execute_script(DROP, "paste", data)
    tab.click("#as-photo")
    tab.sees("article.bot", "Choose a painter")
    tab.driver.execute_script(DROP, "dragover", data)
    assert tab.sees("#drop")
    tab.driver.execute_script(DROP, "drop", data)
    tab.click("#as-document")
    tab.sees("article.user .file", "dropped.jpg")
    eventually(lambda: tab.has_picture("article.bot") == (541, 360), "the painting is there")
    assert painter.storage.list_keys("chats/")


def test_commands_are_offered_and_words_are_words(open_tab: Any) -> None:  # noqa: ANN401
    tab: Tab = open_tab()
    tab.sees("#empty")
    tab.sees("#text").send_keys("/he")
    assert tab.sees("#commands button").text.startswith("/help")
    tab.sees("#text").send_keys(Keys.ARROW_UP)
    tab.driver.switch_to.active_element.send_keys(Keys.ENTER)
    tab.sees("article.user", "/help")
    tab.sees("article.bot", "Send me a photo")
    tab.click("#commands-button")
    eventually(lambda: len(tab.all("#commands button")) == 3, "all commands")
    tab.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    eventually(lambda: not tab.all("#commands:not([hidden])"), "the commands are gone")
    tab.write("<img src=x onerror=alert(1)><b>bold</b>")
    tab.sees("article.user:not(.sending) p", "<img src=x onerror=alert(1)><b>bold</b>")
    assert not tab.all("article b, article img")
    assert tab.complaints() == []


def test_tabs_are_users_and_a_tab_keeps_its_chat(open_tab: Any, chat: Chat) -> None:  # noqa: ANN401
    anna: Tab = open_tab()
    anna.click("#start")
    anna.sees("article.bot", "Hello")
    anna.driver.switch_to.new_window("tab")
    anna.driver.get(f"{chat.url}/#{KEY}")
    anna.sees("#empty")
    anna.write("/help")
    anna.sees("article.bot", "Send me a photo")
    assert not [it for it in anna.all("article") if "Hello" in it.text]
    anna.driver.refresh()
    anna.sees("article.user", "/help")


def test_what_goes_wrong_is_told_in_words(open_tab: Any, chat: Chat, tmp_path: Path) -> None:  # noqa: ANN401
    tab: Tab = open_tab()
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    tab.pick(tmp_path / "broken.jpg")
    tab.sees(".failed", "no picture that can be read")
    tab.click(".failed button", "Remove")
    chat.kill()
    tab.sees("#status.bad", "No connection")
    tab.write("/start")
    tab.sees(".failed", "no connection")
    tab.shoot("offline")
    chat.start()
    eventually(lambda: not tab.all("#status.bad"), "the page is back")
    tab.click(".failed button", "Try again")
    tab.sees("article.bot", "Hello", seconds=60)
    tab.driver.get("about:blank")
    tab.driver.get(f"{chat.url}/#another-key")
    tab.sees("#status.bad", "Open the address that the program shows")
    tab.shoot("wrong-key")
