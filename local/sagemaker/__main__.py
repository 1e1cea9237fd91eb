"""The command line of `python -m local.sagemaker`."""

from __future__ import annotations

import argparse
import logging
import re
import shlex
import signal
import sys
from pathlib import Path

import boto3
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, NoCredentialsError
from werkzeug.serving import WSGIRequestHandler, make_server

import local.sagemaker
from local.sagemaker.app import create_app
from local.sagemaker.container import Container
from local.sagemaker.endpoint import AsyncEndpoint, AsyncLimits, Endpoint, RealtimeEndpoint
from local.sagemaker.queue import RequestQueue
from local.sagemaker.s3 import create_s3_client, split_s3_url
from local.sagemaker.trainer import TrainerSettings
from local.sagemaker.training import TrainingJobs

NAME = r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"

log = logging.getLogger("sagemaker")


class RequestHandler(WSGIRequestHandler):
    """Keeps connections open, and logs no line for each request."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def endpoint_option(text: str) -> tuple[str, str]:
    """Parse NAME=URL."""
    name, _, url = text.partition("=")
    if not re.fullmatch(NAME, name) or not re.match(r"https?://[^/]|unix:/", url):
        example = "nst=http://127.0.0.1:8081 or nst=unix:/tmp/nst.sock"
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=URL, such as {example}")
    return name, url


def s3_option(text: str) -> str:
    if not re.match(r"s3://[^/]+/.", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not s3://BUCKET/PREFIX")
    return text


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m local.sagemaker",
        description=local.sagemaker.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--endpoint",
        action="append",
        default=[],
        type=endpoint_option,
        metavar="NAME=URL",
        help="an asynchronous endpoint and its model server",
    )
    parser.add_argument(
        "--realtime",
        action="append",
        default=[],
        type=endpoint_option,
        metavar="NAME=URL",
        help="a real-time endpoint and its model server",
    )
    parser.add_argument(
        "--output", type=s3_option, default="s3://sagemaker/async/output", help="(%(default)s)"
    )
    parser.add_argument(
        "--failure",
        type=s3_option,
        help="(--output with failure in the place of its last part)",
    )
    parser.add_argument(
        "--max-concurrent",
        type=int,
        default=1,
        metavar="N",
        help="invocations of an asynchronous endpoint at the same time (%(default)s)",
    )
    parser.add_argument(
        "--idle-minutes",
        type=float,
        default=0,
        metavar="N",
        help="after so long without a request no instance is wanted (never)",
    )
    parser.add_argument(
        "--training",
        type=Path,
        metavar="DIR",
        help="run training jobs too, in folders below DIR",
    )
    parser.add_argument(
        "--trainer",
        type=shlex.split,
        default=[],
        metavar="COMMAND",
        help="what runs a training job, with /opt/ml's place in ML_ROOT (docker run IMAGE train)",
    )
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=TrainerSettings.sync_seconds,
        metavar="N",
        help="put the checkpoints of a training into S3 so often (%(default)g)",
    )
    parser.add_argument(
        "--signed",
        action="store_true",
        help="refuse calls that are not signed by this program's own AWS credentials",
    )
    parser.add_argument(
        "--port", type=int, default=8090, help="on 127.0.0.1; 0: a free one (%(default)s)"
    )
    arguments = parser.parse_args()
    names = endpoint_names(arguments)
    if len(set(names)) < len(names):
        parser.error("name each endpoint once")
    if not names and not arguments.training:
        parser.error("name at least one endpoint, or give --training")
    return arguments


def endpoint_names(arguments: argparse.Namespace) -> list[str]:
    return [name for name, _ in arguments.endpoint + arguments.realtime]


def failure_path(arguments: argparse.Namespace) -> str:
    """Return --failure, or what stands beside --output."""
    if arguments.failure:
        return str(arguments.failure)
    parent, _, _ = arguments.output.rstrip("/").rpartition("/")
    return f"{parent}/failure"


def create_jobs(arguments: argparse.Namespace) -> TrainingJobs | None:
    """Return the training jobs, not started, or None where there shall be none."""
    if not arguments.training:
        return None
    bucket, _ = split_s3_url(arguments.output)
    settings = TrainerSettings(
        arguments.training, tuple(arguments.trainer), arguments.checkpoint_seconds
    )
    return TrainingJobs(create_s3_client(), bucket, settings)


def create_endpoints(arguments: argparse.Namespace) -> list[Endpoint]:
    """Return the endpoints, not started. Waits for S3 where there are asynchronous ones."""
    endpoints: list[Endpoint] = []
    if arguments.endpoint:
        queue = RequestQueue(create_s3_client(), arguments.output, failure_path(arguments))
        queue.wait_for_bucket()
        limits = AsyncLimits(max(1, arguments.max_concurrent), 60 * arguments.idle_minutes)
        for name, url in arguments.endpoint:
            endpoints.append(AsyncEndpoint(name, Container(url), queue, limits))
    for name, url in arguments.realtime:
        endpoints.append(RealtimeEndpoint(name, Container(url)))
    return endpoints


def own_credentials() -> ReadOnlyCredentials:
    """Return the credentials that boto3 finds. Raises NoCredentialsError."""
    credentials = boto3.Session().get_credentials()
    if not credentials:
        raise NoCredentialsError
    frozen: ReadOnlyCredentials = credentials.get_frozen_credentials()
    return frozen


def serve(arguments: argparse.Namespace) -> None:
    endpoints: dict[str, Endpoint] = {}
    jobs = create_jobs(arguments)
    credentials = None
    if arguments.signed:
        credentials = own_credentials()
    app = create_app(endpoints, jobs, credentials)
    # The port comes first: a second process, started by mistake, must not touch the queue.
    server = make_server(
        "127.0.0.1", arguments.port, app, threaded=True, request_handler=RequestHandler
    )
    for endpoint in create_endpoints(arguments):
        endpoints[endpoint.name] = endpoint
        endpoint.start()
    if jobs:
        jobs.start()
    names = ", ".join(endpoint_names(arguments)) or "training jobs only"
    print(f"SageMaker at http://127.0.0.1:{server.port}: {names}", flush=True)
    try:
        server.serve_forever()
    finally:
        if jobs:
            jobs.close()


def main() -> int:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serve(arguments)
    except (OSError, BotoCoreError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        log.info("stopped; what is in the queue waits for the next start")
    return 0


if __name__ == "__main__":
    sys.exit(main())
