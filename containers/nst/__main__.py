"""`python -m containers.nst`: the server, the weights, or one picture from files."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from containers.common.command_line import add_parameters, dispatch, stylize_file

from .parameters import PARAMETERS

if TYPE_CHECKING:
    from .service import StyleTransfer
    from .sizes import Estimate

DESCRIPTION = """\
Neural style transfer: a photograph in the style of any picture.

  serve                                 the HTTP server of SageMaker's contract, on port 8080
  weights                               fetch the weights of VGG-19 (20 MB)
  PHOTO STYLE [STYLE ...] -o OUT        one picture from files, without a server

in Docker:
  docker run --rm --gpus all -p 8080:8080 stylebot-nst serve
  curl -F content=@photo.jpg -F style=@painting.jpg localhost:8080/invocations -o result.jpg
  docker run --rm --gpus all -v "$PWD:/pictures" -w /pictures \\
      stylebot-nst photo.jpg painting.jpg -o result.jpg
"""


def stylize(arguments: Sequence[str]) -> int:
    """Stylize the files that the command line names. Return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m containers.nst",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("photo", metavar="PHOTO")
    parser.add_argument("styles", metavar="STYLE", nargs="+")
    parser.add_argument(
        "-o", "--output", metavar="OUT", required=True, help="a .jpg, .png or .webp file"
    )
    parser.add_argument(
        "--weights",
        choices=("original", "torchvision"),
        default="original",
        help="whose training of VGG-19",
    )
    parser.add_argument(
        "--mask",
        metavar="MASK",
        dest="masks",
        action="append",
        default=[],
        help="a gray picture in the photo's shape, white where the style is used; once for each "
        "STYLE, in the same order",
    )
    add_parameters(parser, PARAMETERS)
    given = parser.parse_args(arguments)

    def load() -> "StyleTransfer":
        # Imported here, as PyTorch takes seconds
        from .service import StyleTransfer

        return StyleTransfer(given.weights, announce=print_estimate)

    def print_estimate(found: "Estimate") -> None:
        print(found, file=sys.stderr)

    return stylize_file(load, given.photo, given.styles, given, PARAMETERS, given.masks)


if __name__ == "__main__":
    sys.exit(dispatch("containers.nst", sys.argv[1:], stylize))
