"""CycleGAN's painters behind the HTTP contract."""

import os
from pathlib import Path
from typing import Any

import torch
from flask import Flask
from PIL import Image

from containers.common.device import best_device, working_precision
from containers.common.tensors import to_image, to_tensor
from containers.gpu import device_report, gpu_faults, gpu_memory
from containers.serving.app import create_app, write_log
from containers.serving.errors import RequestError, bad_request
from containers.serving.model import Picture, Progress, Report, Service

from .generator import CheckpointError, Generator, find_styles, load_generator, paint
from .parameters import BATCH_COLUMNS, PARAMETERS
from .weights import DIRECTORY as BAKED

DEFAULT_BOX = (800, 600)


class Painters:
    """One generator for each checkpoint of a directory, all loaded once.

    A checkpoint that cannot be used is left out, and why is told to whoever asks for it. Raises CheckpointError
    where none is left.
    """

    def __init__(self, directory: Path) -> None:
        device = best_device()
        self.generators: dict[str, Generator] = {}
        self.refused: dict[str, str] = {}
        for name, path in find_styles(directory).items():
            try:
                generator = load_generator(path, device, working_precision(device))
                paint(generator, torch.full((1, 3, 16, 16), 0.5))  # proves it
                self.generators[name] = generator
            except (CheckpointError, FloatingPointError) as error:
                self.refused[name] = str(error)
        if not self.generators:
            reasons = " ".join(self.refused.values()) or "There is no .pth file in it."
            raise CheckpointError(f"No style can be served from {directory}. {reasons}")

    def styles(self) -> list[str]:
        return list(self.generators)

    def paint(
        self,
        content: Image.Image,
        styles: list[Image.Image],
        options: dict[str, Any],
        report: Report,
    ) -> Picture:
        generator = self.generator(options.get("style_name"))
        longest = options.get("size")
        content.thumbnail((longest, longest) if longest else DEFAULT_BOX, Image.Resampling.LANCZOS)

        def on_progress(done: float) -> None:
            report(Progress(round(100 * done), 100, done))

        with gpu_faults():
            image = to_tensor(content, generator.device)[None]
            painting = to_image(
                paint(generator, image, options.get("strength", 1.0), on_progress)[0]
            )
        return Picture(painting, {"style_name": options["style_name"], **gpu_memory()})

    def generator(self, name: str | None) -> Generator:
        known = ", ".join(self.generators)
        if not name:
            raise bad_request(f"style_name is missing. Choose one of: {known}.")
        if name in self.refused:
            raise RequestError(
                404, "unknown_style", f"The style {name} could not be loaded. {self.refused[name]}"
            )
        if name not in self.generators:
            raise RequestError(
                404, "unknown_style", f"There is no style {name[:40]!r}. Choose one of: {known}."
            )
        return self.generators[name]


def model_directory() -> Path:
    """What the platform mounted, if it holds any checkpoint; otherwise the image's own.

    Raises PermissionError where it cannot be looked into: other styles than those that were mounted would surprise.
    """
    mounted = Path(os.environ.get("MODEL_DIR", "/opt/ml/model"))
    if mounted.is_dir() and not os.access(mounted, os.R_OK | os.X_OK):
        raise PermissionError(
            f"{mounted} cannot be read by user {os.geteuid()}. Make it readable: chmod -R a+rX"
        )
    return mounted if find_styles(mounted) else BAKED


def load() -> Painters:
    write_log(event="device", **device_report(best_device()))
    painters = Painters(model_directory())
    for name, reason in painters.refused.items():
        write_log(event="style refused", style=name, reason=reason)
    return painters


def service() -> Service:
    return Service(
        name="cyclegan",
        summary="a photograph, painted by one of the painters that a CycleGAN has learnt",
        styled_by_image=False,
        parameters=PARAMETERS,
        batch_columns=BATCH_COLUMNS,
        load=load,
    )


def app() -> Flask:
    return create_app(service())
