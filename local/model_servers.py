"""The model servers: how they are started, with or without Docker, and their health."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from local.processes import ManagedProcess, say

# A new server is killed if /ping does not answer 200 in this time: it may have to fetch weights.
START_SECONDS = 480
# A server that was healthy is killed if /ping does not answer 200 for this time.
STALL_SECONDS = 30


# What runs a training job without Docker. It finds the job's folder in ML_ROOT.
TRAINER_COMMAND = (sys.executable, "-m", "containers.cyclegan", "train")


def model_command(name: str) -> list[str]:
    """Return the command that the container runs, for use without Docker."""
    return [sys.executable, "-m", f"containers.{name}", "serve"]


def model_environment(base: Mapping[str, str], path: Path) -> dict[str, str]:
    """Return the environment of a model server that shall listen at the Unix socket `path`.

    In a container it listens at a port, for whoever reaches it. Here other users of the machine,
    and the pages in a browser, do not.
    """
    environment = {**base, "GUNICORN_CMD_ARGS": f"--bind {shlex.quote(f'unix:{path}')}"}
    if not has_gpu():
        # Threads that spin while they wait make two models on the same cores twice as slow.
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return environment


def docker_command(
    name: str, container: str, environment: Mapping[str, str], sockets: Path | None = None
) -> list[str]:
    """Return the command that runs the image stylebot-`name` as SageMaker does.

    It uses the host's network. Docker takes the values of the variables from its own environment,
    so that no secret is in the command line. `sockets` is the folder of the Unix socket at which
    the server listens, if it does.
    """
    command = ["docker", "run", "--rm", "--name", container, "--network", "host"]
    if has_gpu():
        command += ["--gpus", "all"]
    passed_on = ["GUNICORN_CMD_ARGS", "MODELS_URL", "NST_WEIGHTS", "OMP_WAIT_POLICY"]
    passed_on += [variable for variable in environment if variable.startswith("AWS_")]
    for variable in passed_on:
        if environment.get(variable, os.devnull) != os.devnull:
            command += ["--env", variable]
    if name == "cyclegan" and "MODEL_DIR" in environment:
        folder = Path(environment["MODEL_DIR"]).resolve()
        command += ["--volume", f"{folder}:/opt/ml/model:ro"]
    if sockets:
        command += ["--volume", f"{sockets}:{sockets}"]
    return [*command, f"stylebot-{name}", "serve"]


def remove_container(command: Sequence[str]) -> None:
    """Remove the container of a `docker_command`, running or not, if there is one."""
    if "--name" not in command:
        return
    container = command[command.index("--name") + 1]
    subprocess.run(["docker", "rm", "--force", container], capture_output=True, check=False)


def has_image(image: str) -> bool:
    """Return whether Docker runs and has the image."""
    command = ["docker", "image", "inspect", image]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def has_gpu() -> bool:
    return Path("/dev/nvidiactl").exists()


@dataclass
class ModelServer(ManagedProcess):
    """A model server. Its endpoint says whether it is healthy, and whether it is wanted."""

    # time.monotonic() when it was last known to be healthy, or was started, or when nobody looked.
    healthy_at: float = 0.0
    was_healthy: bool = False

    def start(self) -> None:
        super().start()
        self.healthy_at = self.started_at
        self.was_healthy = False

    def update_health(self, is_healthy: bool) -> None:
        """Note what /ping said, and kill the server if it has been unhealthy for too long."""
        now = time.monotonic()
        if is_healthy:
            self.was_healthy = True
            self.healthy_at = now
            return
        patience = START_SECONDS
        if self.was_healthy:
            patience = STALL_SECONDS
        if self.process and now > self.healthy_at + patience:
            say(f"{self.name} has not answered /ping for a while, and is killed")
            self.kill()

    def skip_health(self) -> None:
        """Do not count the time until now: nobody could look."""
        self.healthy_at = time.monotonic()

    def set_wanted(self, wanted: bool) -> None:
        if wanted and not self.wanted:
            say(f"{self.name} is woken")
        self.wanted = wanted
