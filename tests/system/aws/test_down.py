"""The command down: what it removes, what it keeps, and whom it asks."""

import sys
from typing import Any

import boto3
import pytest

from tests.fakes import aws as fake
from tests.system.aws.helpers import (
    BUCKET,
    STYLE,
    Deploy,
    list_keys,
    list_training_jobs,
    push_images,
    without_bucket,
)

BOT_IDENTITY = f"stylebot-bot-{fake.REGION}"


@pytest.mark.usefixtures("pushed")
def test_down_takes_what_up_made_and_nothing_else(deploy: Deploy) -> None:
    """Not what has the name without the tag, nor another prefix's tag, nor another deployment."""
    create_what_others_made()
    assert deploy("repositories", "--prefix", "other", "abc") == 0
    push_images(prefix="other")
    assert deploy("up", "--prefix", "other") == 0
    before = fake.snapshot()

    assert deploy("up") == 0
    assert deploy("down", "--purge", "--yes") == 0
    expected = before["repositories"]
    before["repositories"] = [
        repository for repository in expected if "stylebot" not in repository["repositoryName"]
    ]
    assert fake.snapshot() == before


def create_what_others_made() -> None:
    """Create resources that look like ours."""
    sagemaker = boto3.client("sagemaker")
    role = f"arn:aws:iam::{fake.ACCOUNT}:role/x"
    sagemaker.create_model(
        ModelName="stylebot-nst-0123456789", ExecutionRoleArn=role, PrimaryContainer={"Image": "i"}
    )
    sagemaker.create_model(
        ModelName="stylebot-nst-0123456780",
        ExecutionRoleArn=role,
        PrimaryContainer={},
        Tags=[{"Key": "stylebot", "Value": "other"}],
    )
    boto3.client("iam").create_user(UserName=BOT_IDENTITY)
    boto3.client("s3").create_bucket(
        Bucket="photos", CreateBucketConfiguration={"LocationConstraint": fake.REGION}
    )
    boto3.client("logs").create_log_group(logGroupName="/aws/sagemaker/Endpoints/stylebot-nst-mine")
    boto3.client("cloudwatch").put_metric_alarm(
        AlarmName="stylebot-nst-mine",
        Namespace="x",
        MetricName="x",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )


@pytest.mark.usefixtures("pushed")
def test_down_keeps_images_and_bucket_unless_told_to_purge(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    empty = fake.snapshot()
    assert deploy("up") == 0
    boto3.client("s3").put_object(Bucket=BUCKET, Key="chats/1.json", Body=b"{}")
    assert deploy("down", "--yes") == 0
    assert f"The images and the bucket {BUCKET} are kept" in capfd.readouterr().err
    assert without_bucket(fake.snapshot()) == empty
    kept = list_keys("")
    assert "chats/1.json" in kept
    assert "models/catalog.json" in kept
    assert "models/training.json" not in kept, "it names a role that is removed"

    assert deploy("down", "--purge", "--yes") == 0
    after = fake.snapshot()
    assert after["repositories"] == []
    assert BUCKET not in after
    assert deploy("down", "--purge", "--yes") == 0
    assert "Nothing of stylebot exists" in capfd.readouterr().err


ENDPOINT_ARN = f"arn:aws:sagemaker:{fake.REGION}:{fake.ACCOUNT}:endpoint/stylebot-nst"


@pytest.mark.usefixtures("pushed")
def test_down_proves_by_a_search_for_the_tag_that_nothing_is_left(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up", "--bot", "role", "--notify", "vera@example.com", "--budget", "50") == 0
    assert deploy("up", "--bot", "user") == 0
    assert deploy("train", STYLE, "--name", "klimt") == 0
    assert len(find_tagged()) > 15

    capfd.readouterr()
    assert deploy("down", "--yes") == 0
    assert "No service lists anything else" in capfd.readouterr().err
    kept = {arn.rpartition(":")[2].split("/")[0] for arn in find_tagged()}
    assert kept == {BUCKET, "repository", "training-job"}, "a training's history cannot be deleted"

    assert deploy("down", "--purge", "--yes") == 0
    assert {arn.rpartition(":")[2].split("/")[0] for arn in find_tagged()} == {"training-job"}


def find_tagged() -> list[str]:
    """Return the ARNs of everything with the tag, in our region and of what has no region."""
    arns = []
    for region in (fake.REGION, "us-east-1"):
        client = boto3.client("resourcegroupstaggingapi", region_name=region)
        filters = [{"Key": "stylebot", "Values": ["stylebot"]}]
        for page in client.get_paginator("get_resources").paginate(TagFilters=filters):
            arns += [item["ResourceARN"] for item in page["ResourceTagMappingList"]]
    return arns


@pytest.mark.usefixtures("pushed")
def test_what_aws_still_lists_is_waited_for_then_named(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    fake.ghosts[ENDPOINT_ARN] = 5
    assert deploy("down", "--yes") == 0

    fake.ghosts[ENDPOINT_ARN] = 1000
    capfd.readouterr()
    assert deploy("down", "--yes") == 1
    printed = capfd.readouterr().err
    assert f"  {ENDPOINT_ARN}\n" in printed
    assert "may cost money" in printed


@pytest.mark.usefixtures("pushed")
def test_something_of_another_service_is_named(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    tags = {"stylebot": "stylebot"}
    boto3.client("sqs").create_queue(QueueName="forgotten", tags=tags)
    boto3.client("sqs", region_name="us-east-1").create_queue(QueueName="elsewhere", tags=tags)
    boto3.client("sqs").create_queue(QueueName="others", tags={"stylebot": "other"})
    assert deploy("down", "--yes") == 1
    printed = capfd.readouterr().err
    assert ":forgotten\n" in printed
    assert "elsewhere" not in printed
    assert "others" not in printed


@pytest.mark.usefixtures("pushed")
@pytest.mark.parametrize(("answer", "code"), [("yes", 0), ("y", 1), ("", 1)])
def test_down_prints_what_it_removes_and_asks(
    answer: str,
    code: int,
    deploy: Deploy,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert deploy("up") == 0
    before = fake.snapshot()
    capfd.readouterr()
    monkeypatch.setattr("builtins.input", lambda question: answer)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert deploy("down") == code
    printed = capfd.readouterr().err
    assert "will delete the endpoint stylebot-nst" in printed
    assert (fake.snapshot() == before) == bool(code)
    assert ("Nothing was removed." in printed) == bool(code)


@pytest.mark.usefixtures("pushed")
def test_down_without_anybody_to_ask_removes_nothing(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    before = fake.snapshot()
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert deploy("down") == 1
    assert "--yes" in capfd.readouterr().err
    assert fake.snapshot() == before


@pytest.mark.usefixtures("pushed")
def test_down_stops_the_trainings_of_this_deployment_only(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    assert deploy("train", STYLE, "--name", "klimt", "--no-wait") == 0
    [ours] = list_training_jobs()
    sagemaker = boto3.client("sagemaker")
    arguments = describe_arguments(ours)
    sagemaker.create_training_job(**arguments, TrainingJobName="stylebot-train-mine")
    other = [{"Key": "stylebot", "Value": "other"}]
    sagemaker.create_training_job(
        **arguments, TrainingJobName="other-stylebot-train-klimt", Tags=other
    )

    assert deploy("down", "--yes") == 0
    assert f"stop the training {ours}" in capfd.readouterr().err
    statuses = {
        job["TrainingJobName"]: job["TrainingJobStatus"]
        for job in sagemaker.list_training_jobs()["TrainingJobSummaries"]
    }
    assert statuses == {
        ours: "Stopped",
        "stylebot-train-mine": "InProgress",
        "other-stylebot-train-klimt": "InProgress",
    }


def describe_arguments(job: str) -> dict[str, Any]:
    """Return the arguments with which a job was created, without its name and tags."""
    sagemaker = boto3.client("sagemaker")
    description = sagemaker.describe_training_job(TrainingJobName=job)
    shape = sagemaker.meta.service_model.operation_model("CreateTrainingJob").input_shape
    names = set(shape.members) - {"TrainingJobName", "Tags"}
    return {name: description[name] for name in names if name in description}


@pytest.mark.usefixtures("pushed")
def test_down_takes_the_keys_that_the_bots_user_was_given(deploy: Deploy) -> None:
    assert deploy("up", "--bot", "user") == 0
    iam = boto3.client("iam")
    iam.create_access_key(UserName=BOT_IDENTITY)
    assert deploy("down", "--yes") == 0
    assert iam.list_users()["Users"] == []
