"""`./local.sh train PICTURE --name NAME`: train a painter of your own on this machine.

The checks that need no PyTorch come first. The options of the trainer are handed on to it.
"""

from __future__ import annotations

import argparse
import fcntl
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from local.model_servers import TRAINER_COMMAND, has_gpu
from local.painters import NAME
from local.processes import ROOT, say
from local.stack import DATA, MARK, base_environment, models_folder

USER_ERROR = 2
# Where the styles are that come with the program. They hide others of the same name.
BUILT_IN = (
    ROOT / "containers" / "cyclegan" / "painters",
    ROOT / "containers" / "cyclegan" / "weights",
)
# What is handed on: how the help shows the value, and what it means.
TRAINER_OPTIONS = {
    "minutes": ("N", "train so long (20)"),
    "photos": ("DIR", "photographs to learn from (those of examples/)"),
    "paintings": ("DIR", "train a CycleGAN from many paintings, instead of PICTURE"),
    "from": ("CHECKPOINT", "a painter to begin with"),
    "filters": ("N", "32: small and quick, the default; 64: as in the paper"),
    "layout": ("NAME", "stylebot, the default, or official: for other programs"),
    "steps": ("N", "instead of --minutes, to repeat a training exactly"),
    "seed": ("N", "the seed of all random numbers (0)"),
}
# People who chat on this machine come first.
NICENESS = 10
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./local.sh train",
        description="Train a painter from one picture, or several of one style. The chat of a "
        "running ./local.sh offers it as soon as it is done.",
        epilog="Ctrl-C saves everything, and the same command goes on.",
    )
    parser.add_argument("pictures", nargs="*", type=Path, metavar="PICTURE")
    parser.add_argument("--name", required=True, help="the painter's, such as klimt")
    parser.add_argument("--replace", action="store_true", help="replace a painter of the same name")
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="as for ./local.sh")
    for name, (metavar, meaning) in TRAINER_OPTIONS.items():
        parser.add_argument(f"--{name}", metavar=metavar, help=meaning)
    return parser.parse_intermixed_args()


def find_problem(arguments: argparse.Namespace, folder: Path) -> str:
    """Return why the training cannot begin, and "" where it can."""
    name: str = arguments.name
    if not re.fullmatch(NAME, name):
        return (
            f"{name!r} is no name for a painter: use up to 32 small letters, digits, _ and -, "
            "such as klimt."
        )
    if any((built_in / f"style_{name}.pth").exists() for built_in in BUILT_IN):
        return f"{name} is a painter that stylebot has already. Choose another --name."
    checkpoint = folder / f"style_{name}.pth"
    if checkpoint.exists() and not arguments.replace:
        return f"{checkpoint} exists. Choose another --name, or replace it: --replace"
    if not arguments.pictures and not arguments.paintings:
        return "Name a picture to learn from: ./local.sh train PICTURE --name NAME"
    for path in arguments.pictures:
        if problem := picture_problem(path):
            return problem
    return ""


def picture_problem(path: Path) -> str:
    if not path.exists():
        return f"There is no file {path}."
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, ValueError, Image.DecompressionBombError):
        return f"{path} is not a picture that can be read."
    return ""


def trainer_arguments(arguments: argparse.Namespace, folder: Path) -> list[str]:
    command = [f"--name={arguments.name}", f"--output={folder}"]
    for path in arguments.pictures:
        command.append(f"--style={path}")
    if arguments.replace:
        command.append("--replace")
    for name in TRAINER_OPTIONS:
        value = vars(arguments)[name]
        if value is not None:
            command.append(f"--{name}={value}")
    return command


def train(command: Sequence[str], data: Path) -> int:
    """Run the trainer in this terminal. Return its exit code.

    Ctrl-C reaches the trainer too, which saves and ends; a SIGTERM is handed on.
    """
    environment = base_environment(data)
    # A stack that starts kills what has its mark.
    del environment[MARK]
    if not has_gpu():
        # Threads that spin while they wait slow down the model servers on the same cores.
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    process = subprocess.Popen(["nice", "-n", str(NICENESS), *command], env=environment)

    def hand_on(number: int, _: object) -> None:
        if number != signal.SIGINT:
            process.send_signal(number)

    for number in SIGNALS:
        signal.signal(number, hand_on)
    return process.wait()


def is_running(data: Path) -> bool:
    """Return whether a stack runs with this data: it holds the lock."""
    try:
        with open(data / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def main(trainer: Sequence[str] = TRAINER_COMMAND) -> int:
    """Check the command line, and train. Return the exit code. `trainer` is for tests."""
    arguments = parse_arguments()
    data: Path = arguments.data.resolve()
    folder = models_folder(data)
    if problem := find_problem(arguments, folder):
        print(problem, file=sys.stderr)
        return USER_ERROR

    folder.mkdir(parents=True, exist_ok=True)
    data.chmod(0o700)
    exit_code = train([*trainer, *trainer_arguments(arguments, folder)], data)
    if exit_code:
        return exit_code

    say(f"{arguments.name}: its pictures and its recipe are in {folder}")
    if is_running(data):
        say(f"The running chat offers {arguments.name} in half a minute at most.")
    else:
        say(f"Start ./local.sh, and the chat offers {arguments.name}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
