"""How gunicorn runs a container: one worker, since a model has one GPU; many threads, so that /ping never waits."""

import os
import pwd
import signal
from types import FrameType
from typing import Any

bind = f"0.0.0.0:{os.environ.get('SAGEMAKER_BIND_TO_PORT', '8080')}"
workers = 1
worker_class = "gthread"
threads = 64  # most of them wait: for an upload, for their turn, for S3
timeout = 120
graceful_timeout = 25  # SageMaker and `docker stop -t 30` kill after 30 s
keepalive = 75
control_socket_disable = True
if os.access("/dev/shm", os.W_OK):
    worker_tmp_dir = "/dev/shm"


def unprivileged_user() -> str | None:
    """The image's user `model`, who reads strangers' files, while the master stays root, as SageMaker expects."""
    try:
        return pwd.getpwnam("model").pw_name if os.geteuid() == 0 else None
    except KeyError:
        return None


if unprivileged_user():
    user = unprivileged_user()
    group = unprivileged_user()


def post_worker_init(worker: Any) -> None:  # noqa: ANN401 - gunicorn's worker
    """On SIGTERM, the job that runs is asked for its best picture before gunicorn's own handler lets requests end."""
    server = worker.wsgi.extensions["stylebot"]
    gunicorns = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        server.turns.stop()
        if callable(gunicorns):
            gunicorns(number, frame)

    signal.signal(signal.SIGTERM, stop)
