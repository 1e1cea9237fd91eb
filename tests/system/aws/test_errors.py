"""What goes wrong, and the messages that say what to do."""

import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from tests.fakes import aws as fake
from tests.fakes.servers import ROOT
from tests.system.aws.helpers import Deploy, Wire, describe_endpoint, write_log


@pytest.mark.usefixtures("pushed")
def test_a_failed_endpoint_prints_its_reason_and_log_and_the_next_up_fixes_it(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    reason = "The container for variant AllTraffic did not pass the ping health check."
    log_line = "CUDA driver version is insufficient for CUDA runtime version"
    fake.failures["stylebot-nst"] = reason
    write_log("stylebot-nst", "loading the weights", log_line)
    assert deploy("up") == 1
    printed = capfd.readouterr().err
    assert reason in printed
    assert log_line in printed
    assert "--ami" in printed, "it does not say what to do"
    assert "Traceback" not in printed
    status = describe_endpoint("cyclegan")["EndpointStatus"]
    assert status == "InService", "the other endpoint was left half done"

    assert deploy("status") == 1
    assert "! stylebot-nst: Failed" in capfd.readouterr().out
    fake.failures.clear()
    assert deploy("up") == 0
    assert describe_endpoint("nst")["EndpointStatus"] == "InService"


@pytest.mark.usefixtures("pushed")
def test_an_endpoint_that_fails_without_a_log_says_so(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.failures["stylebot-nst"] = "CannotStartContainerError."
    assert deploy("up") == 1
    printed = capfd.readouterr().err
    assert "(empty: the container did not start)" in printed
    assert "./build.sh --push" in printed


@pytest.mark.usefixtures("pushed")
def test_an_update_that_is_rolled_back_is_reported(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    before = describe_endpoint("nst")["EndpointConfigName"]
    reason = "Rollback was triggered by the alarm stylebot-nst-faults."
    fake.failures["stylebot-nst"] = reason
    assert deploy("up", "--concurrency", "nst=2") == 1
    expected = f"The endpoint stylebot-nst was rolled back to its previous configuration: {reason}"
    assert expected in capfd.readouterr().err
    assert describe_endpoint("nst")["EndpointConfigName"] == before

    fake.failures.clear()
    assert deploy("up", "--concurrency", "nst=2") == 0


@pytest.mark.usefixtures("pushed")
def test_a_test_picture_that_fails_is_reported(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    reason = "The picture could not be made because of a fault on our side."
    fake.failures["stylebot-cyclegan"] = reason
    assert deploy("up") == 1
    printed = capfd.readouterr().err
    assert "stylebot-cyclegan is up, but the test picture failed" in printed
    assert reason in printed


@pytest.mark.usefixtures("pushed")
def test_a_test_picture_that_never_comes_back_is_reported(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.asleep.add("stylebot-cyclegan")
    assert deploy("up") == 1
    expected = "stylebot-cyclegan is up, but gave no result for the test picture in 25 minutes"
    assert expected in capfd.readouterr().err


def test_missing_images_are_reported_with_the_command_that_pushes_them(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 1
    assert f"./build.sh --push --region {fake.REGION}" in capfd.readouterr().err
    buckets = boto3.client("s3").list_buckets()["Buckets"]
    assert not buckets, "something was created before the images were looked for"


@pytest.mark.usefixtures("pushed")
def test_an_image_with_an_oci_manifest_is_refused_before_anything_is_made(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.push("nst", "oci", content="oci", manifest_type=fake.OCI_MANIFEST_TYPE)
    assert deploy("up") == 1
    printed = capfd.readouterr().err
    assert fake.OCI_MANIFEST_TYPE in printed
    assert "./build.sh --push --tag NAME" in printed
    assert not boto3.client("s3").list_buckets()["Buckets"]
    assert deploy("repositories", "oci") == 1
    assert deploy("up", "--image-tag", "abc") == 0


@pytest.mark.usefixtures("pushed")
def test_a_missing_tag_is_reported(deploy: Deploy, capfd: pytest.CaptureFixture[str]) -> None:
    assert deploy("up", "--image-tag", "nosuch") == 1
    assert "stylebot-nst:nosuch is not in ECR" in capfd.readouterr().err


@pytest.mark.usefixtures("pushed")
@pytest.mark.parametrize(
    "operation", ["DescribeImages", "CreateBucket", "CreateRole", "CreateModel", "PutScalingPolicy"]
)
def test_a_missing_permission_is_reported_with_the_policy_that_has_it(
    operation: str, deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    wire.denied_operation = operation
    assert deploy("up") == 1
    printed = capfd.readouterr().err
    assert f"is not authorized to perform: {operation}" in printed
    assert "./deploy.py policy deployer" in printed
    assert "Traceback" not in printed


# ---------------------------------------------------------------- in a process of its own


def run_program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run deploy.py as a user does."""
    program = [sys.executable, str(ROOT / "deploy.py"), *arguments]
    return subprocess.run(
        program, env=os.environ | environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    "arguments", [["up"], ["up", "--plan"], ["status"], ["down"], ["login-password"]]
)
def test_without_credentials_it_says_how_to_log_in(arguments: list[str], tmp_path: Path) -> None:
    no_credentials = {
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
        "HOME": str(tmp_path),
    }
    done = run_program(*arguments, **no_credentials)
    assert done.returncode == 1
    assert "Log in first: set AWS_ACCESS_KEY_ID" in done.stderr
    assert "Traceback" not in done.stderr


NO_RANGE = ["up", "--min-instances", "3", "--max-instances", "2"]


@pytest.mark.parametrize(
    ("environment", "arguments", "message"),
    [
        ({"AWS_DEFAULT_REGION": ""}, ["status"], "No region is set. Set one: --region"),
        ({}, ["status", "--region", "eu-wst-1"], "with --region, such as eu-west-1"),
        ({"AWS_PROFILE": "nosuch"}, ["status"], "Check AWS_PROFILE"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, ["status"], "Check the network"),
        ({}, NO_RANGE, "from 3 to 2 instances is no range"),
    ],
)
def test_wrong_settings_are_reported(
    environment: dict[str, str], arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = run_program(*arguments, **environment, HOME=str(tmp_path), AWS_MAX_ATTEMPTS="1")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["up", "--concurrency", "gan=1"],
        ["up", "--prefix", "A_b"],
        ["up", "--prefix", "a--b"],
        ["up", "--tags", "art"],
        ["destroy"],
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    arguments: list[str], deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        deploy(*arguments)
    assert "usage:" in capfd.readouterr().err
