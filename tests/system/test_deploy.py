"""deploy.py against an AWS account on this machine: moto, taught what it lacks (tests/fakes/aws.py)."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

import deploy
from tests.fakes import aws
from tests.fakes.servers import ROOT
from tests.unit.test_policies import as_list, statements

Json = Any
BUCKET = f"stylebot-{aws.ACCOUNT}-{aws.REGION}"
READS = ("Describe", "List", "Get", "Head", "BatchGet", "FilterLogEvents")


class KilledError(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@dataclass
class Wire:
    """All calls that boto3 makes, in order. After `kill_after` changes no call begins or ends any more, as in a program
    that is killed then."""

    calls: list[str] = field(default_factory=list)  # "s3:PutObject"
    kill_after: int | None = None
    refuse: str | None = None  # the operation that AWS refuses
    done: int = 0  # changes that have been made
    lock: threading.Lock = field(default_factory=threading.Lock)

    def before(self, model: Json, **_: Json) -> None:
        self.die_if_killed()
        self.calls.append(f"{model.service_model.service_name}:{model.name}")

    def after(self, http_response: Json, parsed: Json, model: Json, **_: Json) -> None:
        with self.lock:
            self.done += is_change(model.name)
        self.die_if_killed()
        if model.name == self.refuse:
            http_response.status_code = 400
            message = f"User: arn:aws:iam::{aws.ACCOUNT}:user/me is not authorized to perform: {model.name}"
            parsed["Error"] = {"Code": "AccessDeniedException", "Message": message}

    def die_if_killed(self) -> None:
        if self.kill_after is not None and self.done >= self.kill_after:
            raise KilledError

    def changes(self) -> list[str]:
        return [call for call in self.calls if is_change(call.split(":")[1])]


def is_change(operation: str) -> bool:
    return not operation.startswith(READS)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with aws.account() as address:
        yield address


@pytest.fixture(scope="module")
def session() -> boto3.Session:
    """One for all tests, as reading the services' descriptions takes boto3 a second."""
    return boto3.Session(region_name=aws.REGION)


@pytest.fixture(autouse=True)
def wire(url: str, session: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """An empty account, and the wire to it."""
    aws.forget_everything(url)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in aws.environment(url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(deploy, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(deploy, "ROLE_SECONDS", 0.1)
    monkeypatch.setattr(deploy, "Session", lambda region_name: session)
    wire = Wire()
    session.events.register("before-call", wire.before)
    session.events.register("after-call", wire.after)
    yield wire
    session.events.unregister("before-call", wire.before)
    session.events.unregister("after-call", wire.after)


@pytest.fixture
def pushed() -> None:
    """Images in ECR."""
    assert deploy.main(["repositories", "abc"]) == 0
    for kind in deploy.IMAGES:
        aws.push(kind, "abc")


def describe(kind: str) -> tuple[Json, Json]:
    """An endpoint and its configuration."""
    sagemaker = boto3.client("sagemaker")
    endpoint = sagemaker.describe_endpoint(EndpointName=f"stylebot-{kind}")
    return endpoint, sagemaker.describe_endpoint_config(
        EndpointConfigName=endpoint["EndpointConfigName"]
    )


# ---------------------------------------------------------------- up


@pytest.mark.usefixtures("pushed")
def test_up_prints_what_the_bot_needs_and_no_secret(capfd: pytest.CaptureFixture[str]) -> None:
    assert deploy.main(["up"]) == 0
    told = capfd.readouterr()
    environment = dict(line.split("=") for line in told.out.splitlines()[-4:])
    assert environment == {
        "AWS_DEFAULT_REGION": aws.REGION,
        "BUCKET": BUCKET,
        "NST_ENDPOINT": "stylebot-nst",
        "CYCLEGAN_ENDPOINT": "stylebot-cyclegan",
    }
    assert "testing" not in told.out + told.err
    for kind in deploy.KINDS:
        assert f"stylebot-{kind}: Creating" in told.err
        assert f"stylebot-{kind}: painted a test picture in" in told.err
    assert re.search(r"Estimate of \d{4}-\d\d-\d\d", told.err)
    assert "assumed" in told.err


@pytest.mark.usefixtures("pushed")
def test_up_makes_asynchronous_endpoints_of_the_images_by_digest() -> None:
    assert deploy.main(["up"]) == 0
    for kind, concurrency in (("nst", 1), ("cyclegan", 2)):
        endpoint, config = describe(kind)
        [variant] = config["ProductionVariants"]
        assert endpoint["EndpointStatus"] == "InService"
        assert variant["InstanceType"] == "ml.g4dn.xlarge"
        assert variant["InferenceAmiVersion"] == "al2023-ami-sagemaker-inference-gpu-4-1"
        asynchronous = config["AsyncInferenceConfig"]
        assert asynchronous["ClientConfig"]["MaxConcurrentInvocationsPerInstance"] == concurrency
        assert asynchronous["OutputConfig"] == {
            "S3OutputPath": f"s3://{BUCKET}/async/output/",
            "S3FailurePath": f"s3://{BUCKET}/async/failure/",
        }
        model = boto3.client("sagemaker").describe_model(ModelName=variant["ModelName"])
        assert re.fullmatch(
            rf"\d+\.dkr\..*/stylebot-{kind}@sha256:\w{{64}}", model["PrimaryContainer"]["Image"]
        )
        assert model["PrimaryContainer"]["Environment"] == {"AWS_DEFAULT_REGION": aws.REGION}


@pytest.mark.usefixtures("pushed")
def test_an_endpoint_sleeps_and_is_woken_by_the_first_picture() -> None:
    assert deploy.main(["up"]) == 0
    scaling, watch = boto3.client("application-autoscaling"), boto3.client("cloudwatch")
    for kind in deploy.KINDS:
        where = deploy.scalable_target(f"stylebot-{kind}")
        [target] = scaling.describe_scalable_targets(
            ServiceNamespace="sagemaker", ResourceIds=[where["ResourceId"]]
        )["ScalableTargets"]
        assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 2)
        policies = {
            one["PolicyType"]: one
            for one in scaling.describe_scaling_policies(**where)["ScalingPolicies"]
        }
        follow = policies["TargetTrackingScaling"]["TargetTrackingScalingPolicyConfiguration"]
        assert (
            follow["CustomizedMetricSpecification"]["MetricName"]
            == "ApproximateBacklogSizePerInstance"
        )
        assert follow["ScaleInCooldown"] > deploy.JOB_SECONDS
        step = policies["StepScaling"]["StepScalingPolicyConfiguration"]
        assert step["AdjustmentType"] == "ChangeInCapacity"
        assert step["StepAdjustments"] == [
            {"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}
        ]
        [alarm] = watch.describe_alarms(AlarmNames=[f"stylebot-{kind}-wake"])["MetricAlarms"]
        assert alarm["MetricName"] == "HasBacklogWithoutCapacity"
        assert alarm["AlarmActions"] == [policies["StepScaling"]["PolicyARN"]]
        assert (alarm["Period"], alarm["EvaluationPeriods"], alarm["DatapointsToAlarm"]) == (
            60,
            2,
            2,
        )
        assert (alarm["Statistic"], alarm["Threshold"], alarm["TreatMissingData"]) == (
            "Average",
            1.0,
            "missing",
        )


@pytest.mark.usefixtures("pushed")
def test_the_bucket_is_private_encrypted_and_forgets() -> None:
    assert deploy.main(["up"]) == 0
    s3 = boto3.client("s3")
    assert all(s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"].values())
    [rule] = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    rules = s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    days = {rule["Filter"]["Prefix"]: rule["Expiration"]["Days"] for rule in rules}
    assert days == {"jobs/": 1, "async/": 1, "chats/": 30}
    [statement] = json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


@pytest.mark.usefixtures("pushed")
def test_up_leaves_no_trace_of_its_test_pictures() -> None:
    assert deploy.main(["up"]) == 0
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket=BUCKET)


@pytest.mark.usefixtures("pushed")
def test_a_second_up_changes_nothing(wire: Wire, capfd: pytest.CaptureFixture[str]) -> None:
    assert deploy.main(["up", "--bot", "role"]) == 0
    before = aws.snapshot()
    wire.calls.clear()
    assert deploy.main(["up", "--bot", "role"]) == 0
    test_pictures = {"s3:PutObject", "s3:DeleteObjects", "sagemaker-runtime:InvokeEndpointAsync"}
    assert set(wire.changes()) == test_pictures
    assert aws.snapshot() == before
    assert "All was in place already." in capfd.readouterr().err
    assert deploy.main(["up", "--bot", "role", "--plan"]) == 0
    assert capfd.readouterr().out == "Nothing to change.\n"


@pytest.mark.parametrize("images", [True, False])
def test_a_plan_tells_every_change_and_makes_none(
    images: bool, wire: Wire, capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    if images:
        request.getfixturevalue("pushed")
    before = aws.snapshot()
    wire.calls.clear()
    capfd.readouterr()
    assert deploy.main(["up", "--plan", "--bot", "user"]) == 0
    assert wire.changes() == []
    assert aws.snapshot() == before
    planned = capfd.readouterr().out.splitlines()
    told = {line.removeprefix("would ") for line in planned if line.startswith("would ")}
    assert len(told) == int(planned[-1].split()[0])
    assert ("first, stylebot-nst is to be pushed" in "\n".join(planned)) == (not images)
    if images:
        assert deploy.main(["up", "--bot", "user"]) == 0
        done = set(capfd.readouterr().err.splitlines())
        assert told - {"set the bucket up: tag it"} <= done, "what was planned was not done"


@pytest.mark.usefixtures("pushed")
def test_options_reach_the_endpoints() -> None:
    options = [
        "--instance-type",
        "nst=ml.g5.xlarge,cyclegan=ml.c5.4xlarge",
        "--concurrency",
        "cyclegan=3",
    ]
    options += [
        "--min-instances",
        "1",
        "--max-instances",
        "4",
        "--ami",
        "al2-ami-sagemaker-inference-gpu-3-1",
    ]
    assert (
        deploy.main(["up", "--prefix", "art", *options, "--image-tag", "abc"]) == 1
    )  # its own images are missing
    assert deploy.main(["repositories", "--prefix", "art", "abc"]) == 0
    for kind in deploy.IMAGES:
        aws.push(kind, "abc", prefix="art")
    assert deploy.main(["up", "--prefix", "art", *options, "--tags", "team=paint"]) == 0
    sagemaker, scaling = boto3.client("sagemaker"), boto3.client("application-autoscaling")
    expected = {
        "nst": ("ml.g5.xlarge", "al2-ami-sagemaker-inference-gpu-3-1", 1),
        "cyclegan": ("ml.c5.4xlarge", None, 3),
    }
    for kind, (machine, ami, concurrency) in expected.items():
        endpoint = sagemaker.describe_endpoint(EndpointName=f"art-{kind}")
        config = sagemaker.describe_endpoint_config(
            EndpointConfigName=endpoint["EndpointConfigName"]
        )
        [variant] = config["ProductionVariants"]
        assert (variant["InstanceType"], variant.get("InferenceAmiVersion")) == (machine, ami)
        assert (
            config["AsyncInferenceConfig"]["ClientConfig"]["MaxConcurrentInvocationsPerInstance"]
            == concurrency
        )
        tags = sagemaker.list_tags(ResourceArn=endpoint["EndpointArn"])["Tags"]
        assert {"Key": "team", "Value": "paint"} in tags
        assert {"Key": "stylebot", "Value": "art"} in tags
        assert not boto3.client("cloudwatch").describe_alarms(AlarmNames=[f"art-{kind}-wake"])[
            "MetricAlarms"
        ]
    targets = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert {(target["MinCapacity"], target["MaxCapacity"]) for target in targets} == {(1, 4)}


@pytest.mark.usefixtures("pushed")
def test_a_pair_that_no_longer_sleeps_needs_no_alarm_and_gets_it_back() -> None:
    assert deploy.main(["up"]) == 0
    asleep = aws.snapshot()
    assert deploy.main(["up", "--min-instances", "1"]) == 0
    assert not [name for name in aws.snapshot() if name.endswith("-wake")]
    assert deploy.main(["up"]) == 0
    assert aws.snapshot() == asleep


@pytest.mark.usefixtures("pushed")
def test_a_new_image_is_taken_without_downtime_and_the_old_model_goes(wire: Wire) -> None:
    assert deploy.main(["up"]) == 0
    aws.push("nst", "def", content="new")
    wire.calls.clear()
    assert deploy.main(["up"]) == 0
    assert wire.changes().count("sagemaker:UpdateEndpoint") == 1
    assert not {"sagemaker:DeleteEndpoint", "sagemaker:CreateEndpoint"} & set(wire.calls)
    assert not [call for call in wire.changes() if "Scalable" in call], (
        "scaling is to be left alone"
    )
    sagemaker = boto3.client("sagemaker")
    assert len(sagemaker.list_models()["Models"]) == 2
    assert len(sagemaker.list_endpoint_configs()["EndpointConfigs"]) == 2
    assert deploy.main(["up", "--image-tag", "abc"]) == 0  # and back
    assert wire.changes().count("sagemaker:UpdateEndpoint") == 2


@pytest.mark.usefixtures("pushed")
def test_another_instance_type_is_taken_although_a_scaling_target_refuses_it() -> None:
    assert deploy.main(["up"]) == 0
    before = aws.snapshot()
    assert deploy.main(["up", "--instance-type", "ml.g6.xlarge"]) == 0
    assert describe("nst")[1]["ProductionVariants"][0]["InstanceType"] == "ml.g6.xlarge"
    assert aws.snapshot()["policies"] == before["policies"]
    assert aws.snapshot()["targets"] == before["targets"]


def test_an_update_keeps_the_number_of_instances_and_rolls_back_by_itself(wire: Wire) -> None:
    """Asked of botocore's Stubber, which compares every argument: moto has no UpdateEndpoint."""
    cloud = deploy.Cloud("stylebot", aws.REGION)
    endpoint = deploy.Endpoint("nst", "stylebot-nst", "ml.g4dn.xlarge", 0, 2, 1, "ami")
    expected = {
        "EndpointName": "stylebot-nst",
        "EndpointConfigName": "new",
        "RetainAllVariantProperties": True,
        "DeploymentConfig": {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": {
                    "Type": "ALL_AT_ONCE",
                    "WaitIntervalInSeconds": 300,
                },
                "TerminationWaitInSeconds": deploy.JOB_SECONDS,
                "MaximumExecutionTimeoutInSeconds": 3600,
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "stylebot-nst-faults"}]},
        },
    }
    config = {
        "EndpointConfigName": "old",
        "EndpointConfigArn": "arn:aws:sagemaker:::x",
        "CreationTime": 0,
    }
    config["ProductionVariants"] = [{"VariantName": "AllTraffic", "InstanceType": "ml.g4dn.xlarge"}]
    with Stubber(cloud.sagemaker) as stub:
        stub.add_response("describe_endpoint_config", config, {"EndpointConfigName": "old"})
        stub.add_response(
            "update_endpoint", {"EndpointArn": "arn:aws:sagemaker:eu-west-1:1:endpoint/e"}, expected
        )
        deploy.update_endpoint(cloud, endpoint, "old", "new")
        stub.assert_no_pending_responses()


@pytest.mark.usefixtures("pushed")
@pytest.mark.parametrize("kind", ["user", "role"])
def test_the_bots_identity_is_made_on_request(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    name = f"stylebot-bot-{aws.REGION}"
    assert deploy.main(["up", "--bot", kind]) == 0
    iam = boto3.client("iam")
    get = getattr(iam, f"get_{kind}_policy")
    document = get(**{f"{kind.title()}Name": name}, PolicyName="bot")["PolicyDocument"]
    capfd.readouterr()
    assert deploy.main(["policy", "bot"]) == 0
    assert document == json.loads(capfd.readouterr().out)
    if kind == "role":
        [role] = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]
        assert role["RoleName"] == name


# ---------------------------------------------------------------- interrupted


def start_anew(url: str, wire: Wire) -> None:
    """An account with images and nothing else."""
    aws.forget_everything(url)
    wire.kill_after = None
    assert deploy.main(["repositories", "abc"]) == 0
    for kind in deploy.IMAGES:
        aws.push(kind, "abc")
    wire.done = 0
    wire.calls.clear()


def without_bucket(account: dict[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in account.items() if name != BUCKET}


def test_up_killed_after_any_change_and_run_again_ends_the_same(url: str, wire: Wire) -> None:
    """A run killed after a call that only reads leaves what the change before it left."""
    start_anew(url, wire)
    empty = aws.snapshot()
    assert deploy.main(["up", "--bot", "role"]) == 0
    changes, whole = wire.done, aws.snapshot()
    assert changes > 30
    for count in range(1, changes):
        start_anew(url, wire)
        wire.kill_after = count
        with pytest.raises(KilledError):
            deploy.main(["up", "--bot", "role"])
        wire.kill_after = None
        if count % 10 == 0:  # taken down as it lies
            assert deploy.main(["down", "--yes"]) == 0
            assert without_bucket(aws.snapshot()) == empty, (
                f"killed after {count} changes and taken down"
            )
        assert deploy.main(["up", "--bot", "role"]) == 0
        assert aws.snapshot() == whole, f"killed after {count} changes and run again"
    assert deploy.main(["down", "--yes"]) == 0
    assert without_bucket(aws.snapshot()) == empty


def test_down_killed_after_any_change_and_run_again_leaves_nothing(url: str, wire: Wire) -> None:
    empty = aws.snapshot()
    for count in range(1, 100):
        start_anew(url, wire)
        assert deploy.main(["up", "--bot", "user"]) == 0
        wire.done, wire.kill_after = 0, 5 * count
        try:
            assert deploy.main(["down", "--purge", "--yes"]) == 0
            break
        except KilledError:
            wire.kill_after = None
        assert deploy.main(["down", "--purge", "--yes"]) == 0
        assert aws.snapshot() == empty, f"killed after {5 * count} changes"
    assert count > 3
    assert aws.snapshot() == empty


# ---------------------------------------------------------------- down


@pytest.mark.usefixtures("pushed")
def test_down_takes_what_up_made_and_nothing_else() -> None:
    """Not what has the name without the tag, nor the tag of another prefix, nor another deployment."""
    sagemaker, iam, s3 = boto3.client("sagemaker"), boto3.client("iam"), boto3.client("s3")
    role = f"arn:aws:iam::{aws.ACCOUNT}:role/x"
    other = [{"Key": "stylebot", "Value": "other"}]
    sagemaker.create_model(
        ModelName="stylebot-nst-0123456789", ExecutionRoleArn=role, PrimaryContainer={"Image": "i"}
    )
    sagemaker.create_model(
        ModelName="stylebot-nst-0123456780", ExecutionRoleArn=role, PrimaryContainer={}, Tags=other
    )
    iam.create_user(UserName=f"stylebot-bot-{aws.REGION}")
    s3.create_bucket(Bucket="photos", CreateBucketConfiguration={"LocationConstraint": aws.REGION})
    boto3.client("logs").create_log_group(logGroupName="/aws/sagemaker/Endpoints/stylebot-nst-mine")
    alarm = {
        "Namespace": "x",
        "MetricName": "x",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 1,
    }
    compare = {"ComparisonOperator": "GreaterThanThreshold", "Statistic": "Sum"}
    boto3.client("cloudwatch").put_metric_alarm(AlarmName="stylebot-nst-mine", **alarm, **compare)
    assert deploy.main(["repositories", "--prefix", "other", "abc"]) == 0
    for kind in deploy.IMAGES:
        aws.push(kind, "abc", prefix="other")
    assert deploy.main(["up", "--prefix", "other"]) == 0
    before = aws.snapshot()
    assert deploy.main(["up"]) == 0
    assert deploy.main(["down", "--purge", "--yes"]) == 0
    after = aws.snapshot()
    ours = [
        repository
        for repository in before["repositories"]
        if "stylebot" in repository["repositoryName"]
    ]
    before["repositories"] = [
        repository for repository in before["repositories"] if repository not in ours
    ]
    assert after == before


@pytest.mark.usefixtures("pushed")
def test_down_keeps_images_and_bucket_unless_told_to_purge(
    capfd: pytest.CaptureFixture[str],
) -> None:
    empty = aws.snapshot()
    assert deploy.main(["up"]) == 0
    boto3.client("s3").put_object(Bucket=BUCKET, Key="chats/1.json", Body=b"{}")
    assert deploy.main(["down", "--yes"]) == 0
    assert f"Images and the bucket {BUCKET} are kept" in capfd.readouterr().err
    assert without_bucket(aws.snapshot()) == empty
    assert keys("") == ["chats/1.json"]
    assert deploy.main(["down", "--purge", "--yes"]) == 0
    assert aws.snapshot()["repositories"] == []
    assert BUCKET not in aws.snapshot()
    assert deploy.main(["down", "--purge", "--yes"]) == 0
    assert "Nothing of stylebot is there" in capfd.readouterr().err


@pytest.mark.usefixtures("pushed")
@pytest.mark.parametrize(("answer", "code"), [("yes\n", 0), ("y\n", 1), ("\n", 1)])
def test_down_tells_what_goes_and_asks(
    answer: str, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy.main(["up"]) == 0
    before = aws.snapshot()
    capfd.readouterr()
    monkeypatch.setattr("builtins.input", lambda question: answer.strip())
    monkeypatch.setattr(deploy.sys.stdin, "isatty", lambda: True, raising=False)
    assert deploy.main(["down"]) == code
    told = capfd.readouterr().err
    assert "will delete the endpoint stylebot-nst" in told
    assert (aws.snapshot() == before) == bool(code)
    assert ("Nothing was removed." in told) == bool(code)


@pytest.mark.usefixtures("pushed")
def test_down_without_anybody_to_ask_removes_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy.main(["up"]) == 0
    before = aws.snapshot()
    monkeypatch.setattr(deploy.sys.stdin, "isatty", lambda: False, raising=False)
    assert deploy.main(["down"]) == 1
    assert "--yes" in capfd.readouterr().err
    assert aws.snapshot() == before


@pytest.mark.usefixtures("pushed")
def test_down_takes_the_keys_that_the_bots_user_was_given() -> None:
    assert deploy.main(["up", "--bot", "user"]) == 0
    boto3.client("iam").create_access_key(UserName=f"stylebot-bot-{aws.REGION}")
    assert deploy.main(["down", "--yes"]) == 0
    assert boto3.client("iam").list_users()["Users"] == []


# ---------------------------------------------------------------- what goes wrong, in words


def write_log(endpoint: str, *lines: str) -> None:
    logs, group = boto3.client("logs"), f"/aws/sagemaker/Endpoints/{endpoint}"
    logs.create_log_stream(logGroupName=group, logStreamName="AllTraffic/i-1")
    now = int(time.time() * 1000)
    events = [{"timestamp": now + number, "message": line} for number, line in enumerate(lines)]
    logs.put_log_events(logGroupName=group, logStreamName="AllTraffic/i-1", logEvents=events)


@pytest.mark.usefixtures("pushed")
def test_a_failed_endpoint_tells_its_reason_and_log_and_the_next_up_mends_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reason = "The primary container for production variant AllTraffic did not pass the ping health check."
    aws.failures["stylebot-nst"] = reason
    settled = deploy.settled

    def settled_with_log(cloud: Json, endpoint: str) -> Json:
        found = settled(cloud, endpoint)
        if (
            found
            and found["EndpointStatus"] == "Failed"
            and not deploy.last_log_lines(cloud, endpoint)
        ):
            write_log(
                endpoint,
                "loading the weights",
                "CUDA driver version is insufficient for CUDA runtime version",
            )
        return found

    monkeypatch.setattr(deploy, "settled", settled_with_log)
    assert deploy.main(["up"]) == 1
    told = capfd.readouterr().err
    assert reason in told
    assert "CUDA driver version is insufficient" in told
    assert "--ami" in told, "it does not say what to do"
    assert "Traceback" not in told
    assert describe("cyclegan")[0]["EndpointStatus"] == "InService", (
        "the other endpoint was left half done"
    )
    assert deploy.main(["status"]) == 0
    assert "stylebot-nst: Failed" in capfd.readouterr().out
    aws.failures.clear()
    assert deploy.main(["up"]) == 0
    assert describe("nst")[0]["EndpointStatus"] == "InService"


@pytest.mark.usefixtures("pushed")
def test_an_update_that_is_rolled_back_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert deploy.main(["up"]) == 0
    before = describe("nst")[0]["EndpointConfigName"]
    aws.failures["stylebot-nst"] = "Rollback was triggered by the alarm stylebot-nst-faults."
    assert deploy.main(["up", "--concurrency", "nst=2"]) == 1
    told = capfd.readouterr().err
    assert (
        "The endpoint stylebot-nst went back to what it was before: Rollback was triggered" in told
    )
    assert describe("nst")[0]["EndpointConfigName"] == before
    aws.failures.clear()
    assert deploy.main(["up", "--concurrency", "nst=2"]) == 0


@pytest.mark.usefixtures("pushed")
def test_a_test_picture_that_fails_is_told(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert deploy.main(["up"]) == 0
    aws.failures["stylebot-cyclegan"] = (
        "The picture could not be made because of a fault on our side."
    )
    assert deploy.main(["up"]) == 1
    assert "stylebot-cyclegan is up, but failed to paint a test picture" in capfd.readouterr().err
    aws.failures.clear()
    monkeypatch.setattr(deploy, "SMOKE_SECONDS", 0)
    assert deploy.main(["up"]) == 1
    assert "painted nothing in 0 minutes" in capfd.readouterr().err


def test_missing_images_are_told_with_the_command_that_pushes_them(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert deploy.main(["up"]) == 1
    assert f"./build.sh --push --region {aws.REGION}" in capfd.readouterr().err
    assert not boto3.client("s3").list_buckets()["Buckets"], (
        "something was made before the images were looked for"
    )


@pytest.mark.usefixtures("pushed")
def test_a_missing_tag_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert deploy.main(["up", "--image-tag", "nosuch"]) == 1
    assert "stylebot-nst:nosuch is not in ECR" in capfd.readouterr().err


@pytest.mark.usefixtures("pushed")
@pytest.mark.parametrize(
    "operation", ["DescribeImages", "CreateBucket", "CreateRole", "CreateModel", "PutScalingPolicy"]
)
def test_a_missing_permission_is_told_with_the_policy_that_has_it(
    operation: str, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    wire.refuse = operation
    assert deploy.main(["up"]) == 1
    told = capfd.readouterr().err
    assert f"is not authorized to perform: {operation}" in told
    assert "./deploy.py policy deployer" in told
    assert "Traceback" not in told


def run_program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """deploy.py as a user starts it, in a process of its own."""
    program = [sys.executable, str(ROOT / "deploy.py"), *arguments]
    return subprocess.run(
        program, env=os.environ | environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    "arguments", [["up"], ["up", "--plan"], ["status"], ["down"], ["login-password"]]
)
def test_without_credentials_it_says_how_to_log_in(arguments: list[str], tmp_path: Path) -> None:
    nothing = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": str(tmp_path)}
    done = run_program(*arguments, **nothing)
    assert done.returncode == 1
    assert "Log in first: aws configure" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("environment", "arguments", "told"),
    [
        ({"AWS_DEFAULT_REGION": ""}, ["status"], "No region is set. Name one: --region"),
        ({}, ["status", "--region", "eu-wst-1"], "one such as eu-west-1"),
        ({"AWS_PROFILE": "nosuch"}, ["status"], "Check AWS_PROFILE"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, ["status"], "Check the network"),
        (
            {},
            ["up", "--min-instances", "3", "--max-instances", "2"],
            "from 3 to 2 instances is no range",
        ),
    ],
)
def test_what_is_wrong_around_it_is_told(
    environment: dict[str, str], arguments: list[str], told: str, tmp_path: Path
) -> None:
    done = run_program(*arguments, **environment, HOME=str(tmp_path), AWS_MAX_ATTEMPTS="1")
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["up", "--concurrency", "gan=1"],
        ["up", "--prefix", "A_b"],
        ["up", "--tags", "art"],
        ["destroy"],
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        deploy.main(arguments)
    assert "usage:" in capfd.readouterr().err


@pytest.mark.parametrize(
    "code", ["ExpiredToken", "InvalidClientTokenId", "ResourceLimitExceeded", "ThrottlingException"]
)
def test_errors_of_aws_come_with_what_to_do(code: str) -> None:
    error = ClientError({"Error": {"Code": code, "Message": "No."}}, "CreateEndpoint")
    lines = deploy.explain(error).splitlines()
    assert code in lines[0]
    assert len(lines) == 2


def test_a_role_that_is_not_known_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "ROLE_SECONDS", 5)
    refusals = iter(
        [
            "Could not assume role arn:aws:iam::1:role/r.",
            "The role has no permission to pull the image.",
        ]
    )

    def create() -> str:
        for message in refusals:
            raise ClientError(
                {"Error": {"Code": "ValidationException", "Message": message}}, "CreateModel"
            )
        return "made"

    assert deploy.when_role_is_known(create) == "made"


# ---------------------------------------------------------------- status, permissions


@pytest.mark.usefixtures("pushed")
def test_status_tells_instances_backlog_image_and_errors(capfd: pytest.CaptureFixture[str]) -> None:
    assert deploy.main(["status"]) == 0
    assert "stylebot-nst: not there. ./deploy.py up makes it." in capfd.readouterr().out
    assert deploy.main(["up"]) == 0
    write_log(
        "stylebot-nst",
        '{"event": "request", "status": 200}',
        '{"error": "image_unreadable", "status": 422}',
    )
    where = [{"Name": "EndpointName", "Value": "stylebot-nst"}]
    point = {
        "MetricName": "ApproximateBacklogSize",
        "Dimensions": where,
        "Value": 7.0,
        "Timestamp": time.time() - 90,
    }
    boto3.client("cloudwatch").put_metric_data(Namespace="AWS/SageMaker", MetricData=[point])
    capfd.readouterr()
    assert deploy.main(["status"]) == 0
    nst, cyclegan = capfd.readouterr().out.split("stylebot-cyclegan:")
    assert "stylebot-nst: InService, 1 instance (0 to 2) of ml.g4dn.xlarge" in nst
    assert "backlog: 7 pictures" in nst
    assert re.search(r"image: abc, pushed today, sha256:\w+", nst)
    assert "image_unreadable" in nst
    assert "last errors: none" in cyclegan


S3_ACTIONS = {  # where S3's calls are allowed by another name
    "HeadBucket": "ListBucket", "ListObjectsV2": "ListBucket",
    "HeadObject": "GetObject", "DeleteObjects": "DeleteObject",
    "GetBucketEncryption": "GetEncryptionConfiguration", "PutBucketEncryption": "PutEncryptionConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock", "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
}  # fmt: skip


def test_the_deployers_policy_allows_every_call_that_is_made(url: str, wire: Wire) -> None:
    start_anew(url, wire)
    for kind in ("user", "role"):
        assert deploy.main(["up", "--bot", kind]) == 0
    assert deploy.main(["login-password"]) == 0
    aws.push("nst", "def")
    assert deploy.main(["up", "--instance-type", "ml.g5.xlarge", "--min-instances", "1"]) == 0
    put_list("list.csv", "https://example.com/a.jpg\n")
    assert (
        deploy.main(["batch", "--input", f"s3://{BUCKET}/batch/list.csv", "--style", "vintage"])
        == 0
    )
    assert deploy.main(["status"]) == 0
    assert deploy.main(["repositories", "abc"]) == 0
    assert deploy.main(["down", "--purge", "--yes"]) == 0
    allowed = {
        action for statement in statements("deployer") for action in as_list(statement["Action"])
    }
    for call in sorted(set(wire.calls) - {"sts:GetCallerIdentity"}):  # which needs no permission
        service, operation = call.replace("sagemaker-runtime", "sagemaker").split(":")
        operation = S3_ACTIONS.get(operation, operation) if service == "s3" else operation
        assert f"{service}:{operation}" in allowed, f"{call} is made, but not allowed"


# ---------------------------------------------------------------- batch


def put_list(name: str, text: str) -> str:
    boto3.client("s3").put_object(Bucket=BUCKET, Key=f"batch/{name}", Body=text.encode())
    return f"s3://{BUCKET}/batch/{name}"


def keys(prefix: str) -> list[str]:
    found = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=prefix)
    return [item["Key"] for item in found.get("Contents", [])]


@pytest.fixture
def up(pushed: None) -> None:
    assert deploy.main(["up"]) == 0
    for name in ("a.jpg", "b.jpg", "broken.jpg"):
        boto3.client("s3").put_object(Bucket=BUCKET, Key=f"batch/{name}", Body=name.encode())


@pytest.mark.usefixtures("up")
def test_a_batch_of_csv_paints_every_row_and_tells_those_that_failed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    here = f"s3://{BUCKET}/batch"
    rows = ["content_url,style_name,result_url", f"{here}/a.jpg", f"{here}/broken.jpg,monet", ""]
    rows += [f"{here}/b.jpg,cezanne,{here}/mine/b.jpg"]
    source = put_list("list.csv", "\n".join(rows))
    assert (
        deploy.main(["batch", "--input", source, "--style", "vintage", "--output", f"{here}/out/"])
        == 1
    )
    told = capfd.readouterr()
    assert (
        f"row 2, {here}/broken.jpg: The photograph is not a readable image. (image_unreadable)"
        in told.out
    )
    assert "2 of 3 pictures painted" in told.out
    assert keys("batch/out/") == ["batch/out/00001-a.jpg"]
    assert keys("batch/mine/") == ["batch/mine/b.jpg"]
    assert "Completed, 1 pictures of 3" in told.err
    [job] = boto3.client("sagemaker").list_transform_jobs()["TransformJobSummaries"]
    job = boto3.client("sagemaker").describe_transform_job(TransformJobName=job["TransformJobName"])
    assert job["TransformInput"]["ContentType"] == "text/csv"
    assert job["ModelName"] == describe("cyclegan")[1]["ProductionVariants"][0]["ModelName"]
    assert (job["BatchStrategy"], job["MaxConcurrentTransforms"]) == ("SingleRecord", 1)
    key = job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"].split("/", 3)[3]
    sent = boto3.client("s3").get_object(Bucket=BUCKET, Key=key)
    first, second, third = sent["Body"].read().decode().splitlines()
    assert first == f"{here}/a.jpg,vintage,{here}/out/00001-a.jpg"
    assert second.split(",")[1] == "monet"
    assert third == rows[-1]


@pytest.mark.usefixtures("up")
def test_a_batch_of_json_lines_takes_any_pictures_style(capfd: pytest.CaptureFixture[str]) -> None:
    here = f"s3://{BUCKET}/batch"
    rows = [
        {"content_url": f"{here}/a.jpg", "strength": 0.3},
        {"content_url": f"{here}/b.jpg", "style_url": "https://x/y.jpg"},
    ]
    source = put_list("list.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    assert deploy.main(["batch", "--input", source, "--style", f"{here}/style.jpg"]) == 0
    assert "2 of 2 pictures painted" in capfd.readouterr().out
    [job] = boto3.client("sagemaker").list_transform_jobs()["TransformJobSummaries"]
    key = f"batch/{job['TransformJobName']}/input"
    sent = (
        boto3.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read().decode().splitlines()
    )
    first, second = map(json.loads, sent)
    assert (first["style_url"], first["strength"]) == (f"{here}/style.jpg", 0.3)
    assert second["style_url"] == "https://x/y.jpg"
    assert len(keys(f"batch/{job['TransformJobName']}/results/")) == 2


@pytest.mark.usefixtures("up")
def test_a_batch_opens_other_buckets_only_while_it_runs(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3, iam = boto3.client("s3"), boto3.client("iam")
    s3.create_bucket(Bucket="photos", CreateBucketConfiguration={"LocationConstraint": aws.REGION})
    for key in ("a.jpg", "list.csv"):
        s3.put_object(Bucket="photos", Key=key, Body=b"s3://photos/a.jpg\n")
    watch, seen = deploy.watch_batch, []

    def look(*arguments: Json) -> None:
        names = iam.list_role_policies(RoleName=f"stylebot-execution-{aws.REGION}")["PolicyNames"]
        [name] = set(names) - {"execution"}
        document = iam.get_role_policy(
            RoleName=f"stylebot-execution-{aws.REGION}", PolicyName=name
        )["PolicyDocument"]
        seen.append(document["Statement"][0])
        watch(*arguments)

    monkeypatch.setattr(deploy, "watch_batch", look)
    command = [
        "batch",
        "--input",
        "s3://photos/list.csv",
        "--style",
        "vintage",
        "--output",
        "s3://photos/out",
    ]
    assert deploy.main(command) == 0
    assert seen[0]["Resource"] == ["arn:aws:s3:::photos/*"]
    assert set(seen[0]["Action"]) == {"s3:GetObject", "s3:PutObject"}
    assert s3.list_objects_v2(Bucket="photos", Prefix="out/")["KeyCount"] == 1
    assert iam.list_role_policies(RoleName=f"stylebot-execution-{aws.REGION}")["PolicyNames"] == [
        "execution"
    ]


@pytest.mark.usefixtures("up")
def test_a_killed_batch_leaves_no_open_bucket_behind_for_long(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    iam, role = boto3.client("iam"), f"stylebot-execution-{aws.REGION}"
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::photos/*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    iam.put_role_policy(
        RoleName=role, PolicyName="stylebot-nst-20261122-101112", PolicyDocument=json.dumps(policy)
    )
    source = put_list("list.csv", "https://example.com/a.jpg\n")
    assert deploy.main(["batch", "--input", source, "--style", "vintage"]) == 0
    assert iam.list_role_policies(RoleName=role)["PolicyNames"] == ["execution"]


@pytest.mark.usefixtures("up")
@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("list.csv", "", "has no rows"),
        ("list.txt", "x", "must end in .csv or .jsonl"),
        ("list.jsonl", "{}\nnot JSON\n", "Line 2 of the list is no JSON object"),
        ("nosuch.csv", None, "There is no s3://"),
    ],
)
def test_a_list_that_is_none_is_told(
    name: str, text: str | None, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    source = f"s3://{BUCKET}/batch/{name}" if text is None else put_list(name, text)
    assert deploy.main(["batch", "--input", source, "--style", "vintage"]) == 1
    assert told in capfd.readouterr().err
    assert boto3.client("sagemaker").list_transform_jobs()["TransformJobSummaries"] == []


def test_a_batch_without_endpoints_says_what_to_do_first(capfd: pytest.CaptureFixture[str]) -> None:
    assert deploy.main(["batch", "--input", "list.csv", "--style", "monet"]) == 1
    assert "--input must be an address such as s3://" in capfd.readouterr().err
