"""What both images share as commands: `serve`, `weights`, and pictures from files without a server."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from containers.common.parameters import Parameter, parse_parameters

BAR = "{percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left"
GUNICORN_CONFIG = Path(__file__).parents[1] / "serving" / "gunicorn.conf.py"


def serve(package: str) -> NoReturn:
    """Becomes gunicorn: as PID 1 of a container it is the one that SIGTERM reaches."""
    root = str(Path(__file__).parents[2])
    command = [
        "gunicorn",
        "--chdir",
        root,
        "--config",
        str(GUNICORN_CONFIG),
        f"{package}.service:app()",
    ]
    os.execv(sys.executable, [sys.executable, "-m", *command])


def dispatch(package: str, arguments: Sequence[str], paint: Any) -> int:  # noqa: ANN401 - a function of arguments
    """`serve` and `weights` by their names; anything else is for `paint`. Gives the exit code."""
    if not arguments:
        arguments = ["--help"]
    if list(arguments[:1]) == ["serve"]:
        serve(package)
    if list(arguments[:1]) == ["weights"]:
        sys.argv = [f"{package} weights", *arguments[1:]]
        return importlib.import_module(f"{package}.weights").main()
    return paint(arguments)


def add_parameters(parser: argparse.ArgumentParser, parameters: Sequence[Parameter]) -> None:
    """An option for each parameter: max_epochs is --max-epochs."""
    for parameter in parameters:
        kind = {"nargs": "?", "const": "true"} if parameter.kind is bool else {"metavar": "VALUE"}
        meaning = f"{parameter.meaning}; {parameter.expected()} ({parameter.default})"
        option = "--" + parameter.name.replace("_", "-")
        parser.add_argument(option, dest=parameter.name, help=meaning, **kind)  # type: ignore[arg-type]


def given_parameters(
    arguments: argparse.Namespace, parameters: Sequence[Parameter]
) -> dict[str, Any]:
    """Those that were given, checked. Raises ValueError with a sentence for the user."""
    given = {parameter.name: getattr(arguments, parameter.name) for parameter in parameters}
    return parse_parameters(
        parameters, {name: value for name, value in given.items() if value is not None}
    )


def paint_file(
    load: Any,  # noqa: ANN401 - makes a Model; imported only now, as PyTorch takes seconds
    photo: str,
    styles: Sequence[str],
    arguments: argparse.Namespace,
    parameters: Sequence[Parameter],
) -> int:
    """Paints one file into another, with a progress bar on a terminal. Gives the exit code: 2 for a user's mistake."""
    from tqdm import tqdm

    from containers.serving import images
    from containers.serving.app import LONGEST_SIDE
    from containers.serving.errors import RequestError
    from containers.serving.model import Progress

    output = Path(arguments.output)
    content_type = images.EXTENSIONS.get(output.suffix.lower())
    if content_type is None:
        return complain(f"{output} must end in .jpg, .png or .webp.")
    try:
        options = given_parameters(arguments, parameters)
        pictures = [
            images.decode(Path(path).read_bytes(), LONGEST_SIDE, path) for path in (photo, *styles)
        ]
        with tqdm(total=100, unit="%", disable=None, bar_format=BAR) as bar:

            def report(progress: Progress) -> bool:
                bar.update(round(100 * progress.done) - bar.n)
                return False

            picture = load().paint(pictures[0], pictures[1:], options, report)
        output.write_bytes(images.encode(picture.image, content_type))
    except OSError as error:
        return complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (ValueError, RequestError) as error:
        return complain(str(error))
    for line in (f"{output}: {picture.image.width}x{picture.image.height}", *picture.notes):
        print(line)
    return 0


def complain(message: str) -> int:
    print(message, file=sys.stderr)
    return 2
