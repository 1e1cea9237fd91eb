"""The bot is killed with SIGKILL a hundred times while fifty people talk to it; nothing is lost."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from bot import ImageRef
from tests.fakes.names import eventually
from tests.fakes.telegram import Message, User
from tests.fakes.world import World

KILLS, CHATS, SEED = 100, 50, 20260101
STARTS = ("Painting your photo", "Your photo waits")
PAINTERS = ("Monet", "Van Gogh", "Cezanne", "Ukiyo-e")


@dataclass
class Person:
    """Somebody who asks for one painting after the other, and sometimes changes their mind."""

    user: User
    dice: random.Random
    accepted: list[str] = field(default_factory=list)
    cancelled: dict[str, int] = field(default_factory=dict)  # request: the message that said so
    photos: int = 0  # sent so far; the number of the last one is in its name
    photos_by_tag: dict[str, str] = field(default_factory=dict)
    trouble: str = ""

    def live(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                self.ask()
                stop.wait(self.dice.uniform(0, 3))
        except AssertionError as error:
            shown = [message.text for message in self.user.messages()]
            self.trouble = f"{error}; the chat shows at last {shown[-5:]}"

    def ask(self) -> None:
        """Ask for one painting, and wait for it or cancel it."""
        user = self.user
        question = self.offer()
        request = self.photo_above(question)
        while not request or request in self.accepted:
            # It took this photo as the style for the one before, or answered an earlier one again.
            time.sleep(1)
            question = self.offer()
            request = self.photo_above(question)
        if self.dice.random() < 0.7:
            user.press(question, self.dice.choice(PAINTERS))
        else:
            user.photo(b"a style")
            user.press(user.sees("Press Paint", seconds=90), "Paint")
        self.wait_for_start()
        self.accepted.append(request)
        if self.dice.random() < 0.25:
            time.sleep(self.dice.uniform(0, 1.5))
            user.write("/cancel")
            answer = user.sees("send me", kind="text", seconds=90)
            if "Cancelled" in answer.text:
                self.cancelled[request] = answer.id
                return
        user.cursor = 0
        eventually(lambda: self.pictures(request), f"the picture of {request}", 120)

    def offer(self) -> Message:
        """Send a photo. Returns what the bot says to it.

        After a kill the bot may answer an earlier photo again, which looks like the answer to this
        one. The next photo is then the style for this one.
        """
        self.photos += 1
        name = self.photo_name()
        self.user.photo(name.encode())
        self.photos_by_tag[ImageRef(self.user.last_file, is_document=False).tag] = name
        answers = ("Choose a painter", "still painting", *STARTS, "of your paintings")

        def found() -> Message | None:
            for message in self.user.messages():
                is_answer = any(words in message.text for words in answers)
                if message.id > self.user.cursor and is_answer:
                    return message
            return None

        message: Message = eventually(found, f"an answer to the photo {name}", 90)
        return message

    def photo_above(self, question: Message) -> str:
        """Return the photo that the buttons of a question belong to; "": it is no question."""
        data = question.buttons.get("Monet", "")
        return self.photos_by_tag.get(data.rpartition(":")[2], "")

    def wait_for_start(self) -> None:
        def found() -> bool:
            new = [m.text for m in self.user.messages() if m.id > self.user.cursor]
            return any(text.startswith(STARTS) for text in new)

        eventually(found, "the painting is accepted", 90)

    def photo_name(self) -> str:
        return f"{self.user.chat}-{self.photos}"

    def pictures(self, request: str) -> list[int]:
        photos = [m for m in self.user.messages() if m.kind == "photo"]
        return [m.id for m in photos if json.loads(m.file)["content"] == request]


def measure_start(world: World) -> float:
    """Start the bot. Returns by how much it takes longer than a second and a half, at least 1."""
    began = time.monotonic()
    world.start()
    newcomer = world.user()
    newcomer.write("/start")
    newcomer.sees("Hello", seconds=60)
    return max(1.0, (time.monotonic() - began) / 1.5)


def test_killed_again_and_again(world: World) -> None:
    dice = random.Random(SEED)
    world.endpoint.seconds = 0.5
    world.telegram.media_edits = True  # as in Telegram: what makes a third copy impossible
    people = [Person(world.user(), random.Random(SEED + i)) for i in range(CHATS)]
    stop = threading.Event()
    threads = [threading.Thread(target=person.live, args=(stop,), daemon=True) for person in people]
    slowness = measure_start(world)
    for thread in threads:
        thread.start()
    for _ in range(KILLS):
        # From its first imports to well into its work
        time.sleep(slowness * dice.uniform(0.2, 3.5))
        world.kill()
        world.start()
    stop.set()
    for thread in threads:
        thread.join(300)
    assert [p.trouble for p in people if p.trouble] == [], "chats are stuck"

    counts = Counter(len(p.pictures(r)) for p in people for r in p.accepted if r not in p.cancelled)
    late = [
        r for p in people for r, told in p.cancelled.items() if any(m > told for m in p.pictures(r))
    ]
    cancelled = sum(len(p.cancelled) for p in people)
    print(f"{KILLS} kills, pictures for each accepted request: {dict(counts)}")
    print(f"cancelled requests: {cancelled}, pictures that came after: {len(late)}")
    assert set(counts) <= {1, 2}
    assert counts[1] > 200
    assert counts[2] <= KILLS
    assert cancelled > 20
    assert late == [], "pictures came after the user was told that they are cancelled"
    eventually(lambda: not world.storage.list_keys("jobs/"), "no job is left", 90)
