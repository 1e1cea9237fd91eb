"""The chat in a real browser, with the real bot: what a person does, and what they see.

With SCREENSHOTS=FOLDER set, each state is kept there as a picture.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

import bot
from containers.serving.limits import MAX_MEGAPIXELS, MIN_SIDE
from local.telegram.button_pictures import PAINTERS, painters_json, picture_path
from local.telegram.store import BUTTON_PICTURES
from tests.fakes.chat import KEY, TOKEN, Chat, Guest, running_chat
from tests.fakes.names import BUCKET, ROOT, eventually
from tests.fakes.sagemaker import Answer, Call, Endpoint, Request
from tests.fakes.storage import Storage

PHOTO = ROOT / "examples/photos/chelsea.jpg"
STYLE = ROOT / "examples/styles/swirls.jpg"
# The number of whoever sits at the page.
USER = 100
# Paste, drag or drop a file: the kind of event, and the file in base64.
DROP = """
const [kind, data] = arguments;
const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], "dropped.jpg", {type: "image/jpeg"}));
const event = kind === "paste"
  ? new ClipboardEvent(kind, {clipboardData: transfer, bubbles: true})
  : new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true});
document.querySelector(arguments[2] ?? "#text").dispatchEvent(event);
"""
# The last element of a selector, with a text in it, that is shown.
FIND = """
const [selector, text] = arguments;
return [...document.querySelectorAll(selector)]
  .filter(it => it.checkVisibility() && it.textContent.includes(text))
  .at(-1);
"""
# Whether a click would reach an element: it has been at its place for a second.
ACTS = "return !arguments[0].closest('.unsettled')"
# Whether an element is where the last click was.
IS_HIT = """
const {left, right, top, bottom} = arguments[0].getBoundingClientRect(), [x, y] = pointer;
return left < x && x < right && top < y && y < bottom;
"""
LISTEN = """
window.heard = [];
window.spoken = document.querySelector("#spoken");
const note = () => heard.push(spoken.textContent);
new MutationObserver(note).observe(spoken, {characterData: true, childList: true, subtree: true});
"""
# What the log was, for a screen reader, when each message came into it.
NOTE_LIVE = """
window.lives = [];
new MutationObserver(changes => {
  const isMessage = change => [...change.addedNodes].some(node => node.tagName === "ARTICLE");
  for (const _ of changes.filter(isMessage)) lives.push(document.querySelector("#log").ariaLive);
}).observe(document, {childList: true, subtree: true});
"""
HIDE = """
window.told = [];
const Real = Notification;
window.Notification = class extends Real {
  constructor(title, options) { super(title, options); told.push([title, options.body]); }
};
window.hide = hidden => {
  Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
  document.dispatchEvent(new Event("visibilitychange"));
};
hide(true);
"""
PRESS_TWICE = """
window.pressed = 0;
for (const wait of [0, 600]) setTimeout(() => { arguments[0].click(); pressed += 1; }, wait);
"""


class Painter(Endpoint):
    """Paints only the cat of examples/: with what both models made of it for examples/sheet.jpg.

    A painting tells its progress at once, and is finished when `may_finish` is set.
    """

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.storage = storage
        self.may_finish = threading.Event()
        self.may_finish.set()
        sheet = Image.open(ROOT / "examples/sheet.jpg")
        self.nst_painting = sheet.crop((1039, 16, 1580, 376))
        self.cyclegan_painting = sheet.crop((1596, 16, 2137, 376))

    def stylize(self, call: Call, request: Request) -> Answer:
        self.requests.append(request)
        painting = self.cyclegan_painting
        seconds = 2
        if call.endpoint == "nst":
            painting = self.nst_painting
            seconds = 88
        self.objects.write(request["progress_url"], progress(painting))
        self.may_finish.wait(120)
        self.objects.write(request["result_url"], jpeg(painting))
        return {"result_url": request["result_url"], "size": [541, 360], "seconds": seconds}


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def progress(painting: Image.Image) -> bytes:
    preview = base64.b64encode(jpeg(painting.resize((128, 85)))).decode()
    told = {"step": 2, "steps": 4, "seconds_left": 18, "preview": preview}
    return json.dumps(told).encode()


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


@pytest.fixture
def chat(storage: Storage, painter: Painter, tmp_path: Path) -> Iterator[Chat]:
    """A new chat, with bot.py behind it."""
    storage.empty()
    with running_chat(tmp_path / "data") as chat:
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
        with open(tmp_path / "bot.log", "w") as log:
            bot = subprocess.Popen(
                [sys.executable, str(ROOT / "bot.py")], env=environment, stderr=log
            )
        try:
            eventually(
                lambda: bool(Guest(chat, 1).ask("GET", "commands").json()), "the bot is up", 60
            )
            yield chat
        finally:
            painter.may_finish.set()
            bot.kill()
            bot.wait()
        assert TOKEN not in (tmp_path / "bot.log").read_text() + chat.log.read_text()


class Tab:
    """A browser's tab with the page, and a person before it."""

    def __init__(
        self,
        chat: Chat,
        language: str = "en",
        dark: bool = False,
        size: tuple[int, int] = (1100, 800),
    ) -> None:
        browser = shutil.which("chromium")
        driver = shutil.which("chromedriver")
        if not browser or not driver:
            why = "Chromium is missing: apt-get install chromium chromium-driver"
            if not os.environ.get("CI"):
                pytest.skip(why)
            pytest.fail(why)
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
        scheme = {"name": "prefers-color-scheme", "value": "light"}
        if dark:
            scheme["value"] = "dark"
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        if width <= 600:
            metrics.update(deviceScaleFactor=2, mobile=True)
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.get(f"{chat.url}/#{KEY}")

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def sees(self, css: str, words: str = "", seconds: float = 60) -> WebElement:
        """Return the last element with these words in it, as soon as one is shown."""
        found: list[WebElement] = []

        def find() -> bool:
            element = self.driver.execute_script(FIND, css, words)
            if element:
                found.append(element)
            return bool(found)

        try:
            eventually(find, f"the page shows {css} with {words!r}", seconds)
        except AssertionError as error:
            page = self.driver.find_element(By.TAG_NAME, "body").text
            raise AssertionError(f"{error}; it shows:\n{page}\n{self.console()}") from None
        return found[0]

    def click(self, css: str, words: str = "") -> None:
        found = self.sees(css, words)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
        self.waits_until_it_acts(found)
        found.click()

    def waits_until_it_acts(self, element: WebElement) -> None:
        self.waits_for("it acts", lambda: self.driver.execute_script(ACTS, element))

    def focused(self) -> WebElement:
        return self.driver.switch_to.active_element

    def press(self, *keys: str) -> None:
        """Press the last key, while the keys before it are held down."""
        actions = ActionChains(self.driver)
        for key in keys[:-1]:
            actions.key_down(key)
        actions.send_keys(keys[-1])
        for key in keys[:-1]:
            actions.key_up(key)
        actions.perform()

    def mouse(self) -> ActionChains:
        return ActionChains(self.driver, duration=0)

    def write(self, text: str) -> None:
        self.sees("#text").send_keys(text, Keys.ENTER)

    def pick(self, *paths: Path, as_: str = "photo") -> None:
        self.driver.find_element(By.ID, "picker").send_keys("\n".join(map(str, paths)))
        self.click(f"#as-{as_}")

    def texts(self, css: str) -> list[str]:
        """Return what all elements of a selector say at one moment."""
        script = (
            "return [...document.querySelectorAll(arguments[0])].map(it => it.innerText.trim())"
        )
        texts: list[str] = self.driver.execute_script(script, css)
        return texts

    def accessible(self) -> list[dict[str, Any]]:
        """Return what a screen reader finds: the nodes of Chromium's accessibility tree."""
        tree = self.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})
        return [node for node in tree["nodes"] if not node["ignored"]]

    def has_picture(self, article: str) -> tuple[int, int]:
        """The size of the newest picture that has been loaded in such a message, or of none."""
        script = """
            const image = [...document.querySelectorAll(arguments[0] + " img")].at(-1);
            return image ? [image.naturalWidth, image.naturalHeight] : [0, 0];
        """
        width, height = self.driver.execute_script(script, article)
        return width, height

    def has_painting(self) -> bool:
        return self.has_picture("article.bot") == (541, 360)

    def has_preview(self) -> bool:
        return self.has_picture("article.bot.framed") > (0, 0)

    def has_progress(self) -> bool:
        return bool(self.all("article.bot progress"))

    def waits_for(self, what: str, check: Callable[[], bool]) -> None:
        eventually(check, what, 60)

    def shoot(self, name: str) -> None:
        if folder := os.environ.get("SCREENSHOTS"):
            time.sleep(0.4)
            self.driver.save_screenshot(f"{folder}/{name}.png")

    def complaints(self) -> list[Any]:
        """Return the errors in the console, above all what the page's own policy forbids.

        Chromium ends what it loads when another test gives Docker a network.
        """
        return [
            line
            for line in self.console()
            if line["level"] == "SEVERE" and "ERR_NETWORK_CHANGED" not in line["message"]
        ]

    def console(self) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return lines

    def close(self) -> None:
        self.driver.quit()


class Browser:
    """Opens tabs, and closes them in the end."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.tabs: list[Tab] = []

    def open(
        self, language: str = "en", dark: bool = False, size: tuple[int, int] = (1100, 800)
    ) -> Tab:
        tab = Tab(self.chat, language, dark, size)
        self.tabs.append(tab)
        return tab


@pytest.fixture
def browser(chat: Chat) -> Iterator[Browser]:
    browser = Browser(chat)
    yield browser
    for tab in browser.tabs:
        tab.close()


@dataclass
class Words:
    """What the page and the bot say in one language."""

    start: str
    ask_photo: str
    ask_style: str
    paint: str
    painting: str
    left: str
    cancel: str
    cancelled: str


WORDS = {
    "en": Words(
        start="Start",
        ask_photo="send me the photo",
        ask_style="Choose a painter",
        paint="Paint",
        painting="Painting your photo",
        left="left",
        cancel="Cancel",
        cancelled="Cancelled",
    ),
    "ru": Words(
        start="Начать",
        ask_photo="Пришлите фотографию",
        ask_style="Выберите художника",
        paint="Рисовать",
        painting="Рисую ваше",
        left="ещё",
        cancel="Отменить",
        cancelled="Отменено",
    ),
}
LOOKS = [
    ("en", False, (1100, 800), "desktop-light"),
    ("ru", True, (390, 844), "phone-dark"),
]


@pytest.mark.parametrize(
    ("language", "dark", "size", "name"), LOOKS, ids=[look[3] for look in LOOKS]
)
def test_from_a_photo_to_two_paintings(
    browser: Browser,
    painter: Painter,
    language: str,
    dark: bool,
    size: tuple[int, int],
    name: str,
) -> None:
    tab = browser.open(language, dark, size)
    words = WORDS[language]
    tab.sees("#empty")
    tab.shoot(f"{name}-1-empty")
    tab.click("#start", words.start)
    tab.sees("article.bot", words.ask_photo)
    tab.driver.find_element(By.ID, "picker").send_keys(str(PHOTO))
    tab.sees("#chosen img")
    tab.shoot(f"{name}-2-choose")
    tab.click("#as-photo")
    tab.sees("article.bot", words.ask_style)
    tab.shoot(f"{name}-3-style")

    painter.may_finish.clear()
    tab.pick(STYLE)
    tab.click("article.bot .keys button", words.paint)
    status = tab.sees("article.bot", words.painting)
    tab.waits_for("a preview", lambda: tab.has_progress() and tab.has_preview())
    assert words.left in status.text
    assert tab.sees("#status.busy")
    tab.shoot(f"{name}-4-progress")
    painter.may_finish.set()
    tab.waits_for("the painting", tab.has_painting)
    tab.waits_for("the end of the status message", lambda: not tab.has_progress())
    tab.shoot(f"{name}-5-painting")

    tab.click("article.bot .keys button", "Vintage")
    tab.waits_for(
        "the second painting",
        lambda: len(tab.all("article.bot img")) == 2 and not tab.all("progress"),
    )
    tab.shoot(f"{name}-6-painter")
    tab.click("article.bot .picture")
    tab.sees("#viewer-image")
    tab.shoot(f"{name}-7-enlarged")
    tab.click("#viewer-close")

    painter.may_finish.clear()
    tab.click("article.bot .keys button", "Monet")
    tab.click("article.bot .keys button", words.cancel)
    tab.sees("article.bot", words.cancelled)
    painter.may_finish.set()
    tab.shoot(f"{name}-8-cancelled")
    assert tab.complaints() == []


def offer_painters(chat: Chat) -> None:
    """Tell the page which painters there are, as the catalog does."""
    folder = chat.folder / BUTTON_PICTURES
    folder.mkdir()
    labels = {"style:monet": "Monet", "style:vangogh": "Van Gogh", "style:vintage": "Vintage"}
    (folder / PAINTERS).write_bytes(painters_json(labels))
    picture_path(folder, "style:monet").write_bytes(PHOTO.read_bytes())


def test_one_press_paints_for_someone_who_has_nothing_at_hand(
    browser: Browser, chat: Chat, painter: Painter
) -> None:
    offer_painters(chat)
    asked = len(painter.requests)
    tab = browser.open()
    tab.sees("#studio-painters .sample[aria-pressed=true]", "Monet")
    tab.waits_for("the cat", lambda: tab.has_picture("#studio-photo")[0] > 0)
    assert not tab.all("#studio-open:not([hidden])")
    tab.click("#paint")
    tab.waits_for("the painting", tab.has_painting)
    tab.sees("article.bot", "Painted: Monet")
    (request,) = painter.requests[asked:]
    assert request["style_name"] == "monet"
    assert tab.focused().get_attribute("id") == "text"
    assert tab.complaints() == []


def test_the_studio_sends_what_a_person_would_send(
    browser: Browser, chat: Chat, painter: Painter
) -> None:
    offer_painters(chat)
    tab = browser.open("ru")
    tab.click("#start")
    tab.sees("article.bot", "Пришлите фотографию")
    # The chat waits for the style of another photo: that is not what the studio's pictures are.
    tab.pick(ROOT / "examples/photos/coffee.jpg")
    tab.sees("article.bot", "Выберите художника")
    tab.click("#studio-open", "Новая картина")
    tab.waits_for("the studio", lambda: tab.focused().get_attribute("id") == "paint")
    # Tab leads to one of the painters, and the arrows from there to the others.
    tab.driver.execute_script("document.querySelector('#studio-painters .sample').focus()")
    tab.press(Keys.ARROW_RIGHT)
    assert tab.focused().text == "Van Gogh"
    tab.press(Keys.SPACE)
    tab.sees("#studio-style figcaption", "Van Gogh")
    tab.driver.execute_script(
        DROP, "drop", base64.b64encode(PHOTO.read_bytes()).decode(), "#photo-slot"
    )
    tab.sees("#studio-photo figcaption", "dropped.jpg")
    assert tab.sees("#studio-photos [aria-pressed=true]").get_attribute("title") == "dropped.jpg"
    tab.click("#studio-pictures .sample[title=Вихри]")
    tab.sees("#studio-style figcaption", "Вихри")
    assert not tab.all("#studio-painters [aria-pressed=true]")
    tab.click("#studio-pictures .sample[title=Волны]")
    tab.waits_for("two styles", lambda: tab.texts("#studio-style figcaption") == ["Вихри", "Волны"])
    more = tab.sees("#studio-weights label", "Волны").find_element(By.TAG_NAME, "input")
    more.send_keys(Keys.ARROW_RIGHT)
    assert more.get_attribute("aria-valuetext") == "Больше"
    for name in ("size", "strength", "preserve_color"):
        choices = tab.all(f"#studio-{name} option")
        assert len(choices) == len(bot.CHOICES[name])
        Select(tab.sees(f"#studio-{name}")).select_by_value("1")
    asked = len(painter.requests)
    tab.click("#paint")
    tab.waits_for("the painting", tab.has_painting)
    (request,) = painter.requests[asked:]
    assert len(request["style_url"]) == 2
    assert request["style_weights"] == [1.0, 2.0]
    assert (request["size"], request["strength"], request["preserve_color"]) == (640, 0.3, True)
    assert len(tab.all("article.user .picture")) == 4

    tab.click("article.bot .picture")
    tab.waits_for("the album's photo", lambda: tab.has_picture("#viewer-stage") == (451, 300))
    tab.click("#viewer-close")
    # What was chosen stays chosen for the next painting.
    tab.click("#studio-open")
    tab.sees("#studio-pictures [aria-pressed=true]")
    assert len(tab.all("#studio [aria-pressed=true]")) == 3
    assert Select(tab.sees("#studio-size")).first_selected_option.text == "640 точек"
    tab.press(Keys.ESCAPE)
    tab.waits_for("the chat", lambda: not tab.all("#studio-dialog[open]"))
    tab.driver.refresh()
    tab.click("#studio-open")
    tab.sees("#studio-dialog #paint")
    assert tab.complaints() == []


def test_a_result_is_compared_with_its_photo_and_the_others_are_a_step_away(
    browser: Browser, painter: Painter
) -> None:
    tab = browser.open()
    tab.pick(PHOTO)
    tab.click(".keys button", "Vintage")
    tab.waits_for("the painting", tab.has_painting)
    tab.click(".keys button", "Monet")
    tab.waits_for("the second painting", lambda: len(tab.all("article.bot img")) == 2)

    tab.sees("article.bot", "Painted: Monet")
    tab.click("article.bot .picture")
    slider = tab.sees("#viewer-slider")
    tab.waits_for("its photo", lambda: tab.has_picture("#viewer-stage") == (451, 300))
    assert tab.focused() == slider
    for _ in range(10):
        tab.press(Keys.ARROW_RIGHT)
    clip = "return getComputedStyle(document.querySelector('#viewer-before')).clipPath"
    assert "40%" in tab.driver.execute_script(clip)
    assert tab.sees("#viewer-place").text == "2 / 2"
    save = tab.sees("#viewer-save")
    assert save.get_attribute("download") == "Painted-Monet-2-s.jpg"
    tab.click("#viewer-previous")
    tab.sees("#viewer-caption", "Vintage")
    tab.sees("#viewer-close").send_keys(Keys.ARROW_RIGHT)
    tab.sees("#viewer-caption", "Monet")
    tab.click("#viewer-close")

    tab.click("article.user .picture")
    tab.sees("#viewer-caption", "Your picture")
    assert not tab.driver.find_element(By.ID, "viewer-slider").is_displayed()
    assert not tab.driver.find_element(By.ID, "viewer-next").is_displayed()
    tab.click("#viewer-close")

    # Its photo is known also where another one of the same shape has come meanwhile.
    painter.may_finish.clear()
    tab.click(".keys button", "Monet")
    tab.sees("article.bot", "Painting your photo")
    tab.pick(ROOT / "examples/photos/coffee.jpg")
    tab.waits_for("the next question", lambda: len(tab.all(".keys button[data-data*=monet]")) == 2)
    painter.may_finish.set()
    tab.waits_for("the painting", lambda: "Painted: Monet" in tab.texts("article")[-1])
    tab.click("article:last-child .picture")
    tab.waits_for("its photo", lambda: tab.has_picture("#viewer-stage") == (451, 300))
    assert tab.complaints() == []


def test_a_film_plays(browser: Browser, chat: Chat) -> None:
    tab = browser.open()
    tab.click("#start")
    tab.sees("article.bot", "Hello")
    film = io.BytesIO()
    frames = [Image.new("RGB", (96, 64), color) for color in ("red", "green", "blue")]
    frames[0].save(film, "GIF", save_all=True, append_images=frames[1:], duration=200)
    files = {"animation": ("film.gif", film.getvalue())}
    chat.call("sendAnimation", files=files, chat_id=USER, caption="How it came about.")
    tab.sees("article.bot p", "How it came about")
    tab.waits_for("the film", lambda: tab.has_picture("article.bot") == (96, 64))
    files = {"animation": ("film.mp4", b"not really a video")}
    chat.call("sendAnimation", files=files, chat_id=USER, width=96, height=64)
    video = tab.sees("article.bot video")
    assert video.get_attribute("loop")
    tab.waits_for("its source", lambda: bool(video.get_attribute("src")))
    assert not tab.all("article.bot .file")


def test_a_hidden_tab_tells_that_a_picture_is_finished(browser: Browser, chat: Chat) -> None:
    tab = browser.open()
    tab.click("#start")
    tab.sees("article.bot", "Hello")
    assert tab.sees("#bell"), "the browser is asked only after a gesture"
    permission = {"permissions": ["notifications"], "origin": chat.url}
    tab.driver.execute_cdp_cmd("Browser.grantPermissions", permission)
    tab.driver.execute_script(HIDE)
    chat.call(
        "sendPhoto", files={"photo": PHOTO.read_bytes()}, chat_id=USER, caption="Half\n▓░ 50%"
    )
    tab.sees("article.bot", "Half")
    question = {"inline_keyboard": [[{"text": "Monet", "callback_data": "style:monet"}]]}
    chat.call("sendMessage", chat_id=USER, text="Who?", reply_markup=question)
    tab.sees("article.bot", "Who?")
    chat.call("sendPhoto", files={"photo": PHOTO.read_bytes()}, chat_id=USER, caption="Painted: A.")
    tab.waits_for("the title", lambda: tab.driver.title == "● Painted: A · stylebot")
    assert tab.driver.execute_script("return told") == [["Your painting is ready", "Painted: A"]]
    tab.driver.execute_script("hide(false)")
    assert tab.driver.title == "stylebot"


def test_files_come_by_paste_and_drop_and_leave_untouched(
    browser: Browser, painter: Painter
) -> None:
    tab = browser.open()
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
    tab.waits_for("the painting", tab.has_painting)
    assert painter.storage.list_keys("chats/")


def test_a_painters_button_shows_how_it_paints(browser: Browser, chat: Chat) -> None:
    folder = chat.folder / "button-pictures"
    folder.mkdir()
    picture_path(folder, "style:monet").write_bytes(PHOTO.read_bytes())
    picture_path(folder, "style:vangogh").write_bytes(b"no picture")
    tab = browser.open()
    tab.pick(PHOTO)
    tab.sees(".keys button", "Monet")
    tab.waits_for("its picture", lambda: tab.has_picture(".keys") == (451, 300))
    tab.waits_for("no broken picture", lambda: len(tab.all(".keys img")) == 1)

    # A painter that came a moment ago has its picture at the next question.
    picture_path(folder, "style:vintage").write_bytes(STYLE.read_bytes())
    tab.write("/help")
    tab.write("nobody")
    tab.sees("article.bot", "I do not have this painter")
    tab.waits_for("two pictures", lambda: len(tab.all("article:last-child .keys img")) == 2)
    tab.click(".keys button", "Vintage")
    tab.waits_for("the painting", tab.has_painting)
    assert tab.complaints() == []


def test_what_comes_under_the_pointer_does_not_act_at_once(
    browser: Browser, painter: Painter
) -> None:
    tab = browser.open()
    tab.pick(PHOTO)
    vintage = tab.sees(".keys button", "Vintage")
    tab.driver.execute_script("onclick = ({x, y}) => { window.pointer = [x, y]; }")
    painter.may_finish.clear()
    tab.waits_until_it_acts(vintage)
    tab.mouse().move_to_element(vintage).click().perform()
    cancel = tab.sees(".keys button", "Cancel")
    tab.waits_for("Cancel under the pointer", lambda: tab.driver.execute_script(IS_HIT, cancel))
    tab.mouse().click().perform()
    tab.waits_for("a preview", lambda: tab.has_progress() and tab.has_preview())
    assert "Cancelled" not in tab.sees("#log").text

    cancel = tab.sees(".keys button", "Cancel")
    tab.waits_until_it_acts(cancel)
    assert tab.driver.execute_script(IS_HIT, cancel), "the preview has moved it"
    tab.mouse().click().perform()
    tab.sees("article.bot", "Cancelled")


def test_a_second_press_of_the_same_button_does_nothing(browser: Browser) -> None:
    tab = browser.open()
    tab.pick(PHOTO)
    vintage = tab.sees(".keys button", "Vintage")
    tab.driver.execute_script(PRESS_TWICE, vintage)
    tab.waits_for("the painting", tab.has_painting)
    tab.waits_for("the second press", lambda: tab.driver.execute_script("return pressed === 2"))
    tab.write("/help")
    tab.sees("article.bot", "Send me a photo")
    assert "I am still painting" not in tab.sees("#log").text
    tab.click(".keys button", "Vintage")  # a while later it paints the photo again
    tab.waits_for("the second painting", lambda: len(tab.all("article.bot img")) == 2)


def test_a_screen_reader_hears_who_speaks_and_how_far_a_painting_is(
    browser: Browser, chat: Chat
) -> None:
    tab = browser.open()
    tab.pick(PHOTO)
    tab.sees("article.bot", "Choose a painter")
    assert tab.sees("article.user .apart").get_attribute("textContent") == "You:"
    assert tab.sees("article.bot .apart").get_attribute("textContent") == "stylebot:"
    assert tab.sees("article.user img").get_attribute("alt") == "Your picture"

    tab.driver.execute_script(LISTEN)
    cancel = {"inline_keyboard": [[{"text": "Cancel", "callback_data": "cancel:0"}]]}
    status = chat.call("sendMessage", chat_id=USER, text="Painting", reply_markup=cancel)
    edit = {"chat_id": USER, "message_id": status["message_id"]}
    tab.sees(".keys button", "Cancel").send_keys("")
    for percent in (0, 7, 26, 31, 49, 50, 99):
        line = f"▓▓░░░░░░░░ {percent}%, about 9 s left"
        chat.call("editMessageText", text=f"Painting\n{line}", reply_markup=cancel, **edit)
        tab.sees("article.bot", f"{percent} %")
        assert tab.focused().text == "Cancel"
    heard = tab.driver.execute_script("return heard")
    assert heard == [f"Painting {n}%, about 9 s left" for n in (0, 26, 50, 99)]
    assert tab.driver.execute_script("return spoken.childNodes.length") == 1
    progress = tab.sees("article.bot progress")
    assert progress.get_attribute("aria-label") == "99%, about 9 s left"

    picture = {
        "type": "photo",
        "media": "attach://file",
        "caption": "Painted: Monet, 2 s. Change it.",
    }
    files = {"file": PHOTO.read_bytes()}
    chat.call("editMessageMedia", files=files, media=picture, reply_markup=cancel, **edit)
    tab.sees("article.bot p", "Painted: Monet")
    assert tab.driver.execute_script("return heard.at(-1)") == picture["caption"]
    assert tab.focused().text == "Cancel"
    assert tab.sees("article.bot img").get_attribute("alt") == "Painted: Monet, 2 s"
    again = {"inline_keyboard": [[{"text": "Again", "callback_data": "again"}]]}
    chat.call("editMessageCaption", caption="Painted", reply_markup=again, **edit)
    tab.sees(".keys button", "Again")
    assert tab.focused().tag_name == "article"
    chat.call("deleteMessage", **edit)
    focused = "return document.activeElement.textContent"
    tab.waits_for(
        "the focus in the message before",
        lambda: "Choose" in tab.driver.execute_script(focused),
    )


def test_a_screen_reader_finds_a_name_for_everything_and_does_not_read_the_past(
    browser: Browser, chat: Chat
) -> None:
    offer_painters(chat)
    tab = browser.open()
    tab.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": NOTE_LIVE})
    tab.pick(PHOTO)
    tab.sees(".keys button", "Monet")
    check_names(tab)
    tab.click("#studio-open")
    tab.sees("#studio-painters .sample", "Monet")
    check_names(tab)

    tab.driver.refresh()
    tab.sees(".keys button", "Monet")
    tab.waits_for("a live log", lambda: bool(tab.all("#log[aria-live=polite]")))
    assert tab.driver.execute_script("return lives") == ["off", "off"]
    tab.write("/help")
    tab.sees("article.bot", "Send me a photo")
    assert tab.driver.execute_script("return lives.at(-1)") == "polite"


def check_names(tab: Tab) -> None:
    """Check that whatever can be used has a name, and that none is said twice."""
    for node in tab.accessible():
        role = node["role"]["value"]
        name = node.get("name", {}).get("value", "")
        if role in ("button", "combobox", "dialog", "log", "slider", "textbox", "toolbar"):
            assert name, f"{role} without a name"
        assert node.get("description", {}).get("value") != name or not name
        assert "✓" not in name


def test_the_chat_can_be_used_without_a_mouse(browser: Browser) -> None:
    tab = browser.open()
    tab.sees("#start")
    assert tab.focused().get_attribute("id") == "text"
    tab.pick(PHOTO)
    tab.sees("article.bot", "Choose a painter")
    tab.focused().send_keys(Keys.ESCAPE)
    tab.driver.execute_script("document.querySelector('#text').focus()")
    for _ in range(3):
        tab.press(Keys.SHIFT, Keys.TAB)
    # Of a keyboard Tab reaches one button, and the arrows the others.
    assert tab.focused().text == "Monet"
    for key, name in (
        (Keys.ARROW_RIGHT, "Van Gogh"),
        (Keys.ARROW_DOWN, "Ukiyo-e"),
        (Keys.ARROW_LEFT, "Cezanne"),
        (Keys.ARROW_UP, "Monet"),
        (Keys.END, "Vintage"),
    ):
        tab.press(key)
        assert tab.focused().text == name
    tab.press(Keys.ENTER)
    tab.waits_for("the painting", tab.has_painting)
    tab.press(Keys.ESCAPE)
    assert tab.focused().get_attribute("id") == "text"

    tab.driver.refresh()
    tab.sees("article.bot")
    tab.driver.execute_script("document.body.tabIndex = -1; document.body.focus()")
    tab.press(Keys.TAB)
    assert tab.focused().text == "To the message box"
    tab.press(Keys.ENTER)
    assert tab.focused().get_attribute("id") == "text"


def test_a_command_in_what_the_bot_says_can_be_clicked(browser: Browser, chat: Chat) -> None:
    tab = browser.open()
    tab.write("/help")
    tab.click("article.bot .command", "/cancel")
    tab.sees("article.bot", "There is nothing to cancel")
    assert "/cancel" in tab.texts("article.user")[-1]
    chat.call("sendMessage", chat_id=USER, text="no/command /tmp/file http://x/y 1/2 (/start).")
    tab.sees("article.bot", "/tmp/file")
    # A message that has just come fades in, and has no text for Selenium until then
    tab.waits_for("the command", lambda: tab.texts("article:last-child .command") == ["/start"])


def test_commands_are_offered_and_words_are_words(browser: Browser) -> None:
    tab = browser.open()
    tab.sees("#empty")
    tab.sees("#text").send_keys("/he")
    assert tab.sees("#commands button").text.startswith("/help")
    tab.sees("#text").send_keys(Keys.ARROW_UP)
    tab.driver.switch_to.active_element.send_keys(Keys.ENTER)
    tab.sees("article.user", "/help")
    tab.sees("article.bot", "Send me a photo")
    tab.click("#commands-button")
    tab.waits_for("all commands", lambda: len(tab.all("#commands button")) > 3)
    tab.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    tab.waits_for("no commands", lambda: not tab.all("#commands:not([hidden])"))
    tab.write("<img src=x onerror=alert(1)><b>bold</b>")
    tab.sees("article.user:not(.sending) p", "<img src=x onerror=alert(1)><b>bold</b>")
    assert not tab.all("article b, article img")
    assert tab.complaints() == []


def test_all_tabs_show_one_chat_and_are_live(browser: Browser) -> None:
    one = browser.open()
    one.click("#start")
    one.sees("article.bot", "Hello")
    two = browser.open()
    two.sees("article.bot", "Hello")
    for number in range(5):
        one.write(f"from one {number}")
        two.write(f"from two {number}")
    for tab in (one, two):
        tab.sees("article.user:not(.sending)", "from one 4")
        tab.sees("article.user:not(.sending)", "from two 4")
    two.write("/cancel")  # it is answered also where the bot is behind
    one.sees("article.bot", "nothing to cancel")
    two.sees("article.bot", "nothing to cancel")
    assert one.texts("article.user") == two.texts("article.user")
    assert len(one.texts("article.user")) == 12

    two.driver.switch_to.new_window("tab")
    two.driver.get(f"{browser.chat.url}/#{KEY}")
    two.sees("article.bot", "nothing to cancel")
    two.driver.refresh()
    two.sees("article.bot", "nothing to cancel")


def test_what_goes_wrong_is_told_in_words(browser: Browser, chat: Chat, tmp_path: Path) -> None:
    tab = browser.open()
    (tmp_path / "empty.jpg").touch()
    Image.new("RGB", (8, 8)).save(tmp_path / "tiny.png")
    Image.new("1", (7000, 5900)).save(tmp_path / "huge.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    for name, why in (
        ("empty.jpg", "empty.jpg is empty"),
        ("tiny.png", f"tiny.png is too small. It needs {MIN_SIDE} pixels"),
        ("huge.png", f"huge.png is too large. At most {MAX_MEGAPIXELS} megapixels"),
        ("broken.jpg", "broken.jpg is no picture that can be read"),
    ):
        tab.pick(tmp_path / name)
        tab.sees(".failed", why)
        assert "Try again" not in tab.sees(".failed", why).text, "it would be refused again"
        if name != "broken.jpg":
            tab.click(".failed button", "Remove")
    tab.sees("article.user .file", "broken.jpg")
    tab.write("/help")
    tab.sees("article.bot", "Send me a photo")
    failed, help_, answer = tab.texts("article")
    assert "Not sent" in failed, "a message is below what came later"
    assert "/help" in help_
    assert "Send me" in answer
    assert re.search(r"\d:\d\d", failed), "it does not tell its time"
    tab.click(".failed button", "Remove")
    chat.kill()
    tab.sees("#status.bad", "No connection")
    tab.write("/start")
    tab.sees(".failed", "no connection")
    tab.shoot("offline")
    chat.start()
    tab.waits_for("the connection", lambda: not tab.all("#status.bad"))
    tab.write("/help")
    tab.sees("article.user:not(.sending)", "/help")
    tab.waits_for("an answer", lambda: "Send me" in tab.texts("article")[-1])
    tab.click(".failed button", "Try again")
    tab.sees("article.bot", "Hello", seconds=60)
    assert ["/start" in text or "Hello" in text for text in tab.texts("article")[-2:]] == [
        True,
        True,
    ]
    tab.driver.get("about:blank")
    tab.driver.get(f"{chat.url}/#another-key")
    tab.sees("#status.bad", "Open the address that the program shows")
    tab.shoot("wrong-key")
