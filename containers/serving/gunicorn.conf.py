"""gunicorn's settings: one worker, as there is one GPU; many threads, so that /ping never waits."""

import os
import pwd
import signal
from types import FrameType
from typing import Any

bind = f"0.0.0.0:{os.environ.get('SAGEMAKER_BIND_TO_PORT', '8080')}"
workers = 1
worker_class = "gthread"
# Most threads wait: for an upload, for their turn, for S3.
threads = 64
timeout = 120
# SageMaker and `docker stop --time 30` kill after 30 s.
graceful_timeout = 25
keepalive = 75
control_socket_disable = True
if os.access("/dev/shm", os.W_OK):
    worker_tmp_dir = "/dev/shm"


def unprivileged_user() -> str | None:
    """Return the image's user `model` if this process is root.

    The worker, which reads files of strangers, runs as this user. The master stays root, as
    SageMaker expects.
    """
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("model").pw_name
    except KeyError:
        return None


if unprivileged_user():
    user = unprivileged_user()
    group = unprivileged_user()


def post_worker_init(worker: Any) -> None:  # noqa: ANN401 - gunicorn's worker
    """On SIGTERM ask the running job for its best picture, then call gunicorn's own handler."""
    server = worker.wsgi.extensions["stylebot"]
    gunicorn_handler = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        server.queue.stop()
        if callable(gunicorn_handler):
            gunicorn_handler(number, frame)

    signal.signal(signal.SIGTERM, stop)
