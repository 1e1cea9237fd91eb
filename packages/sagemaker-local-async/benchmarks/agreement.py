"""How many answers agree with botocore's model of SageMaker: this program's, and moto's.

    PYTHONPATH=src:tests python benchmarks/agreement.py

The requests are those of tests/differential.py, right and wrong. moto[server] is optional.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from botocore.exceptions import ClientError

from differential import (
    CONTROL_PLANE,
    RUNTIME,
    config_request,
    endpoint_request,
    model_request,
    problems,
)
from front_door import client, free_port, running, wait_until
from model_server import running_model_server


@contextmanager
def running_moto() -> Iterator[str]:
    """Run moto's server. Yield its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: is_up(url), 60, "moto does not start")
        yield url
    finally:
        process.kill()
        process.wait()


def is_up(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code < 500
    except requests.RequestException:
        return False


def create(url: str, image: str) -> None:
    """Create what the requests name, as far as the program takes it."""
    control = client("sagemaker", url)
    for call, request in (
        (control.create_model, model_request(image)),
        (control.create_endpoint_config, config_request()),
        (control.create_endpoint, endpoint_request()),
    ):
        try:
            call(**request)
        except ClientError as error:
            print(error, file=sys.stderr)


def count(url: str, image: str, is_moto: bool = False) -> dict[str, tuple[int, int]]:
    """Return the number of requests and of answers that agree, by operation."""
    create(url, image)
    found = {}
    for operation in (*CONTROL_PLANE, *RUNTIME):
        if is_moto:
            # What it took of the wrong requests before would spoil its other answers.
            requests.post(f"{url}/moto-api/reset", timeout=30).raise_for_status()
            create(url, image)
        sent, wrong = problems(url, operation, image)
        found[operation] = (sent, sent - len(wrong))
    return found


def main() -> None:
    columns = {}
    with running_model_server() as model_server, tempfile.TemporaryDirectory() as folder:
        arguments = (
            f"--endpoint=queued={model_server.url}",
            f"--realtime=live={model_server.url}",
            f"--topic=good={model_server.url}",
            f"--topic=bad={model_server.url}",
        )
        with running(Path(folder), *arguments) as door:
            door.wait_until_serving("queued")
            door.wait_until_serving("live")
            columns["sagemaker-local-async"] = count(door.url, model_server.url)
    if importlib.util.find_spec("moto"):
        with running_moto() as url:
            name = f"moto {importlib.metadata.version('moto')}"
            columns[name] = count(url, "image", is_moto=True)
    print_table(columns)


def print_table(columns: dict[str, dict[str, tuple[int, int]]]) -> None:
    print(f"| operation | requests | {' | '.join(columns)} |")
    print("|---" * (2 + len(columns)) + "|")
    for operation in (*CONTROL_PLANE, *RUNTIME):
        counts = [column[operation] for column in columns.values()]
        agreeing = " | ".join(str(agrees) for _, agrees in counts)
        print(f"| {operation} | {counts[0][0]} | {agreeing} |")
    totals = [
        (sum(sent for sent, _ in column.values()), sum(agrees for _, agrees in column.values()))
        for column in columns.values()
    ]
    agreeing = " | ".join(str(agrees) for _, agrees in totals)
    print(f"| together | {totals[0][0]} | {agreeing} |")


if __name__ == "__main__":
    main()
