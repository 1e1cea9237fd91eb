"""Docker's command line, and whether there is a GPU for what it runs."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

OWNER_LABEL = "sagemaker-local.owner"


def run_docker(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run `docker` with these arguments. Where there is no such program, the result says so."""
    command = ["docker", *arguments]
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", f"docker: {error.strerror}")


def remove_container(name: str) -> None:
    """Remove the container, running or not, if there is one."""
    run_docker(["rm", "--force", "--volumes", name])


def has_gpu() -> bool:
    return Path("/dev/nvidiactl").exists()
