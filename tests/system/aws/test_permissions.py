"""Every call that deploy.py makes, compared with the deployer's policy and with AWS' limits."""

from collections.abc import Iterator

import boto3
import pytest

from tests.fakes import aws as fake
from tests.fakes import codebuild, training_jobs
from tests.fakes.model_limits import refuse_beyond_limits
from tests.fakes.policies import allowed_actions
from tests.system.aws.helpers import (
    BUCKET,
    STYLE,
    TOKEN,
    Deploy,
    Wire,
    clear_and_push_images,
    list_training_jobs,
    push_images,
    put_list,
)

# Operations of S3 whose permission has another name
S3_ACTIONS = {
    "HeadBucket": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "HeadObject": "GetObject",
    "DeleteObjects": "DeleteObject",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
}
# The same of AWS Budgets
BUDGETS_ACTIONS = {
    "DescribeBudget": "ViewBudget",
    "DescribeSubscribersForNotification": "ViewBudget",
    "CreateBudget": "ModifyBudget",
    "UpdateBudget": "ModifyBudget",
    "CreateSubscriber": "ModifyBudget",
    "DeleteBudget": "ModifyBudget",
}
# Everybody may call it.
NEEDS_NO_PERMISSION = "sts:GetCallerIdentity"


@pytest.fixture
def limits(session: boto3.Session) -> Iterator[None]:
    """Let a call fail that is beyond the limits of AWS."""
    session.events.register("before-parameter-build", refuse_beyond_limits)
    yield
    session.events.unregister("before-parameter-build", refuse_beyond_limits)


@pytest.mark.usefixtures("limits")
def test_the_deployers_policy_allows_every_call_that_is_made(
    url: str, deploy: Deploy, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear_and_push_images(url, wire, deploy)
    assert deploy("up", "--bot", "user", "--notify", "a@example.com", "--budget", "50") == 0
    assert deploy("up", "--notify", "b@example.com", "--budget", "60") == 0
    assert deploy("up", "--bot", "role") == 0
    monkeypatch.setenv("TELEGRAM_TOKEN", TOKEN)
    assert deploy("up", "--bot", "fargate") == 0
    boto3.client("ecs").put_cluster_capacity_providers(
        cluster="stylebot-bot", capacityProviders=[], defaultCapacityProviderStrategy=[]
    )
    fake.push("bot", "def", content="new")
    monkeypatch.setenv("TELEGRAM_TOKEN", TOKEN[:-1] + "2")
    assert deploy("up") == 0
    codebuild.state.push = push_images
    build = ["remote-build", "--base-image", "python:3.11", "remote"]
    assert deploy(*build) == 0
    codebuild.state.projects["stylebot-build"]["timeoutInMinutes"] = 5
    assert deploy(*build[:-1], "other") == 0
    assert deploy("login-password") == 0
    fake.quotas["ml.g6.xlarge for endpoint usage"] = 0
    arguments = ["--instance-type", "ml.g6.xlarge", "--request-quota"]
    assert deploy("up", *arguments) == 0
    fake.quotas.clear()
    fake.push("nst", "def")
    assert deploy("up", "--instance-type", "ml.g5.xlarge", "--min-instances", "1") == 0
    assert deploy("history") == 0
    assert deploy("rollback", "nst") == 0
    put_list("list.csv", "https://example.com/a.jpg\n")
    source = f"s3://{BUCKET}/batch/list.csv"
    assert deploy("batch", "--input", source, "--style", "vintage") == 0
    training_jobs.behaviour.log = ["loading"]
    assert deploy("train", STYLE, "--name", "klimt") == 0
    training_jobs.behaviour.failure_reason = "AlgorithmError"
    assert deploy("train", STYLE, "--name", "monet") == 1
    training_jobs.behaviour.failure_reason = ""
    assert deploy("train", STYLE, "--name", "monet", "--no-wait") == 0
    fake.confirmed |= {"a@example.com", "b@example.com"}
    assert deploy("status") == 0
    assert deploy("logs") == 0
    assert deploy("cost") == 0
    [*_, running] = list_training_jobs()
    assert deploy("train", "--stop", running) == 0
    assert deploy("repositories", "abc") == 0
    assert deploy("down", "--purge", "--yes") == 0

    # The boundary is an administrator's.
    allowed = {"iam:CreatePolicy"}
    for name in (
        "deployer",
        "deployer-bot",
        "deployer-build",
        "deployer-iam",
        "deployer-watch",
    ):
        allowed |= allowed_actions(name)
    for call in sorted(set(wire.calls) - {NEEDS_NO_PERMISSION}):
        assert action(call) in allowed, f"{call} is made, but not allowed"


def action(call: str) -> str:
    """Return the IAM action that allows a call such as "s3:HeadBucket"."""
    service, operation = call.split(":")
    if service == "sagemaker-runtime":
        service = "sagemaker"
    if service == "service-quotas":
        service = "servicequotas"
    if service == "s3":
        operation = S3_ACTIONS.get(operation, operation)
    if service == "resourcegroupstaggingapi":
        service = "tag"
    if service == "budgets":
        operation = BUDGETS_ACTIONS.get(operation, operation)
    return f"{service}:{operation}"
