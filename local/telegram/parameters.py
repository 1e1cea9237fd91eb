"""The parameters of a Bot API call."""

from __future__ import annotations

import json
import re
from typing import Any

from flask import Request

from local.telegram.errors import bad_request
from local.telegram.store import Button, Content

TEXT_CHARACTERS = 4096
CAPTION_CHARACTERS = 1024
CALLBACK_DATA_BYTES = 64


class Parameters:
    """The values and files of a call. The values may come in the query, in a form, or as JSON."""

    def __init__(self, request: Request) -> None:
        """Raises ApiError where the JSON cannot be read."""
        body: object = {}
        if request.is_json and request.get_data():
            body = request.get_json(silent=True)
        if not isinstance(body, dict):
            raise bad_request("can't parse the request's JSON object")
        self.values: dict[str, Any] = {**request.args, **request.form, **body}
        self.files = request.files

    def text(self, name: str) -> str:
        value = self.values.get(name)
        if value is None:
            return ""
        return str(value)

    def number(self, name: str, default: int = 0) -> int:
        """Return the integer. What is no integer reads as 0, as it does at Telegram."""
        value = self.text(name) or str(default)
        if not re.fullmatch(r"-?[0-9]{1,18}", value):
            return 0
        return int(value)

    def json(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """Return an object or a list, which in a form is JSON. Raises ApiError."""
        value = self.values.get(name)
        if not isinstance(value, str) or not value:
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise bad_request(f"can't parse {name} JSON object") from None

    def text_content(self) -> Content:
        """Return the content of a text message. Raises ApiError."""
        text = self.text("text").strip()
        if not text:
            raise bad_request("message text is empty")
        if len(text) > TEXT_CHARACTERS:
            raise bad_request("message is too long")
        return Content(text=text, keyboard=self.keyboard())

    def caption_content(self) -> Content:
        """Return the content of a message with a file, without the file. Raises ApiError."""
        caption = self.text("caption").strip()
        if len(caption) > CAPTION_CHARACTERS:
            raise bad_request("message caption is too long")
        return Content(caption=caption, keyboard=self.keyboard())

    def keyboard(self) -> list[list[Button]]:
        """Return the rows of buttons in reply_markup. Raises ApiError."""
        try:
            markup = self.json("reply_markup") or {}
            rows: list[list[Button]] = markup.get("inline_keyboard") or []
            buttons = [button for row in rows for button in row]
            texts = [button["text"] for button in buttons]
            sizes = [len(button["callback_data"].encode()) for button in buttons]
        except (AttributeError, KeyError, TypeError):
            raise bad_request(
                "can't parse inline keyboard button: text and callback_data are needed here"
            ) from None
        if not all(texts) or not all(1 <= size <= CALLBACK_DATA_BYTES for size in sizes):
            raise bad_request("BUTTON_DATA_INVALID")
        return rows
