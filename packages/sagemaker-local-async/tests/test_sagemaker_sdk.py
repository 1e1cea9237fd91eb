"""The SageMaker Python SDK, version 2, drives an asynchronous endpoint from deploy to delete.

The SDK needs 300 MB of packages, so it has an environment of its own, which the test makes; with
SAGEMAKER_SDK_PYTHON it uses the Python of that name, which must find the package sagemaker.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from front_door import REGION, running
from model_server import running_model_server

SCRIPT = Path(__file__).with_name("sdk_session.py")


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
