"""Neural style transfer behind the HTTP contract."""

import os
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

from . import nst
from .parameters import BATCH_COLUMNS, PARAMETERS
from .vgg import VGG19


class StyleTransfer:
    """VGG-19 on the best device there is."""

    def __init__(self, weights: str = "original") -> None:
        device = best_device()
        self.network = VGG19(weights).to(device).to_precision(working_precision(device))
        # Proves that it can paint, and has what PyTorch loads at first use loaded before the first request
        grey = torch.full((3, 32, 32), 0.5)
        nst.stylize(
            grey,
            [grey],
            nst.Options(size=32, max_epochs=1, n_steps_in_epoch=2),
            self.network,
            lambda _: False,
        )

    def styles(self) -> list[str]:
        return []

    def paint(
        self,
        content: Image.Image,
        styles: list[Image.Image],
        options: dict[str, Any],
        report: Report,
    ) -> Picture:
        def callback(step: nst.Step) -> bool:
            def preview() -> Image.Image:
                return to_image(step.image[0])

            return report(Progress(step.number, step.total, step.done, step.loss, preview))

        try:
            with gpu_faults():
                tensors = [to_tensor(style) for style in styles]
                result = nst.stylize(
                    to_tensor(content), tensors, nst.Options(**options), self.network, callback
                )
        except FloatingPointError:
            message = "No finite picture came out of these parameters. Leave the weights and lr at their defaults."
            raise RequestError(400, "diverged", message) from None
        except ValueError as error:
            raise bad_request(str(error)) from None
        facts = {"steps": result.steps, "loss": result.loss, **gpu_memory()}
        return Picture(to_image(result.image), facts, result.notes)


def load() -> StyleTransfer:
    write_log(event="device", **device_report(best_device()))
    return StyleTransfer(os.environ.get("NST_WEIGHTS", "original"))


def service() -> Service:
    return Service(
        name="nst",
        summary="a photograph, painted in the style of any picture (neural style transfer)",
        styled_by_image=True,
        parameters=PARAMETERS,
        batch_columns=BATCH_COLUMNS,
        load=load,
    )


def app() -> Flask:
    return create_app(service())
