"""The commands that both images share: `serve`, `weights`, and one picture from files."""

import argparse
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from containers.common.errors import StylizeError
from containers.common.parameters import Parameter, ParameterValues, parse_parameters

if TYPE_CHECKING:
    from PIL import Image

    from containers.serving.model import Model, Progress

PROGRESS_BAR = "{percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left"
CONTAINERS = Path(__file__).parents[1]
GUNICORN_CONFIG = CONTAINERS / "serving" / "gunicorn.conf.py"

STOPPING = b"\nStopping after this step. Ctrl-C once more ends at once.\n"

# Exit code after Ctrl-C, as a shell tells it.
INTERRUPTED = 128 + signal.SIGINT
# Exit code for a mistake in the arguments or the files, as argparse uses it.
USER_ERROR = 2


def dispatch(
    package: str, arguments: Sequence[str], stylize: Callable[[Sequence[str]], int]
) -> int:
    """Run `serve` or `weights` if the first argument says so, otherwise `stylize`.

    Returns the exit code.
    """
    if not arguments:
        return stylize(["--help"])
    command, *rest = arguments
    if command == "serve":
        serve(package)
    if command == "weights":
        return fetch_weights(package, rest)
    return stylize(arguments)


def serve(package: str) -> NoReturn:
    """Replace this process with gunicorn. In a container it is PID 1, which receives SIGTERM."""
    gunicorn = [sys.executable, "-m", "gunicorn"]
    gunicorn += ["--chdir", str(CONTAINERS.parent)]
    gunicorn += ["--config", str(GUNICORN_CONFIG)]
    gunicorn += [f"{package}.service:app()"]
    os.execv(sys.executable, gunicorn)


def fetch_weights(package: str, arguments: Sequence[str]) -> int:
    sys.argv = [f"{package} weights", *arguments]
    exit_code: int = importlib.import_module(f"{package}.weights").main()
    return exit_code


def add_parameters(parser: argparse.ArgumentParser, parameters: Sequence[Parameter]) -> None:
    """Add an option for each parameter: max_epochs becomes --max-epochs."""
    for parameter in parameters:
        option = "--" + parameter.name.replace("_", "-")
        meaning = f"{parameter.meaning}; {parameter.expected()} ({parameter.default})"
        if parameter.kind is bool:
            # `--preserve-color` alone means true
            parser.add_argument(option, dest=parameter.name, help=meaning, nargs="?", const="true")
        else:
            parser.add_argument(option, dest=parameter.name, help=meaning, metavar="VALUE")


def given_parameters(
    arguments: argparse.Namespace, parameters: Sequence[Parameter]
) -> ParameterValues:
    """Return the values of the options that were given. Raises InvalidParameterError."""
    given = {}
    for parameter in parameters:
        value = getattr(arguments, parameter.name)
        if value is not None:
            given[parameter.name] = value
    return parse_parameters(parameters, given)


def stylize_file(
    load: "Callable[[], Model]",
    photo: str,
    styles: Sequence[str],
    arguments: argparse.Namespace,
    parameters: Sequence[Parameter],
    masks: Sequence[str] = (),
) -> int:
    """Stylize one file and write another, with a progress bar on a terminal. Return the exit code.

    Ctrl-C asks the model for its best picture so far, and a second one ends at once.
    load: makes the model. It is called after the cheap checks, as it takes seconds.
    """
    # Imported here, as `serve` and `--help` do not need them
    from tqdm import tqdm

    from containers.serving import images
    from containers.serving.limits import input_side
    from containers.serving.model import Inputs

    output = Path(arguments.output)
    content_type = images.EXTENSIONS.get(output.suffix.lower())
    if content_type is None:
        return complain(f"{output} must end in .jpg, .png or .webp.")

    try:
        options = given_parameters(arguments, parameters)
        longest = input_side(options.get("size"))

        def read(path: str) -> "Image.Image":
            return images.decode(Path(path).read_bytes(), longest, path)

        inputs = Inputs(read(photo), list(map(read, styles)), list(map(read, masks)))
        # disable=None hides the bar unless standard error is a terminal
        with tqdm(total=100, unit="%", disable=None, bar_format=PROGRESS_BAR) as bar:
            model = load()
            with interruption() as interrupted:

                def report(progress: "Progress") -> bool:
                    bar.update(round(100 * progress.done) - bar.n)
                    return interrupted.is_set()

                picture = model.stylize(inputs, options, report)
        output.write_bytes(images.encode(picture.image, content_type))
    except OSError as error:
        if error.filename:
            return complain(f"{error.filename}: {error.strerror}")
        return complain(str(error))
    except (ValueError, StylizeError) as error:
        return complain(str(error))
    except KeyboardInterrupt:
        print("Stopped before the first step; nothing was written.", file=sys.stderr)
        return INTERRUPTED

    print(f"{output}: {picture.image.width}x{picture.image.height}")
    steps = picture.facts.get("steps")
    if interrupted.is_set() and steps:
        print(f"Stopped: this is the best picture after {steps} steps.")
    for note in picture.notes:
        print(note)
    return 0


@contextmanager
def interruption() -> Iterator[threading.Event]:
    """Give an event that the first Ctrl-C sets. A second one ends the process at once."""
    interrupted = threading.Event()

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        interrupted.set()
        # Not by print: the progress bar may be writing just now
        os.write(sys.stderr.fileno(), STOPPING)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def complain(message: str) -> int:
    print(message, file=sys.stderr)
    return USER_ERROR
