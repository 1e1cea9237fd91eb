"""Whole conversations, and what a user sees."""

from __future__ import annotations

import pytest
from bot_world import World, eventually, made_of


def test_a_photo_and_a_painter(world: World) -> None:
    world.start()
    anna = world.user()
    anna.write("/start")
    anna.sees("Hello", "send me the photo")
    anna.photo(b"my garden")
    question = anna.sees("Got your photo", "choose a painter")
    assert list(question.buttons) == ["Monet", "Van Gogh", "Cezanne", "Ukiyo-e"]
    anna.press(question, "Van Gogh")
    painting = anna.sees("Van Gogh", "12 s", kind="photo")
    assert made_of(painting)["content"] == "my garden"
    assert made_of(painting)["style"] == "vangogh"
    assert set(painting.buttons) == {"Another style", "Softer", "As a file"}
    eventually(lambda: not world.storage.keys("jobs/") + world.storage.keys("async/"), "the job's objects are gone")
    eventually(lambda: not any("Painting your" in m.text for m in anna.messages()), "the status message is gone")
