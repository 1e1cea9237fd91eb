"""A model that needs no PyTorch: it inverts the photograph, and does on request what models do on bad days."""

import os
import time
from typing import Any

from flask import Flask
from PIL import Image, ImageOps

from containers.common.parameters import Parameter
from containers.serving.app import create_app
from containers.serving.errors import RequestError
from containers.serving.model import FatalError, Picture, Progress, Report, Service

PARAMETERS = (
    Parameter("style_name", str, "what to do"),
    Parameter("steps", int, "of 0.1 s each", 0, 1000),
)


class Inverter:
    def styles(self) -> list[str]:
        return ["negative"]

    def paint(
        self,
        content: Image.Image,
        styles: list[Image.Image],
        options: dict[str, Any],
        report: Report,
    ) -> Picture:
        name, steps = (
            options.get("style_name", "negative"),
            options.get("steps", int(os.environ.get("FAKE_STEPS", "0"))),
        )
        if name == "crash":
            raise RuntimeError("a secret detail")
        if name == "fatal":
            raise FatalError("CUDA error: an illegal memory access was encountered")
        if name != "negative":
            raise RequestError(
                404, "unknown_style", f"There is no style {name!r}. Choose one of: negative."
            )
        painted, taken = ImageOps.invert(content), 0
        for step in range(steps):
            time.sleep(0.1)
            taken = step + 1
            if report(Progress(taken, steps, taken / steps, 0.5, lambda: painted)):
                break
        return Picture(painted, {"steps": taken}, ["It is a negative."])


def load() -> Inverter:
    time.sleep(float(os.environ.get("FAKE_LOAD_SECONDS", "0")))
    if os.environ.get("FAKE_LOAD_FAILS"):
        raise FileNotFoundError("the weights are missing")
    return Inverter()


def app() -> Flask:
    return create_app(
        Service("fake", "a negative of a photograph", False, PARAMETERS, ("steps",), load)
    )


BOTS = (
    Parameter("style_name", str, "what to do"),
    *[Parameter(n, float, "ignored") for n in ("strength", "time_budget")],
)
BOTS += (Parameter("preserve_color", bool, "ignored"),)


def nst() -> Flask:
    """In place of NST, as the bot calls it."""
    return create_app(Service("fake", "a negative of a photograph", True, BOTS, (), load))


def cyclegan() -> Flask:
    """In place of the painters, as the bot calls them."""
    return create_app(Service("fake", "a negative of a photograph", False, BOTS, (), load))
