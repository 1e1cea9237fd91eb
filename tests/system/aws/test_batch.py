"""The command batch."""

import json
from typing import Any

import boto3
import pytest

from aws import batch
from aws.account import Account
from tests.fakes import aws as fake
from tests.system.aws.helpers import (
    BUCKET,
    Deploy,
    Wire,
    describe_config,
    list_keys,
    put_list,
)

FOLDER = f"s3://{BUCKET}/batch"
EXECUTION_ROLE = f"stylebot-execution-{fake.REGION}"


@pytest.fixture
def up(pushed: None, deploy: Deploy) -> None:
    """Both endpoints, and pictures in the bucket."""
    assert deploy("up") == 0
    for name in ("a.jpg", "b.jpg", "broken.jpg"):
        boto3.client("s3").put_object(Bucket=BUCKET, Key=f"batch/{name}", Body=name.encode())


def create_photos_bucket() -> None:
    """Create another bucket with a.jpg and list.csv."""
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="photos", CreateBucketConfiguration={"LocationConstraint": fake.REGION})
    for key in ("a.jpg", "list.csv"):
        s3.put_object(Bucket="photos", Key=key, Body=b"s3://photos/a.jpg\n")


def list_jobs() -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = boto3.client("sagemaker").list_transform_jobs()[
        "TransformJobSummaries"
    ]
    return jobs


def read_object(key: str) -> str:
    text: str = boto3.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()
    return text


def list_execution_policies() -> list[str]:
    found = boto3.client("iam").list_role_policies(RoleName=EXECUTION_ROLE)
    names: list[str] = found["PolicyNames"]
    return names


@pytest.mark.usefixtures("up")
def test_a_batch_of_csv_stylizes_every_row_and_reports_those_that_failed(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [
        "content_url,style_name,result_url",
        f"{FOLDER}/a.jpg",
        f"{FOLDER}/broken.jpg,monet",
        "",
        f"{FOLDER}/b.jpg,cezanne,{FOLDER}/mine/b.jpg",
    ]
    source = put_list("list.csv", "\n".join(rows))
    output = f"{FOLDER}/out/"
    assert deploy("batch", "--input", source, "--style", "vintage", "--output", output) == 1

    printed = capfd.readouterr()
    message = "The photograph is not a readable image. (image_unreadable)"
    assert f"row 2, {FOLDER}/broken.jpg: {message}" in printed.out
    assert "2 of 3 pictures stylized" in printed.out
    assert "Completed, 1 of 3 pictures" in printed.err
    assert list_keys("batch/out/") == ["batch/out/00001-a.jpg"]
    assert list_keys("batch/mine/") == ["batch/mine/b.jpg"]

    [summary] = list_jobs()
    name = summary["TransformJobName"]
    job = boto3.client("sagemaker").describe_transform_job(TransformJobName=name)
    assert job["TransformInput"]["ContentType"] == "text/csv"
    variant = describe_config("cyclegan")["ProductionVariants"][0]
    assert job["ModelName"] == variant["ModelName"]
    assert job["BatchStrategy"] == "SingleRecord"
    assert job["MaxConcurrentTransforms"] == 1

    url = job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
    first, second, third = read_object(url.split("/", 3)[3]).splitlines()
    assert first == f"{FOLDER}/a.jpg,vintage,{FOLDER}/out/00001-a.jpg"
    assert second.split(",")[1] == "monet"
    assert third == rows[-1]


@pytest.mark.usefixtures("up")
def test_a_batch_of_json_lines_takes_any_pictures_style(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"content_url": f"{FOLDER}/a.jpg", "strength": 0.3},
        {"content_url": f"{FOLDER}/b.jpg", "style_url": "https://x/y.jpg"},
    ]
    source = put_list("list.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    assert deploy("batch", "--input", source, "--style", f"{FOLDER}/style.jpg") == 0
    assert "2 of 2 pictures stylized" in capfd.readouterr().out

    [summary] = list_jobs()
    name = summary["TransformJobName"]
    first, second = map(json.loads, read_object(f"batch/{name}/input").splitlines())
    assert first["style_url"] == f"{FOLDER}/style.jpg"
    assert first["strength"] == 0.3
    assert second["style_url"] == "https://x/y.jpg"
    assert len(list_keys(f"batch/{name}/results/")) == 2


def open_boundary(bucket: str) -> None:
    """Let the roles reach another bucket, as an administrator does."""
    iam = boto3.client("iam")
    arn = f"arn:aws:iam::{fake.ACCOUNT}:policy/stylebot-boundary-{fake.REGION}"
    version = iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]
    statement = {
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:PutObject"],
        "Resource": [f"arn:aws:s3:::{bucket}/*"],
    }
    document = version["Document"]
    document["Statement"].append(statement)
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=json.dumps(document), SetAsDefault=True)


@pytest.mark.usefixtures("up")
def test_a_batch_opens_other_buckets_only_while_it_runs(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    create_photos_bucket()
    iam = boto3.client("iam")
    watch_job = batch.watch_job
    statements = []

    def watch_and_look(account: Account, job: batch.BatchJob) -> None:
        [name] = set(list_execution_policies()) - {"execution"}
        policy = iam.get_role_policy(RoleName=EXECUTION_ROLE, PolicyName=name)
        statements.append(policy["PolicyDocument"]["Statement"][0])
        watch_job(account, job)

    monkeypatch.setattr(batch, "watch_job", watch_and_look)
    options = ["--input", "s3://photos/list.csv", "--output", "s3://photos/out"]
    capfd.readouterr()
    assert deploy("batch", *options, "--style", "vintage") == 1
    assert "the permissions boundary stylebot-boundary" in capfd.readouterr().err
    assert statements == [], "a job was started"
    open_boundary("photos")
    assert deploy("batch", *options, "--style", "vintage") == 0
    assert statements[0]["Resource"] == ["arn:aws:s3:::photos/*"]
    assert set(statements[0]["Action"]) == {"s3:GetObject", "s3:PutObject"}
    found = boto3.client("s3").list_objects_v2(Bucket="photos", Prefix="out/")
    assert found["KeyCount"] == 1
    assert list_execution_policies() == ["execution"]


@pytest.mark.usefixtures("up")
def test_the_log_of_batches_expires_and_goes_with_down(deploy: Deploy) -> None:
    logs = boto3.client("logs")
    source = put_list("list.csv", "https://example.com/a.jpg\n")
    name = "/aws/sagemaker/TransformJobs"
    assert deploy("batch", "--input", source, "--style", "vintage") == 0
    [group] = logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    assert group["retentionInDays"] == 30
    assert deploy("down", "--yes") == 0
    assert logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"] == []


@pytest.mark.usefixtures("up")
def test_a_killed_batch_leaves_no_open_bucket_behind_for_long(deploy: Deploy) -> None:
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::photos/*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    boto3.client("iam").put_role_policy(
        RoleName=EXECUTION_ROLE,
        PolicyName="stylebot-nst-20261122-101112",
        PolicyDocument=json.dumps(policy),
    )
    source = put_list("list.csv", "https://example.com/a.jpg\n")
    assert deploy("batch", "--input", source, "--style", "vintage") == 0
    assert list_execution_policies() == ["execution"]


@pytest.mark.usefixtures("up")
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.csv", "", "has no rows"),
        ("list.txt", "x", "must end in .csv or .jsonl"),
        ("list.jsonl", "{}\nnot JSON\n", "Line 2 of the list is no JSON object"),
        ("nosuch.csv", None, "/batch/nosuch.csv does not exist"),
    ],
)
def test_a_list_that_cannot_be_read_is_reported(
    name: str,
    text: str | None,
    message: str,
    deploy: Deploy,
    capfd: pytest.CaptureFixture[str],
) -> None:
    source = f"{FOLDER}/{name}"
    if text is not None:
        put_list(name, text)
    assert deploy("batch", "--input", source, "--style", "vintage") == 1
    assert message in capfd.readouterr().err
    assert list_jobs() == []


def test_a_batch_without_endpoints_says_what_to_do_first(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    create_photos_bucket()
    wire.calls.clear()
    assert deploy("batch", "--input", "s3://photos/list.csv", "--style", "monet") == 1
    printed = capfd.readouterr().err
    assert "The endpoint stylebot-cyclegan does not exist" in printed
    assert "Run this first: ./deploy.py up" in printed
    assert wire.changes() == [], "something was changed before the endpoint was looked for"


def test_an_input_that_is_no_s3_url_is_reported(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("batch", "--input", "list.csv", "--style", "monet") == 1
    assert "--input must be a URL such as s3://" in capfd.readouterr().err
