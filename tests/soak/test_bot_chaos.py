"""The bot is killed with SIGKILL a hundred times while fifty people talk to it; nothing is lost."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.fakes.names import eventually
from tests.fakes.telegram import Message, User
from tests.fakes.world import World

KILLS, CHATS, SEED = 100, 50, 20260101
PAINTERS = ("Monet", "Van Gogh", "Cezanne", "Ukiyo-e")


@dataclass
class Person:
    """Somebody who asks for one painting after the other, and sometimes changes their mind."""

    user: User
    dice: random.Random
    accepted: list[str] = field(default_factory=list)
    cancelled: dict[str, int] = field(default_factory=dict)  # request: the message that said so
    trouble: str = ""

    def live(self, stop: threading.Event) -> None:
        number = 0
        try:
            while not stop.is_set():
                number += 1
                self.ask(f"{self.user.chat}-{number}")
                stop.wait(self.dice.uniform(0, 3))
        except AssertionError as error:
            self.trouble = str(error)

    def ask(self, request: str) -> None:
        user = self.user
        while "Choose a painter" not in (question := self.offer(request)).text:
            time.sleep(1)  # the bot was killed after the last picture, before it could record that
        if self.dice.random() < 0.7:
            user.press(question, self.dice.choice(PAINTERS))
        else:
            user.photo(b"a style")
        user.sees("Painting", seconds=90)
        self.accepted.append(request)
        if self.dice.random() < 0.25:
            time.sleep(self.dice.uniform(0, 1.5))
            user.write("/cancel")
            answer = user.sees("send me the photo", seconds=90)
            if "Cancelled" in answer.text:
                self.cancelled[request] = answer.id
                return
        user.cursor = 0
        eventually(lambda: self.pictures(request), f"the picture of {request}", 120)

    def offer(self, request: str) -> Message:
        """Send a photo. Returns what the bot says to it, whatever else it repeats after a kill."""
        self.user.photo(request.encode())
        said = ("Choose a painter", "still painting")

        def found() -> Message | None:
            new = [m for m in self.user.messages() if m.id > self.user.cursor]
            return next((m for m in new if any(words in m.text for words in said)), None)

        message: Message = eventually(found, f"an answer to the photo {request}", 90)
        return message

    def pictures(self, request: str) -> list[int]:
        photos = [m for m in self.user.messages() if m.kind == "photo"]
        return [m.id for m in photos if json.loads(m.file)["content"] == request]


def test_killed_again_and_again(world: World) -> None:
    dice = random.Random(SEED)
    world.endpoint.seconds = 0.5
    world.telegram.media_edits = True  # as in Telegram: what makes a third copy impossible
    people = [Person(world.user(), random.Random(SEED + i)) for i in range(CHATS)]
    stop = threading.Event()
    threads = [threading.Thread(target=person.live, args=(stop,), daemon=True) for person in people]
    world.start()
    for thread in threads:
        thread.start()
    for _ in range(KILLS):
        time.sleep(dice.uniform(0.2, 3.5))  # from its first imports to well into its work
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
