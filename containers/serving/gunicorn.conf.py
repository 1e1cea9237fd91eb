"""gunicorn's settings: one worker, as there is one GPU.

It has an event loop, so that no number of slow clients keeps /ping from its answer.
"""

import os
import pwd

bind = f"0.0.0.0:{os.environ.get('SAGEMAKER_BIND_TO_PORT', '8080')}"
workers = 1
worker_class = "containers.serving.worker.Worker"
# The front calls no part of the application in the event loop but /ping, so it has no lifespan.
asgi_lifespan = "off"
# SageMaker sends a dozen. A head may have 8 KB in each of them, for each connection.
limit_request_fields = 50
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
