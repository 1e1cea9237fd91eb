"""CycleGAN as a model of the HTTP server."""

import os
from pathlib import Path

import torch
from flask import Flask
from PIL import Image

from containers.common.device import (
    best_device,
    device_report,
    gpu_errors,
    peak_gpu_memory,
    working_precision,
)
from containers.common.errors import InvalidParameterError, UnknownStyleError
from containers.common.log import write_log
from containers.common.parameters import ParameterValues
from containers.common.tensors import to_image, to_tensor
from containers.serving.app import create_app
from containers.serving.model import Facts, Picture, Progress, Report, Service

from .generator import CheckpointError, Generator, find_styles, load_generator, stylize
from .parameters import BATCH_COLUMNS, PARAMETERS
from .weights import DIRECTORY as BUILT_IN_MODELS

DEFAULT_BOX = (800, 600)


class CycleGanModel:
    """One generator for each checkpoint of a directory, all loaded once.

    A checkpoint that cannot be used is left out; `refused` has the reason, for whoever asks for
    that style.
    Raises CheckpointError if there is no usable checkpoint.
    """

    def __init__(self, directory: Path) -> None:
        device = best_device()
        precision = working_precision(device)
        self.generators: dict[str, Generator] = {}
        self.refused: dict[str, str] = {}
        for name, path in find_styles(directory).items():
            try:
                generator = load_generator(path, device, precision)
                # A test, which also loads what PyTorch loads at its first use
                stylize(generator, torch.full((1, 3, 16, 16), 0.5))
            except (CheckpointError, FloatingPointError) as error:
                self.refused[name] = str(error)
                continue
            self.generators[name] = generator

        if not self.generators:
            reasons = " ".join(self.refused.values()) or "There is no .pth file in it."
            raise CheckpointError(f"No style can be served from {directory}. {reasons}")

    def styles(self) -> list[str]:
        return list(self.generators)

    def stylize(
        self,
        content: Image.Image,
        styles: list[Image.Image],
        options: ParameterValues,
        report: Report,
    ) -> Picture:
        name = options.get("style_name")
        generator = self.generator(name)
        size = options.get("size")
        box = (size, size) if size else DEFAULT_BOX
        content.thumbnail(box, Image.Resampling.LANCZOS)

        def on_progress(done: float) -> None:
            report(Progress(round(100 * done), 100, done))

        with gpu_errors():
            image = to_tensor(content, generator.device)[None]
            strength = options.get("strength", 1.0)
            result = to_image(stylize(generator, image, strength, on_progress)[0])

        facts: Facts = {"style_name": str(name)}
        memory = peak_gpu_memory()
        if memory is not None:
            facts["gpu_memory_mb"] = memory
        return Picture(result, facts)

    def generator(self, name: str | None) -> Generator:
        """Return the generator of a style.

        Raises InvalidParameterError without a name, UnknownStyleError if there is no such style.
        """
        known = ", ".join(self.generators)
        if not name:
            raise InvalidParameterError(f"style_name is missing. Choose one of: {known}.")
        if name in self.refused:
            raise UnknownStyleError(f"The style {name} could not be loaded. {self.refused[name]}")
        if name not in self.generators:
            raise UnknownStyleError(f"There is no style {name[:40]!r}. Choose one of: {known}.")
        return self.generators[name]


def model_directory() -> Path:
    """Return the mounted directory if it has a checkpoint, otherwise the image's own.

    Raises PermissionError if the mounted one cannot be read: other styles than the mounted ones
    would be a surprise.
    """
    mounted = Path(os.environ.get("MODEL_DIR", "/opt/ml/model"))
    if mounted.is_dir() and not os.access(mounted, os.R_OK | os.X_OK):
        raise PermissionError(
            f"{mounted} cannot be read by user {os.geteuid()}. Make it readable: chmod -R a+rX"
        )
    if find_styles(mounted):
        return mounted
    return BUILT_IN_MODELS


def load() -> CycleGanModel:
    write_log("device", **device_report(best_device()))
    model = CycleGanModel(model_directory())
    for name, reason in model.refused.items():
        write_log("style refused", style=name, reason=reason)
    return model


def service() -> Service:
    return Service(
        name="cyclegan",
        summary="a photograph in one of the styles that a CycleGAN has learnt",
        styled_by_image=False,
        parameters=PARAMETERS,
        batch_columns=BATCH_COLUMNS,
        load=load,
    )


def app() -> Flask:
    return create_app(service())
