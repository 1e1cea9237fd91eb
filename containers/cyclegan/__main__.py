"""`python -m containers.cyclegan`: the server, the weights, or one picture from files."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from containers.common.command_line import add_parameters, dispatch, paint_file

from .parameters import PARAMETERS

DESCRIPTION = """\
CycleGAN: a photograph, painted by one of the painters that it has learnt.

  serve                                 the HTTP server of SageMaker's contract, on port 8080
  weights                               fetch the painters' weights (45 MB each)
  PHOTO --style NAME -o OUT             one picture from files, without a server

in Docker:
  docker run --rm --gpus all -p 8080:8080 stylebot-cyclegan serve
  curl -F content=@photo.jpg -F style=monet localhost:8080/invocations -o result.jpg
  docker run --rm --gpus all -v "$PWD:/pictures" -w /pictures stylebot-cyclegan photo.jpg --style monet -o result.jpg

Your own checkpoints: mount a folder with style_NAME.pth at /opt/ml/model, and NAME is a style.
"""


def paint(arguments: Sequence[str]) -> int:
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
        "--style", dest="style_name", metavar="NAME", required=True, help="the painter"
    )
    parser.add_argument("--models", metavar="DIR", help="a folder of checkpoints, style_NAME.pth")
    add_parameters(
        parser, [parameter for parameter in PARAMETERS if parameter.name != "style_name"]
    )
    given = parser.parse_args(arguments)

    def load() -> object:
        from .service import Painters, model_directory

        return Painters(Path(given.models) if given.models else model_directory())

    return paint_file(load, given.photo, [], given, PARAMETERS)


if __name__ == "__main__":
    sys.exit(dispatch("containers.cyclegan", sys.argv[1:], paint))
