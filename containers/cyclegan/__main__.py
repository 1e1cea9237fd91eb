"""`python -m containers.cyclegan`: the server, the weights, a training, or one picture."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from containers.common.command_line import add_parameters, dispatch, stylize_file

from .parameters import PARAMETERS

if TYPE_CHECKING:
    from .service import CycleGanModel

DESCRIPTION = """\
CycleGAN: a photograph in one of the styles that it has learnt.

  serve                                 the HTTP server of SageMaker's contract, on port 8080
  weights                               fetch the checkpoints of the styles (45 MB each)
  train --style PICTURE --name NAME     train a painter of your own; `train --help` says more
  PHOTO --style NAME -o OUT             one picture from files, without a server

in Docker:
  docker run --rm --gpus all -p 8080:8080 stylebot-cyclegan serve
  curl -F content=@photo.jpg -F style=monet localhost:8080/invocations -o result.jpg
  docker run --rm --gpus all -v "$PWD:/pictures" -w /pictures \\
      stylebot-cyclegan photo.jpg --style monet -o result.jpg

Your own checkpoints: mount a folder with style_NAME.pth at /opt/ml/model, and NAME is a style.
"""


def stylize(arguments: Sequence[str]) -> int:
    """Stylize the file that the command line names. Return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m containers.cyclegan",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("photo", metavar="PHOTO")
    parser.add_argument(
        "-o", "--output", metavar="OUT", required=True, help="a .jpg, .png or .webp file"
    )
    parser.add_argument(
        "--style", dest="style_name", metavar="NAME", required=True, help="such as monet"
    )
    parser.add_argument("--models", metavar="DIR", help="a folder of checkpoints, style_NAME.pth")
    others = [parameter for parameter in PARAMETERS if parameter.name != "style_name"]
    add_parameters(parser, others)
    given = parser.parse_args(arguments)

    def load() -> "CycleGanModel":
        # Imported here, as PyTorch takes seconds
        from .service import CycleGanModel, model_directories

        if given.models:
            return CycleGanModel([Path(given.models)])
        return CycleGanModel(model_directories())

    return stylize_file(load, given.photo, [], given, PARAMETERS)


def main(arguments: Sequence[str]) -> int:
    """Run a command. Return the exit code."""
    if arguments and arguments[0] == "train":
        # Imported here, as PyTorch takes seconds
        from .training.command import main as train

        return train(arguments[1:])
    return dispatch("containers.cyclegan", arguments, stylize)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
