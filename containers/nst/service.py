"""Neural style transfer as a model of the HTTP server."""

import math
import os
from collections.abc import Callable
from functools import cache, partial

import torch
from flask import Flask
from PIL import Image
from torch import Tensor

from containers.common.device import (
    best_device,
    device_report,
    gpu_errors,
    peak_gpu_memory,
    working_precision,
)
from containers.common.errors import DivergedError, InvalidParameterError
from containers.common.log import write_log
from containers.common.parameters import ParameterValues
from containers.common.tensors import to_image, to_tensor
from containers.serving.app import create_app
from containers.serving.model import Facts, Inputs, Picture, Progress, Report, Service

from . import nst
from .options import MAX_STEPS, MAX_STYLES, Options, check
from .parameters import BATCH_COLUMNS, PARAMETERS
from .regions import check_masks
from .sizes import Estimate
from .vgg import VGG19

# An invocation of SageMaker ends after an hour at most; the rest is for reading and writing.
MAX_SECONDS = 3300


class StyleTransfer:
    """VGG-19 on the best device.

    weights: see VGG19. max_seconds: for one picture. announce: told what a large picture will
        take, before the work on it.
    """

    def __init__(
        self,
        weights: str = "original",
        max_seconds: float = math.inf,
        announce: Callable[[Estimate], None] | None = None,
    ) -> None:
        self.max_seconds = max_seconds
        self.announce = announce
        device = best_device()
        self.network = VGG19(weights).to(device).to_precision(working_precision(device))
        self.warm_up()

    def warm_up(self) -> None:
        """Stylize a tiny picture, to test the model.

        It also loads what PyTorch loads at its first use, before the first request.
        """
        gray = torch.full((3, 32, 32), 0.5)
        options = Options(size=32, max_epochs=1, n_steps_in_epoch=2)
        nst.stylize(gray, [gray], options, self.network, lambda _: False)

    def styles(self) -> list[str]:
        return []

    def stylize(
        self,
        inputs: Inputs,
        options: ParameterValues,
        report: Report,
    ) -> Picture:
        preview: Callable[[], Image.Image] | None = None

        def callback(step: nst.Step) -> bool:
            nonlocal preview
            # Made when it is asked for, and once: it is shown until the next scale is finished.
            picture = cache(partial(to_image, step.image[0]))
            if step.can_be_shown:
                preview = picture
            progress = Progress(step.number, step.total, step.done, step.loss, preview, picture)
            return report(progress)

        try:
            with gpu_errors():
                result = nst.stylize(
                    to_tensor(inputs.content),
                    map(to_tensor, inputs.styles),
                    Options(**options),
                    self.network,
                    callback,
                    max_seconds=self.max_seconds,
                    masks=list(map(to_mask, inputs.masks)),
                    announce=self.announce,
                )
        except FloatingPointError:
            raise DivergedError(
                "No finite picture came out of these parameters. "
                "Leave the weights and lr at their defaults."
            ) from None
        except ValueError as error:
            raise InvalidParameterError(str(error)) from None

        facts: Facts = {"steps": result.steps, "loss": result.loss}
        gpu_memory = peak_gpu_memory()
        if gpu_memory is not None:
            facts["gpu_memory_mb"] = gpu_memory
        return Picture(to_image(result.image), facts, result.notes)


def load() -> StyleTransfer:
    write_log("device", **device_report(best_device()))
    return StyleTransfer(os.environ.get("NST_WEIGHTS", "original"), MAX_SECONDS, log_estimate)


def log_estimate(found: Estimate) -> None:
    megabytes = round(found.memory / 1e6)
    write_log("estimate", size=found.size, seconds=round(found.seconds), memory_mb=megabytes)


def to_mask(image: Image.Image) -> Tensor:
    """Return a gray picture, which is decoded as RGB, as a mask (1, 1, H, W) in 0..1."""
    return to_tensor(image).mean(0)[None, None]


def check_options(options: ParameterValues, style_count: int, mask_count: int) -> None:
    try:
        check(Options(**options), style_count, mask_count)
    except ValueError as error:
        raise InvalidParameterError(str(error)) from None


def check_inputs(inputs: Inputs) -> None:
    try:
        check_masks(list(map(to_mask, inputs.masks)), inputs.content.size)
    except ValueError as error:
        raise InvalidParameterError(str(error)) from None


def service() -> Service:
    return Service(
        name="nst",
        summary="a photograph in the style of any picture (neural style transfer)",
        styled_by_image=True,
        parameters=PARAMETERS,
        batch_columns=BATCH_COLUMNS,
        load=load,
        check_options=check_options,
        check_inputs=check_inputs,
        limits={"max_styles": MAX_STYLES, "max_steps": MAX_STEPS, "max_seconds": MAX_SECONDS},
    )


def app() -> Flask:
    return create_app(service())
