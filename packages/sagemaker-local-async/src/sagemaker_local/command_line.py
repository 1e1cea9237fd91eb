"""The command line of `sagemaker-local`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import boto3
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, NoCredentialsError

import sagemaker_local
from sagemaker_local.app import create_app
from sagemaker_local.control_plane import list_calls
from sagemaker_local.deployments import failure_path_beside
from sagemaker_local.endpoint import Endpoint
from sagemaker_local.hosting import Hosting, HostingSettings
from sagemaker_local.instances import owner_of
from sagemaker_local.names import REGION, topic_arn
from sagemaker_local.s3 import create_s3_client, split_s3_url
from sagemaker_local.seaweedfs import StorageError, free_port
from sagemaker_local.server import Server
from sagemaker_local.storage import FolderStorage, running_storage
from sagemaker_local.trainer import TrainerSettings
from sagemaker_local.training import TrainingJobs

NAME = r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
BUCKET = "sagemaker-local"
FOLDER = ".sagemaker-local"

log = logging.getLogger("sagemaker")


# ------------------------------------------------------------ the options


def endpoint_option(text: str) -> tuple[str, str]:
    """Parse NAME=URL or NAME=IMAGE."""
    name, _, image = text.partition("=")
    if not re.fullmatch(NAME, name) or not re.fullmatch(r"\S{1,255}", image):
        example = "mine=http://127.0.0.1:8080, mine=unix:/tmp/mine.sock or mine=my-image:latest"
        message = f"{text!r} is not NAME=URL or NAME=IMAGE, such as {example}"
        raise argparse.ArgumentTypeError(message)
    return name, image


def topic_option(text: str) -> tuple[str, str]:
    """Parse NAME=URL."""
    name, _, url = text.partition("=")
    if not re.fullmatch(r"[\w-]{1,256}", name) or not re.match(r"https?://[^/]", url):
        example = "done=http://127.0.0.1:9000/notifications"
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=URL, such as {example}")
    return topic_arn(name), url


def s3_option(text: str) -> str:
    if not re.match(r"s3://[^/]+/.", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not s3://BUCKET/PREFIX")
    return text


def count_option(text: str) -> int:
    if not re.fullmatch(r"\d{1,4}", text) or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000")
    return int(text)


def create_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sagemaker-local",
        description=sagemaker_local.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_endpoint_options(parser)
    add_storage_options(parser)
    add_training_options(parser)
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (%(default)s)")
    parser.add_argument("--port", type=int, default=8090, help="0: a free one (%(default)s)")
    parser.add_argument(
        "--signed",
        action="store_true",
        help="refuse calls that are not signed by the credentials that this program itself has",
    )
    parser.add_argument("--version", action="version", version=sagemaker_local.__version__)
    return parser


def add_endpoint_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("endpoints, besides those that boto3 makes")
    group.add_argument(
        "--endpoint",
        action="append",
        default=[],
        type=endpoint_option,
        metavar="NAME=URL|IMAGE",
        help="an asynchronous endpoint, and its running model server or Docker image",
    )
    group.add_argument(
        "--realtime",
        action="append",
        default=[],
        type=endpoint_option,
        metavar="NAME=URL|IMAGE",
        help="a real-time endpoint, and its running model server or Docker image",
    )
    group.add_argument(
        "--max-concurrent",
        type=count_option,
        default=1,
        metavar="N",
        help="MaxConcurrentInvocationsPerInstance of --endpoint (%(default)s)",
    )
    group.add_argument(
        "--idle-minutes",
        type=float,
        default=0,
        metavar="N",
        help="scale each asynchronous endpoint to zero after so long without a request (never)",
    )
    group.add_argument(
        "--topic",
        action="append",
        default=[],
        type=topic_option,
        metavar="NAME=URL",
        help=f"post the notifications for the topic {topic_arn('NAME')} to this URL",
    )


def add_storage_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("storage")
    group.add_argument(
        "--storage",
        metavar="PATH|URL|s3://BUCKET",
        help="a folder, the http:// address of an S3, or a bucket of the S3 that boto3 finds "
        f"(the S3 of AWS_ENDPOINT_URL_S3 if that is set, and else the folder {FOLDER})",
    )
    group.add_argument(
        "--s3-port", type=int, default=8091, help="of a folder's S3; 0: a free one (%(default)s)"
    )
    group.add_argument(
        "--output",
        type=s3_option,
        help="where answers go if nothing else is said (s3://BUCKET/async/output)",
    )
    group.add_argument(
        "--failure",
        type=s3_option,
        help="where failures of --endpoint go (--output with failure as its last part)",
    )


def add_training_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training jobs")
    group.add_argument(
        "--training", type=Path, metavar="DIR", help="run training jobs, in folders below DIR"
    )
    group.add_argument(
        "--trainer",
        type=shlex.split,
        default=[],
        metavar="COMMAND",
        help="what runs a training job, with /opt/ml's place in ML_ROOT (docker run IMAGE train)",
    )
    group.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=TrainerSettings.sync_seconds,
        metavar="N",
        help="put the checkpoints of a training into S3 so often (%(default)g)",
    )


def parse_arguments() -> argparse.Namespace:
    parser = create_parser()
    arguments = parser.parse_args()
    names = [name for name, _ in arguments.endpoint + arguments.realtime]
    if len(set(names)) < len(names):
        parser.error("name each endpoint once")
    for option, port in (("--port", arguments.port), ("--s3-port", arguments.s3_port)):
        if not 0 <= port < 2**16:
            parser.error(f"{option}: {port} is no port")
    return arguments


# ------------------------------------------------------------ the storage


@dataclass
class StorageChoice:
    """What --storage says. One of `folder` and `url` may be there; `bucket` always is."""

    bucket: str
    folder: Path | None = None
    url: str = ""

    @property
    def place(self) -> str:
        """The folder; "" where there is none. The port of its S3 changes."""
        if not self.folder:
            return ""
        return str(self.folder.resolve())


def choose_storage(arguments: argparse.Namespace) -> StorageChoice:
    """Return what --storage, or its default, says."""
    bucket = BUCKET
    if arguments.output:
        bucket, _ = split_s3_url(arguments.output)
    wanted: str | None = arguments.storage
    if wanted is None and os.environ.keys() & {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"}:
        return StorageChoice(bucket)
    if wanted is None:
        return StorageChoice(bucket, folder=Path(FOLDER))
    if re.match("https?://", wanted):
        return StorageChoice(bucket, url=wanted)
    if wanted.startswith("s3://"):
        bucket, _ = split_s3_url(wanted)
        return StorageChoice(bucket)
    return StorageChoice(bucket, folder=Path(wanted))


def own_credentials() -> ReadOnlyCredentials:
    """Return the credentials that boto3 finds. Raises NoCredentialsError."""
    credentials = boto3.Session().get_credentials()
    if not credentials:
        raise NoCredentialsError
    frozen: ReadOnlyCredentials = credentials.get_frozen_credentials()
    return frozen


# ------------------------------------------------------------ the program


def create_hosting(
    arguments: argparse.Namespace, choice: StorageChoice, endpoints: dict[str, Endpoint]
) -> Hosting:
    """Return the hosting with the endpoints of the command line, not started."""
    output = arguments.output or f"s3://{choice.bucket}/async/output"
    failure = arguments.failure or failure_path_beside(output)
    s3 = create_s3_client()
    settings = HostingSettings(
        bucket=choice.bucket,
        output=output,
        idle_seconds=60 * arguments.idle_minutes,
        topics=dict(arguments.topic),
        owner=owner_of(choice.place or s3.meta.endpoint_url, choice.bucket),
    )
    hosting = Hosting(s3, settings, endpoints)
    asynchronous = {
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": arguments.max_concurrent},
        "OutputConfig": {"S3OutputPath": output, "S3FailurePath": failure},
    }
    for name, image in arguments.endpoint:
        hosting.declare(name, image, asynchronous)
    for name, image in arguments.realtime:
        hosting.declare(name, image, None)
    return hosting


def create_jobs(arguments: argparse.Namespace, bucket: str) -> TrainingJobs | None:
    """Return the training jobs, not started, or None where there shall be none."""
    if not arguments.training:
        return None
    settings = TrainerSettings(
        arguments.training, tuple(arguments.trainer), arguments.checkpoint_seconds
    )
    return TrainingJobs(create_s3_client(), bucket, settings)


def serve(
    arguments: argparse.Namespace, choice: StorageChoice, storage: FolderStorage | None
) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    endpoints: dict[str, Endpoint] = {}
    hosting = create_hosting(arguments, choice, endpoints)
    jobs = create_jobs(arguments, choice.bucket)
    credentials = None
    if arguments.signed:
        credentials = own_credentials()
    app = create_app(endpoints, list_calls(hosting, jobs), credentials, arguments.host)
    # The port comes first: a second process, started by mistake, must not touch the queue.
    server = Server(arguments.host, arguments.port, app)
    try:
        hosting.start()
        if jobs:
            jobs.start()
        announce(f"http://{arguments.host}:{server.port}", storage)
        server.serve_forever()
    finally:
        hosting.close()
        if jobs:
            jobs.close()


def announce(url: str, storage: FolderStorage | None) -> None:
    """Print where everything is, as lines that a shell takes."""
    lines = [f"SageMaker at {url}"]
    if storage:
        lines.append(f"S3 at {storage.url}")
    lines.append(f"export AWS_ENDPOINT_URL_SAGEMAKER={url}")
    lines.append(f"export AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME={url}")
    lines.append(f"export AWS_DEFAULT_REGION={REGION}")
    if storage:
        lines.append(f"export AWS_ENDPOINT_URL_S3={storage.url}")
        credentials = shlex.quote(str(storage.credentials_file))
        lines.append(f"export AWS_SHARED_CREDENTIALS_FILE={credentials}")
    print("\n".join(lines), flush=True)


def run(arguments: argparse.Namespace) -> None:
    # botocore has no default for it, and the names of everything here have this one in them.
    os.environ["AWS_DEFAULT_REGION"] = os.environ.get("AWS_DEFAULT_REGION", REGION)
    choice = choose_storage(arguments)
    if not choice.folder:
        if choice.url:
            os.environ["AWS_ENDPOINT_URL_S3"] = choice.url
        serve(arguments, choice, None)
        return
    port = arguments.s3_port or free_port()
    with running_storage(choice.folder, port) as storage:
        serve(arguments, choice, storage)


def main() -> int:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run(arguments)
    except (OSError, BotoCoreError, StorageError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        with contextlib.suppress(KeyboardInterrupt):
            log.info("stopped; what is in the queue waits for the next start")
    return 0
