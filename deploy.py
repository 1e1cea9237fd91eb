#!/usr/bin/env python3
"""stylebot on AWS: two asynchronous SageMaker endpoints that scale to zero, and all that they need.

This file makes sure that boto3 is there; the work is in aws/. What holds for every command:

1. Whatever creates, updates or removes a resource is a Change (aws/changes.py); one function
   prints it (`up --plan`) or runs it.
2. Every step first reads what exists and changes only what differs. So after an interruption, run
   the same command again.
3. Models and endpoint configurations cannot be changed on AWS. They are named after a hash of
   their contents, and the ones that no endpoint uses any more are removed.
4. Everything has the tag stylebot=PREFIX from its creation. `down` removes what has both the name
   and the tag.

Progress is printed to standard error. Standard output has what other programs read, such as the
bot's environment.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV_PYTHON = ROOT / ".venv/bin/python"
# What pip installs into a new .venv: the packages of bot.py
PACKAGES = ["--require-hashes", "-r", str(ROOT / "locks/bot.txt")]
# The first boto3 1.x that has every call which aws/ makes
OLDEST_BOTO3_MINOR = 44


def has_packages() -> bool:
    """Return whether this Python can import the packages of aws/ and bot.py."""
    try:
        import boto3
        import requests  # noqa: F401 - bot.py needs it
    except ImportError:
        return False
    return int(boto3.__version__.split(".")[1]) >= OLDEST_BOTO3_MINOR


def restart_in_venv() -> None:
    """Install the packages into .venv, which is created if it does not exist, and restart there."""
    if not VENV_PYTHON.exists():
        run_or_exit(
            [sys.executable, "-m", "venv", str(ROOT / ".venv")],
            "To fix this in Debian and Ubuntu, run: sudo apt-get install python3-venv.",
        )
    pip = [str(VENV_PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run_or_exit(
        [*pip, *PACKAGES],
        "Check the network (proxy, VPN) and pip's settings, then run the same command again.",
    )
    os.execv(VENV_PYTHON, [str(VENV_PYTHON), *sys.argv])


def run_or_exit(command: list[str], remedy: str) -> None:
    """Run a command; if it fails, print what to do and exit."""
    try:
        subprocess.run(command, check=True, stdout=sys.stderr)
    except (OSError, subprocess.CalledProcessError):
        sys.exit(
            "deploy.py: boto3 is missing, and it could not be installed into .venv; the lines "
            f"above say why.\n{remedy}"
        )


def main() -> int:
    if not has_packages():
        restart_in_venv()

    from aws.command_line import main as run_command_line

    return run_command_line()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. Run the same command again: it continues.\n")
        # Without waiting for the threads that are still running.
        os._exit(130)
