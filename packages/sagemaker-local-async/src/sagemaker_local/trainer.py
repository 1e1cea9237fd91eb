"""One training job at work: its folder, its process, and what goes to S3.

The folder is what a container sees as /opt/ml. The trainer is either a command of this machine,
which finds the folder in the variable ML_ROOT, or the job's image with the argument `train`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from sagemaker_local.docker import has_gpu, remove_container
from sagemaker_local.leftovers import kill_leftovers
from sagemaker_local.s3 import S3Client, list_keys, retry_forever, split_s3_url, status_of

# People who chat on this machine come first.
NICENESS = 10
CPU_SHARES = 128
# SageMaker shows no more of output/failure.
REASON_CHARACTERS = 1024
# A file with such a name is renamed when it is complete.
UNFINISHED = (".new", ".tmp", ".part")

log = logging.getLogger("sagemaker")


class TrainingError(Exception):
    """The job fails. The message is its FailureReason."""


@dataclass(frozen=True)
class TrainerSettings:
    """Where and how jobs run.

    folder: has a folder for each job while it runs, and its log, JOB.log.
    command: the trainer on this machine; empty: the job's image runs in Docker.
    sync_seconds: how often new checkpoints are put into S3.
    stop_seconds: how long a trainer has after SIGTERM, as long as at SageMaker.
    """

    folder: Path
    command: tuple[str, ...] = ()
    sync_seconds: float = 15.0
    stop_seconds: float = 120.0


@dataclass
class Training:
    """One job at work. Used by one thread, apart from `kill`.

    arguments: those of CreateTrainingJob.
    """

    arguments: Mapping[str, Any]
    arn: str
    s3: S3Client
    settings: TrainerSettings
    process: subprocess.Popen[bytes] | None = None
    # The time of change in nanoseconds and the size of each checkpoint file that S3 has.
    synced: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name: str = self.arguments["TrainingJobName"]
        self.root = self.settings.folder.resolve() / self.name
        self.log = self.root.with_name(f"{self.name}.log")
        digest = hashlib.sha256(str(self.root).encode()).hexdigest()[:8]
        self.container_name = f"training-{self.name}-{digest}"
        self.command = self.trainer_command()

    # ---- before

    def prepare(self) -> None:
        """Make the folder with all inputs, and the checkpoints of an earlier run if there are any.

        Raises TrainingError where an input cannot be read.
        """
        self.end_earlier_run()
        shutil.rmtree(self.root, ignore_errors=True)
        for folder in ("input/config", "input/data", "model", "output/data", "checkpoints"):
            (self.root / folder).mkdir(parents=True)
        self.write_config()
        for channel in self.arguments.get("InputDataConfig", ()):
            url = channel["DataSource"]["S3DataSource"]["S3Uri"]
            folder = self.root / "input" / "data" / channel["ChannelName"]
            if not self.download(url, folder):
                raise TrainingError(f"ClientError: Data download failed: no objects below {url}")
        if self.checkpoint_url:
            for path in self.download(self.checkpoint_url, self.root / "checkpoints"):
                self.synced[path] = fingerprint(path)

    def end_earlier_run(self) -> None:
        """Kill the trainer that a killed sagemaker_local has left."""
        kill_leftovers(f"ML_ROOT={self.root}")
        if not self.settings.command:
            remove_container(self.container_name)

    def write_config(self) -> None:
        channels = {}
        for channel in self.arguments.get("InputDataConfig", ()):
            channels[channel["ChannelName"]] = {
                "TrainingInputMode": "File",
                "S3DistributionType": "FullyReplicated",
                "RecordWrapperType": "None",
            }
        config = {
            "hyperparameters": self.arguments.get("HyperParameters", {}),
            "inputdataconfig": channels,
            "resourceconfig": {"current_host": "algo-1", "hosts": ["algo-1"]},
        }
        for name, content in config.items():
            path = self.root / "input" / "config" / f"{name}.json"
            path.write_text(json.dumps(content))

    @property
    def checkpoint_url(self) -> str:
        url: str = self.arguments.get("CheckpointConfig", {}).get("S3Uri", "")
        return url

    def download(self, url: str, folder: Path) -> list[Path]:
        """Write the objects below `url` into `folder`. Return the files. Raises TrainingError."""
        bucket, prefix = split_s3_url(url)
        folder.mkdir(parents=True, exist_ok=True)
        keys = self.transfer(f"reading {url}", lambda: list_keys(self.s3, bucket, prefix))
        paths = []
        for key in keys:
            name = relative_name(key, prefix)
            if not name:
                continue
            path = folder / name
            if ".." in path.parts:
                raise TrainingError(f"ClientError: The key {key} has .. as a part.")
            path.parent.mkdir(parents=True, exist_ok=True)
            download = partial(self.s3.download_file, bucket, key, str(path))
            self.transfer(f"reading s3://{bucket}/{key}", download)
            paths.append(path)
        return paths

    def transfer(self, what: str, call: Callable[[], Any]) -> Any:  # noqa: ANN401 - boto3's
        """Return what `call` returns, once S3 works. Raises TrainingError where S3 refuses it."""

        def attempt() -> Any:  # noqa: ANN401 - boto3's
            try:
                return call()
            except ClientError as error:
                if status_of(error) >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                message = error.response["Error"].get("Message") or error.response["Error"]["Code"]
                raise TrainingError(f"ClientError: {what}: {message}") from None
            except ParamValidationError:
                message = "there can be no such bucket or key"
                raise TrainingError(f"ClientError: {what}: {message}") from None

        return retry_forever(attempt)

    # ---- the process

    def trainer_command(self) -> list[str]:
        if self.settings.command:
            return ["nice", "-n", str(NICENESS), *self.settings.command]
        # As the user of this process, who otherwise could not remove what the container writes.
        user = f"{os.getuid()}:{os.getgid()}"
        command = ["docker", "run", "--rm", "--name", self.container_name]
        command += ["--network", "host", "--user", user, "--cpu-shares", str(CPU_SHARES)]
        command += ["--env", "HOME=/tmp", "--volume", f"{self.root}:/opt/ml"]
        if has_gpu():
            command += ["--gpus", "all"]
        # Docker takes the values from its own environment: no secret is on a command line.
        for variable in self.variables():
            command += ["--env", variable]
        return [*command, self.arguments["AlgorithmSpecification"]["TrainingImage"], "train"]

    def variables(self) -> list[str]:
        """Return the names of the variables that a container gets."""
        names = [name for name in os.environ if name.startswith(("AWS_", "OMP_"))]
        names = [name for name in names if os.environ[name] != os.devnull]
        return [*names, "TRAINING_JOB_NAME", "TRAINING_JOB_ARN", *self.own_environment()]

    def own_environment(self) -> dict[str, str]:
        environment: dict[str, str] = self.arguments.get("Environment", {})
        return environment

    def start(self) -> None:
        """Start the trainer. Raises TrainingError where there is no such program."""
        environment = {
            **os.environ,
            **self.own_environment(),
            "ML_ROOT": str(self.root),
            "TRAINING_JOB_NAME": self.name,
            "TRAINING_JOB_ARN": self.arn,
        }
        if not has_gpu():
            # Threads that spin while they wait slow down the model servers on the same cores.
            environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        try:
            with open(self.log, "ab") as sink:
                self.process = subprocess.Popen(
                    self.command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            message = f"{error.filename} cannot be started: {error.strerror}"
            raise TrainingError(f"ClientError: {message}") from None
        log.info("%s: training; its log: %s", self.name, self.log)

    def exit_code(self) -> int | None:
        assert self.process
        return self.process.poll()

    def terminate(self) -> None:
        """Ask the trainer to save and to end."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the trainer and whatever it started, at once."""
        if not self.process:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if not self.settings.command:
            remove_container(self.container_name)

    # ---- to S3

    def sync_checkpoints(self) -> None:
        """Put new and changed checkpoints into S3. What S3 does not take now is tried next time."""
        if not self.checkpoint_url:
            return
        bucket, prefix = split_s3_url(self.checkpoint_url)
        folder = self.root / "checkpoints"
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or path.name.endswith(UNFINISHED):
                continue
            key = f"{prefix.rstrip('/')}/{path.relative_to(folder).as_posix()}"
            try:
                # Before the upload: a file that changes meanwhile is uploaded again.
                found = fingerprint(path)
                if self.synced.get(path) == found:
                    continue
                self.upload(path, bucket, key)
            except FileNotFoundError:
                continue  # It was replaced or removed.
            except (BotoCoreError, ClientError) as error:
                log.warning("%s: %s was not saved: %s", self.name, key, error)
                continue
            self.synced[path] = found

    def has_model(self) -> bool:
        return any((self.root / "model").iterdir())

    def upload_model(self, url: str) -> None:
        """Put the content of model/ to `url` as a .tar.gz. Raises TrainingError."""
        archive = self.root / "model.tar.gz"
        with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
            for path in sorted((self.root / "model").iterdir()):
                tar.add(path, path.name)
        bucket, key = split_s3_url(url)
        self.transfer(f"writing {url}", lambda: self.upload(archive, bucket, key))

    def upload(self, path: Path, bucket: str, key: str) -> None:
        with open(path, "rb") as file:
            self.s3.upload_fileobj(file, bucket, key)

    # ---- after

    def failure_reason(self, exit_code: int) -> str:
        """Return why the trainer failed: what it wrote to output/failure, or the end of its log."""
        failure = self.root / "output" / "failure"
        reason = ""
        with contextlib.suppress(OSError):
            reason = failure.read_text(errors="replace").strip()
        if not reason:
            reason = last_line(self.log)
        end = f", exit code: {exit_code}"
        start = f"AlgorithmError: {reason}"
        return start[: REASON_CHARACTERS - len(end)] + end

    def remove_folder(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


def fingerprint(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def relative_name(key: str, prefix: str) -> str:
    """Return the name of the file for an object below a prefix; "" for a folder's own object.

    "a/b/c.jpg" is "c.jpg" below "a/b/" and "a/b", and "b/c.jpg" below "a/".
    """
    folder = prefix
    if not prefix.endswith("/"):
        folder = f"{prefix}/"
        if not key.startswith(folder):
            # The prefix is the beginning of a name, or a whole one.
            folder = prefix.rpartition("/")[0]
    name = key.removeprefix(folder).lstrip("/")
    if name.endswith("/"):
        return ""
    return name


def last_line(path: Path) -> str:
    lines: Sequence[str] = ()
    with contextlib.suppress(OSError):
        lines = path.read_text(errors="replace").splitlines()
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        return ""
    return lines[-1]
