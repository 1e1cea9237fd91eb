"""Instances: the model server behind a production variant, run by somebody else or by Docker."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from sagemaker_local.container import Container
from sagemaker_local.docker import OWNER_LABEL, has_gpu, remove_container, run_docker
from sagemaker_local.s3 import S3Client, list_keys, split_s3_url

# The port at which a container serves, and the folder in which it finds its model.
CONTAINER_PORT = 8080
MODEL_FOLDER = "/opt/ml/model"
# An address that nothing listens at.
NOWHERE = "http://127.0.0.1:1"
LOG_LINES = 20

log = logging.getLogger("sagemaker")


class InstanceError(Exception):
    """An instance cannot be started. The message is for the endpoint's FailureReason."""


class Instance:
    """A model server at `url`, which somebody else starts and stops."""

    # Who runs the server may stop it until so long after the endpoint has woken.
    rest_seconds = 3.0

    def __init__(self, url: str) -> None:
        self.container = Container(url)

    def start(self) -> None:
        """Start the server. Raises InstanceError."""

    def stop(self) -> None:
        """Stop the server, and whatever it works on."""

    def has_exited(self) -> bool:
        """Return whether the server has ended by itself."""
        return False

    def last_lines(self) -> str:
        """Return the end of the server's log; "" where there is none."""
        return ""


class DockerInstance(Instance):
    """A model server that Docker runs from an image, as SageMaker runs it."""

    rest_seconds = 0.0

    def __init__(self, name: str, model: Mapping[str, Any], s3: S3Client, owner: str) -> None:
        """`name` becomes a part of the container's name.

        model: a ContainerDefinition. owner: the value of the label on all containers of one
        program, by which its next start removes what a killed one has left.
        """
        super().__init__(NOWHERE)
        self.name = f"sagemaker-local-{name}-{secrets.token_hex(4)}"
        self.model = model
        self.s3 = s3
        self.owner = owner
        self.folder: Path | None = None

    def start(self) -> None:
        self.stop()
        self.folder = Path(tempfile.mkdtemp(prefix="sagemaker-local-"))
        # The user of the container is not known.
        self.folder.chmod(0o755)
        fetch_model(self.model, self.s3, self.folder)
        # A file: on a command line everybody could read the values, and in Docker's own environment
        # a variable such as DOCKER_HOST would change what Docker does.
        with tempfile.NamedTemporaryFile("w", prefix="sagemaker-local-") as variables:
            for name, value in self.environment().items():
                variables.write(f"{name}={value}\n")
            variables.flush()
            done = run_docker(self.command(self.folder, variables.name))
        if done.returncode != 0:
            raise InstanceError(f"Docker did not start the image: {done.stderr.strip()[-500:]}")
        self.container = Container(self.find_url())

    def command(self, folder: Path, variables: str) -> list[str]:
        """Return the command that runs the image; `variables` is a file."""
        command = ["run", "--detach", "--name", self.name, "--label", f"{OWNER_LABEL}={self.owner}"]
        command += ["--publish", f"127.0.0.1::{CONTAINER_PORT}"]
        command += ["--volume", f"{folder}:{MODEL_FOLDER}:ro"]
        if has_gpu():
            command += ["--gpus", "all"]
        command += ["--env-file", variables]
        return [*command, self.model["Image"], "serve"]

    def environment(self) -> dict[str, str]:
        """Return the variables of the container: AWS's of this program, and the model's own."""
        variables = {}
        for name, value in os.environ.items():
            if name.startswith("AWS_") and not name.endswith("_FILE"):
                variables[name] = value
        variables["SAGEMAKER_BIND_TO_PORT"] = str(CONTAINER_PORT)
        own: dict[str, str] = self.model.get("Environment", {})
        return variables | own

    def find_url(self) -> str:
        done = run_docker(["port", self.name, f"{CONTAINER_PORT}/tcp"])
        address = done.stdout.strip().splitlines()[:1]
        if not address:
            # It has ended already. Its log says why.
            return NOWHERE
        return f"http://{address[0]}"

    def stop(self) -> None:
        remove_container(self.name)
        self.container = Container(NOWHERE)
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def has_exited(self) -> bool:
        done = run_docker(["inspect", "--format", "{{.State.Running}}", self.name])
        return done.stdout.strip() != "true"

    def last_lines(self) -> str:
        done = run_docker(["logs", "--tail", str(LOG_LINES), self.name])
        return f"{done.stdout}{done.stderr}".strip()


def is_url(image: str) -> bool:
    """Return whether a model's image is the address of a running server."""
    return image.startswith(("http://", "https://", "unix:/"))


def create_instance(name: str, model: Mapping[str, Any], s3: S3Client, owner: str) -> Instance:
    """Return the instance for a ContainerDefinition, not started."""
    image: str = model["Image"]
    if is_url(image):
        return Instance(image)
    return DockerInstance(name, model, s3, owner)


def owner_of(*parts: str) -> str:
    """Return a short name for the program that these parts describe."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


# ------------------------------------------------------------ the model's data


def fetch_model(model: Mapping[str, Any], s3: S3Client, folder: Path) -> None:
    """Write the model's data into the folder. Raises InstanceError where it cannot be read."""
    url: str = model.get("ModelDataUrl", "")
    is_archive = True
    if "ModelDataSource" in model:
        source = model["ModelDataSource"]["S3DataSource"]
        url = source["S3Uri"]
        is_archive = source["CompressionType"] == "Gzip"
    if not url:
        return
    try:
        if is_archive:
            fetch_archive(url, s3, folder)
        else:
            fetch_prefix(url, s3, folder)
    except (BotoCoreError, ClientError, OSError, tarfile.TarError) as error:
        raise InstanceError(f"Failed to download model data from {url}: {error}") from None


def fetch_archive(url: str, s3: S3Client, folder: Path) -> None:
    bucket, key = split_s3_url(url)
    with tempfile.TemporaryFile() as file:
        s3.download_fileobj(Bucket=bucket, Key=key, Fileobj=file)
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            # Nothing outside of the folder, no devices, no setuid.
            archive.extractall(folder, filter="data")


def fetch_prefix(url: str, s3: S3Client, folder: Path) -> None:
    bucket, prefix = split_s3_url(url)
    for path, key in relative_paths(list_keys(s3, bucket, prefix), prefix):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, key, str(target))


def relative_paths(keys: Sequence[str], prefix: str) -> list[tuple[str, str]]:
    """Return the path below the prefix, and the key, of each object. Raises InstanceError."""
    found = []
    for key in keys:
        path = key.removeprefix(prefix).lstrip("/")
        if ".." in Path(path).parts:
            raise InstanceError(f"The key {key} of the model's data has .. as a part.")
        if path and not path.endswith("/"):
            found.append((path, key))
    return found


def remove_leftovers(owner: str) -> None:
    """Remove the containers that a killed program of this owner has left."""
    done = run_docker(["ps", "--all", "--quiet", "--filter", f"label={OWNER_LABEL}={owner}"])
    for number in done.stdout.split():
        log.info("removing a container of an earlier run: %s", number)
        remove_container(number)
