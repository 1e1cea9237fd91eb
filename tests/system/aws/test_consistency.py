"""Answers that are lost after the change was made, and AWS that shows what is new only later."""

import boto3
import pytest

from tests.fakes import aws as fake
from tests.system.aws.helpers import (
    STYLE,
    TOKEN,
    Deploy,
    describe_config,
    describe_endpoint,
    push_images,
    put_list,
)

CREATING = {
    "CreateBucket",
    "CreateRole",
    "CreateUser",
    "CreateInstanceProfile",
    "CreateSecurityGroup",
    "CreateServiceLinkedRole",
    "CreateCluster",
    "CreateService",
    "UpdateService",
    "PutParameter",
    "RegisterTaskDefinition",
    "AddRoleToInstanceProfile",
    "CreateLogGroup",
    "CreateRepository",
    "CreateModel",
    "CreateEndpointConfig",
    "CreateEndpoint",
    "UpdateEndpoint",
    "CreateTransformJob",
    "CreateTrainingJob",
    "CreateTopic",
    "Subscribe",
    "CreateBudget",
    "CreateSubscriber",
}
DELETING = {
    "DeleteEndpoint",
    "DeleteEndpointConfig",
    "DeleteModel",
    "DeleteRole",
    "DeleteRolePolicy",
    "DeleteUser",
    "DeleteInstanceProfile",
    "DeleteLogGroup",
    "DeleteRepository",
    "DeleteScalingPolicy",
    "DeregisterScalableTarget",
    "DeleteAlarms",
    "DeleteTopic",
    "DeleteBudget",
    "DeleteDashboards",
    "DeleteCluster",
    "DeleteParameter",
    "DeleteSecurityGroup",
    "DeleteService",
    "DeleteTaskDefinitions",
    "DeregisterTaskDefinition",
}


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEGRAM_TOKEN", TOKEN)


def install_and_update(deploy: Deploy) -> None:
    assert deploy("repositories", "abc") == 0
    push_images()
    notify = ["--notify", "a@example.com", "--budget", "50"]
    assert deploy("up", "--bot", "user", *notify) == 0
    assert len(describe_config("nst")["ProductionVariants"][0]["InstancePools"]) == 3
    assert deploy("up", "--bot", "role", "--notify", "b@example.com") == 0
    assert deploy("up", "--bot", "fargate") == 0
    fake.push("nst", "def", content="new")
    fake.push("bot", "def", content="new")
    assert deploy("up") == 0


def use_everything(deploy: Deploy) -> None:
    """Run the commands that make every creating call."""
    install_and_update(deploy)
    source = put_list("list.csv", "https://example.com/a.jpg\n")
    assert deploy("batch", "--input", source, "--style", "vintage") == 0
    assert deploy("train", STYLE, "--name", "klimt") == 0


def test_a_lost_answer_to_a_creating_call_is_no_error(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.lost_answers |= CREATING
    use_everything(deploy)
    assert not fake.lost_answers, "these calls were not made"
    assert "already" not in capfd.readouterr().err.replace("in place already", "")


def test_a_lost_answer_to_a_deleting_call_is_no_error(deploy: Deploy) -> None:
    assert deploy("repositories", "abc") == 0
    push_images()
    notify = ["--notify", "a@example.com", "--budget", "50"]
    assert deploy("up", "--bot", "role", *notify) == 0
    assert deploy("up", "--bot", "user") == 0
    assert deploy("up", "--bot", "fargate") == 0
    fake.lost_answers |= DELETING
    assert deploy("down", "--purge", "--yes") == 0
    assert not fake.lost_answers, "these calls were not made"
    assert boto3.client("sagemaker").list_endpoints()["Endpoints"] == []


@pytest.mark.parametrize("calls", [1, 4])
def test_what_aws_does_not_show_at_once_is_waited_for(calls: int, deploy: Deploy) -> None:
    install_and_update(deploy)
    expected = fake.snapshot()
    assert deploy("down", "--purge", "--yes") == 0

    fake.lag = calls
    use_everything(deploy)
    fake.lag = 0
    fake.unseen.clear()
    del expected[fake.BUCKET]
    after = fake.snapshot()
    assert {name: after[name] for name in expected} == expected


@pytest.mark.usefixtures("pushed")
def test_an_update_that_aws_does_not_show_at_once_is_not_taken_for_a_rollback(
    deploy: Deploy,
) -> None:
    assert deploy("up") == 0
    before = describe_endpoint("nst")["EndpointConfigName"]
    fake.lag = 3
    assert deploy("up", "--concurrency", "nst=2") == 0
    assert describe_endpoint("nst")["EndpointConfigName"] != before


@pytest.mark.usefixtures("pushed")
def test_what_never_appears_is_an_error_after_a_minute(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.lag = 1000
    assert deploy("up") == 1
    printed = capfd.readouterr().err
    assert "Traceback" not in printed
    assert "cannot be found" in printed or "Could not find" in printed or "does not" in printed
