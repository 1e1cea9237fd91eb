"""CycleGAN as a model of the HTTP server."""

import os
from collections.abc import Sequence
from pathlib import Path

from flask import Flask
from PIL import Image

from containers.common.device import (
    best_device,
    device_report,
    gpu_errors,
    peak_gpu_memory,
    working_precision,
)
from containers.common.errors import DivergedError, InvalidParameterError, UnknownStyleError
from containers.common.log import write_log
from containers.common.parameters import ParameterValues
from containers.common.tensors import to_image, to_tensor
from containers.serving.app import create_app
from containers.serving.model import Facts, Inputs, Picture, Progress, Report, Service, StyleLabel

from .bucket import BucketStyles
from .generator import CheckpointError, Generator, stylize
from .parameters import BATCH_COLUMNS, PARAMETERS
from .styles import (
    PAINTERS,
    Style,
    find_checkpoints,
    in_order,
    label_of,
    load_photograph,
    load_style,
    unreadable_names,
)
from .weights import DIRECTORY as FETCHED

DEFAULT_BOX = (800, 600)


class CycleGanModel:
    """The styles of directories of checkpoints, and those of a bucket.

    A checkpoint is loaded when it is asked for first, or by `load_all`. One that cannot be used is
    left out; `refused` has the reason, for whoever asks for that style.

    `stylize` runs for one picture at a time, and the server runs nothing else before `load_all` has
    ended. So only one thread at a time changes `generators` and `refused`.
    """

    def __init__(self, directories: Sequence[Path], bucket: BucketStyles | None = None) -> None:
        """Raises CheckpointError if there is no checkpoint."""
        self.directories = directories
        self.bucket = bucket
        self.device = best_device()
        self.working_precision = working_precision(self.device)
        self.checkpoints = find_checkpoints(directories)
        self.generators: dict[str, Generator] = {}
        self.refused: dict[str, str] = {}
        if not self.checkpoints:
            raise CheckpointError(f"{self.failure()} There is no .pth file in it.")

    def load_all(self) -> None:
        """Load every checkpoint. Raises CheckpointError if none can be used."""
        for file in unreadable_names(self.directories):
            write_log("style ignored", file=file, reason="Its name is not text in UTF-8.")
        for name in in_order(self.checkpoints):
            style = self.load(name)
            if style:
                write_log("style", style=name, **style.facts())
            else:
                write_log("style refused", style=name, reason=self.refused[name])
        if not self.generators:
            raise CheckpointError(f"{self.failure()} {' '.join(self.refused.values())}")

    def load(self, name: str) -> Style | None:
        """Load a checkpoint, which is there. Return None if it cannot be used."""
        path = self.checkpoints[name]
        try:
            style = load_style(path, self.device, self.working_precision)
        except CheckpointError as error:
            self.refused[name] = str(error)
            return None
        self.generators[name] = style.generator
        return style

    def failure(self) -> str:
        places = " and ".join(str(directory) for directory in self.directories)
        return f"No style can be served from {places}."

    # --- the names ---

    def styles(self) -> list[str]:
        names = {name for name in self.checkpoints if name not in self.refused}
        if self.bucket:
            names.update(self.bucket.names())
        return in_order(names)

    def look_for_styles(self) -> list[StyleLabel]:
        if self.bucket:
            self.bucket.look()
        return [StyleLabel(name, label_of(name)) for name in self.styles()]

    def prepare(self, style_name: str) -> None:
        if self.bucket and not self.is_built_in(style_name):
            self.bucket.prepare(style_name)

    def is_built_in(self, name: str) -> bool:
        """Return whether a directory has the style. It hides a style of the bucket."""
        return name in self.checkpoints and name not in self.refused

    # --- pictures ---

    def sample_photograph(self) -> Image.Image:
        return load_photograph()

    def stylize(
        self,
        inputs: Inputs,
        options: ParameterValues,
        report: Report,
    ) -> Picture:
        name = options.get("style_name")
        generator = self.generator(name)
        size = options.get("size")
        box = (size, size) if size else DEFAULT_BOX
        inputs.content.thumbnail(box, Image.Resampling.LANCZOS)

        def on_progress(done: float) -> None:
            report(Progress(round(100 * done), 100, done))

        with gpu_errors():
            image = to_tensor(inputs.content, generator.device)[None]
            strength = options.get("strength", 1.0)
            try:
                stylized = stylize(generator, image, strength, on_progress)[0]
            except FloatingPointError as error:
                raise DivergedError(f"The style {name} gave no picture: {error}.") from None
            result = to_image(stylized)

        facts: Facts = {"style_name": str(name)}
        gpu_memory = peak_gpu_memory()
        if gpu_memory is not None:
            facts["gpu_memory_mb"] = gpu_memory
        return Picture(result, facts)

    def generator(self, name: str | None) -> Generator:
        """Return the generator of a style.

        Raises InvalidParameterError without a name, UnknownStyleError if there is no such style or
        it cannot be used, ApiError if it is in a bucket that fails.
        """
        if not name:
            raise InvalidParameterError(f"style_name is missing. {self.choice()}")
        if self.is_built_in(name) and name not in self.generators:
            self.load(name)
        if name in self.generators:
            return self.generators[name]
        if self.bucket:
            generator = self.bucket.generator(name)
            if generator is not None:
                return generator
        if name in self.refused:
            raise UnknownStyleError(f"The style {name} could not be loaded. {self.refused[name]}")
        raise UnknownStyleError(f"There is no style {name[:40]!r}. {self.choice()}")

    def choice(self) -> str:
        return f"Choose one of: {', '.join(self.styles())}."


def model_directories() -> list[Path]:
    """Return the mounted directory if it has a checkpoint, otherwise the image's own two.

    Raises PermissionError if the mounted one cannot be read: other styles than the mounted ones
    would be a surprise.
    """
    mounted = Path(os.environ.get("MODEL_DIR", "/opt/ml/model"))
    if mounted.is_dir() and not os.access(mounted, os.R_OK | os.X_OK):
        raise PermissionError(
            f"{mounted} cannot be read by user {os.geteuid()}. Make it readable: chmod -R a+rX"
        )
    if find_checkpoints([mounted]):
        return [mounted]
    return [PAINTERS, FETCHED]


def bucket_styles() -> BucketStyles | None:
    """Return the styles at MODELS_URL; None if there are none or the address is no such one."""
    url = os.environ.get("MODELS_URL")
    if not url:
        return None
    device = best_device()
    try:
        return BucketStyles(url, device, working_precision(device))
    except ValueError as error:
        # The other styles can be served all the same
        write_log("styles not listed", reason=str(error))
        return None


def load() -> CycleGanModel:
    write_log("device", **device_report(best_device()))
    model = CycleGanModel(model_directories(), bucket_styles())
    model.load_all()
    return model


def service() -> Service:
    return Service(
        name="cyclegan",
        summary="a photograph in one of the styles that a CycleGAN has learnt",
        styled_by_image=False,
        parameters=PARAMETERS,
        batch_columns=BATCH_COLUMNS,
        load=load,
        has_catalog=True,
    )


def app() -> Flask:
    return create_app(service())
