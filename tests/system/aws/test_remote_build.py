"""`build.sh --remote`: the images are built in CodeBuild."""

import subprocess

import boto3
import pytest

from tests.fakes import aws as fake
from tests.fakes import codebuild
from tests.fakes.servers import ROOT
from tests.system.aws.helpers import BUCKET, Deploy, KilledError, Wire, list_keys, push_images

COMMAND = ["remote-build", "--revision", "abc1234", "--base-image", "python:3.11", "abc1234"]


@pytest.fixture(autouse=True)
def pushing_build(wire: Wire) -> None:
    """Builds that push the three images in the end."""
    codebuild.state.push = push_images


def test_the_images_are_built_from_what_git_tracks_and_their_digests_printed(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy(*COMMAND) == 0
    printed = capfd.readouterr()
    for line in codebuild.LINES:
        assert printed.err.splitlines().count(line) == 1
    for image in ("nst", "cyclegan", "bot"):
        assert f"stylebot-{image}:abc1234  sha256:" in printed.out
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert set(codebuild.state.files) <= set(tracked.splitlines())
    assert {"build.sh", "deploy.py", "locks/bot.txt"} <= set(codebuild.state.files)
    assert codebuild.state.variables == {
        "TAG": "abc1234",
        "REVISION": "abc1234",
        "BASE_IMAGE": "python:3.11",
        "REGION": fake.REGION,
        "PREFIX": "stylebot",
    }
    assert list_keys("builds/") == []
    role = boto3.client("iam").get_role(RoleName=f"stylebot-build-{fake.REGION}")["Role"]
    assert "stylebot-boundary" in role["PermissionsBoundary"]["PermissionsBoundaryArn"]

    # The same tag a second time needs no build.
    assert deploy(*COMMAND) == 0
    assert len(codebuild.state.builds) == 1


def test_a_build_that_fails_says_why(deploy: Deploy, capfd: pytest.CaptureFixture[str]) -> None:
    codebuild.state.failure = "Error while executing command: ./build.sh. Reason: exit status 1"
    assert deploy(*COMMAND) == 1
    printed = capfd.readouterr().err
    assert "Building stylebot-nst" in printed
    assert "Reason: exit status 1" in printed
    assert "/aws/codebuild/stylebot-build" in printed


def interrupt(deploy: Deploy, wire: Wire) -> None:
    """Kill the command while its build runs."""
    wire.kill_at = "GetLogEvents"
    with pytest.raises(KilledError):
        deploy(*COMMAND)
    wire.kill_at = None
    wire.kill_after = None


def test_an_interrupted_command_goes_on_with_its_build(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    interrupt(deploy, wire)
    assert deploy(*COMMAND) == 0
    assert len(codebuild.state.builds) == 1
    assert "CodeBuild is building abc1234 already" in capfd.readouterr().err


def test_down_stops_a_build_that_runs(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    interrupt(deploy, wire)
    assert list_keys("builds/") == ["builds/abc1234.zip"]
    rules = boto3.client("s3").get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    days = {rule["Filter"]["Prefix"]: rule["Expiration"]["Days"] for rule in rules}
    assert days["builds/"] == 1, "its source would stay"

    fake.lost_answers.add("StopBuild")
    assert deploy("down", "--yes") == 0
    assert "stop the build abc1234" in capfd.readouterr().err
    assert [build["buildStatus"] for build in codebuild.state.builds] == ["STOPPED"]


def test_a_lost_answer_starts_no_second_build(deploy: Deploy) -> None:
    fake.lost_answers |= {"CreateProject", "StartBuild"}
    assert deploy(*COMMAND) == 0
    assert not fake.lost_answers
    assert len(codebuild.state.builds) == 1


def test_killed_after_any_change_it_ends_the_same_and_down_takes_it(
    url: str, deploy: Deploy, wire: Wire
) -> None:
    count = 0
    while True:
        count += 3
        fake.clear(url)
        codebuild.state.push = push_images
        wire.changes_made = 0
        wire.kill_after = count
        try:
            assert deploy(*COMMAND) == 0
            break
        except KilledError:
            wire.kill_after = None
        assert deploy(*COMMAND) == 0
        assert len(codebuild.state.builds) == 1
    wire.kill_after = None
    assert deploy("down", "--purge", "--yes") == 0
    after = fake.snapshot()
    assert BUCKET not in after
    assert not [name for name in after if "build" in name]
    assert after["roles"] == []
