"""A model without PyTorch: it inverts the photograph, or fails on request as models do."""

import os
import time
from dataclasses import replace
from pathlib import Path, PurePath

from flask import Flask
from PIL import Image, ImageOps

from containers.common.errors import FatalError, UnknownStyleError
from containers.common.parameters import Parameter, ParameterValues
from containers.serving import front, limits, worker
from containers.serving.app import create_app
from containers.serving.model import Inputs, Picture, Progress, Report, Service, StyleLabel
from containers.serving.storage import list_s3

SUMMARY = "a negative of a photograph"

PARAMETERS = (
    Parameter("style_name", str, "what to do", default="negative"),
    Parameter("steps", int, "of 0.1 s each", 0, 1000, default="0"),
)

# What the bot sends to either endpoint.
BOT_PARAMETERS = (
    Parameter("style_name", str, "what to do"),
    Parameter("strength", float, "ignored"),
    Parameter("time_budget", float, "ignored"),
    Parameter("preserve_color", bool, "ignored"),
)


class Inverter:
    """style_name: negative, crash, fatal, or hold, which works until the file FAKE_GATE exists."""

    def styles(self) -> list[str]:
        return ["negative"]

    def stylize(
        self,
        inputs: Inputs,
        options: ParameterValues,
        report: Report,
    ) -> Picture:
        name = options.get("style_name", "negative")
        if name == "crash":
            raise RuntimeError("a secret detail")
        if name == "fatal":
            raise FatalError("CUDA error: an illegal memory access was encountered")
        if name not in (*self.styles(), "hold"):
            raise UnknownStyleError(f"There is no style {name!r}. Choose one of: negative.")

        if name == "hold":
            hold(report)
        negative = ImageOps.invert(inputs.content)
        steps = options.get("steps", int(os.environ.get("FAKE_STEPS", "0")))
        taken = 0
        for step in range(1, steps + 1):
            time.sleep(0.1)
            taken = step
            if report(Progress(step, steps, step / steps, 0.5, lambda: negative)):
                break
        return Picture(negative, {"steps": taken}, ["It is a negative."])


class Painter(Inverter):
    """An Inverter with a catalog. Each object style_NAME.pth below MODELS_URL is a style, too."""

    def styles(self) -> list[str]:
        url = os.environ.get("MODELS_URL")
        if not url:
            return super().styles()
        paths = [PurePath(found.url) for found in list_s3(f"{url}style_", "MODELS_URL")]
        trained = sorted(path.stem.removeprefix("style_") for path in paths)
        return [*super().styles(), *trained]

    def look_for_styles(self) -> list[StyleLabel]:
        return [StyleLabel(name, name.title()) for name in self.styles()]

    def prepare(self, style_name: str) -> None:
        pass

    def sample_photograph(self) -> Image.Image:
        return Image.new("RGB", (36, 24), "teal")


def hold(report: Report) -> None:
    """Wait until the gate is open or the server asks for a result."""
    gate = Path(os.environ["FAKE_GATE"])
    print("holding", flush=True)
    while not gate.exists() and not report(Progress(0, 1, 0.0)):
        time.sleep(0.02)


def load() -> Inverter:
    time.sleep(float(os.environ.get("FAKE_LOAD_SECONDS", "0")))
    if os.environ.get("FAKE_LOAD_FAILS") or Path(os.environ.get("FAKE_GPU_GONE", "-")).exists():
        raise FileNotFoundError("the weights are missing")
    return Inverter()


def load_painter() -> Painter:
    load()
    return Painter()


def app() -> Flask:
    return create_app(Service("fake", SUMMARY, False, PARAMETERS, ("steps",), load))


def nst() -> Flask:
    """Stand in for NST, as the bot calls it."""
    return create_app(Service("fake", SUMMARY, True, BOT_PARAMETERS, (), load))


def cyclegan() -> Flask:
    """Stand in for CycleGAN, as the bot calls it."""
    service = Service("fake", SUMMARY, False, BOT_PARAMETERS, (), load_painter, has_catalog=True)
    return create_app(service)


def nst_interface() -> Flask:
    """NST's own interface; its pictures are negatives."""
    from containers.nst.service import service

    return create_app(replace(service(), load=load))


def cyclegan_interface() -> Flask:
    """CycleGAN's own interface, with one style: negative."""
    from containers.cyclegan.service import service

    return create_app(replace(service(), load=load_painter))


def impatient() -> Flask:
    """A server that waits seconds where others wait minutes, and takes two large bodies at once."""
    limits.HEAD_SECONDS = 1
    worker.CLOSING_SECONDS = 1
    front.WINDOW_SECONDS = 1
    front.ANSWER_SECONDS = 1
    front.MAX_UPLOADS = 2
    return app()
