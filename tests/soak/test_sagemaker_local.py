"""packages/sagemaker-local-async at length: all requests, 200 rounds of kills, SageMaker's own SDK.

The SDK needs 300 MB of packages, so it has an environment of its own, which the test makes; with
SAGEMAKER_SDK_PYTHON it uses the Python of that name, which must find the package sagemaker.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from differential import CONTROL_PLANE, RUNTIME, create_existing, problems
from front_door import REGION, running
from kill_rounds import run
from model_server import running_model_server
from tests.fakes.servers import ROOT

SCRIPT = ROOT / "packages" / "sagemaker-local-async" / "tests" / "sdk_session.py"


@pytest.mark.long
def test_every_answer_agrees_with_botocores_model(tmp_path: Path) -> None:
    with running_model_server() as model_server:
        arguments = (
            f"--endpoint=queued={model_server.url}",
            f"--realtime=live={model_server.url}",
            f"--topic=good={model_server.url}",
            f"--topic=bad={model_server.url}",
        )
        with running(tmp_path, *arguments) as door:
            door.wait_until_serving("queued")
            door.wait_until_serving("live")
            create_existing(door.control, model_server.url)
            for operation in (*CONTROL_PLANE, *RUNTIME):
                _, wrong = problems(door.url, operation, model_server.url)
                assert not wrong, "\n".join([operation, *wrong])


@pytest.mark.long
def test_no_request_of_ten_thousand_is_lost_in_two_hundred_rounds(tmp_path: Path) -> None:
    report = run(tmp_path, rounds=200, requests=10_000)
    print(report)
    assert report.problems == []
    assert report.outputs + report.failures + report.given_up == report.accepted >= 10_000


def python_with_sdk(folder: Path) -> str:
    if found := os.environ.get("SAGEMAKER_SDK_PYTHON"):
        return found
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "sagemaker<3"], check=True)
    return python


@pytest.mark.long
def test_the_async_predictor_works_from_deploy_to_delete(tmp_path: Path) -> None:
    python = python_with_sdk(tmp_path / "sdk")
    with running_model_server() as model_server, running(tmp_path) as door:
        door.wait_until_started()
        settings = {
            "AWS_ENDPOINT_URL_SAGEMAKER": door.url,
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": door.url,
            "AWS_ENDPOINT_URL_S3": door.s3_url,
            "AWS_SHARED_CREDENTIALS_FILE": str(door.credentials),
            "AWS_DEFAULT_REGION": REGION,
        }
        done = subprocess.run(
            [python, str(SCRIPT), model_server.url],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{door.log.read_text()}"
