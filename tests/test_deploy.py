"""deploy.py against an AWS account on this machine: moto's server over HTTP, taught what it lacks (see tests/aws.py)."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

import deploy
from tests import aws
from tests.servers import ROOT
from tests.test_policies import as_list, statements

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


@pytest.fixture(autouse=True)
def wire(url: str, monkeypatch: pytest.MonkeyPatch) -> Wire:
    """An empty account, and every way of talking to it."""
    aws.forget_everything(url)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in aws.environment(url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(deploy, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(deploy, "ROLE_SECONDS", 0.1)
    wire, session = Wire(), boto3.Session(region_name=aws.REGION)
    session.events.register("before-call", wire.before)
    session.events.register("after-call", wire.after)

    def sessions(region_name: str | None = None) -> boto3.Session:
        return session if region_name in (None, aws.REGION) else boto3.Session(region_name=region_name)

    monkeypatch.setattr(deploy, "Session", sessions)
    return wire


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
    return endpoint, sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])


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
        assert re.fullmatch(rf"\d+\.dkr\..*/stylebot-{kind}@sha256:\w{{64}}", model["PrimaryContainer"]["Image"])
        assert model["PrimaryContainer"]["Environment"] == {"AWS_DEFAULT_REGION": aws.REGION}


@pytest.mark.usefixtures("pushed")
def test_an_endpoint_sleeps_and_is_woken_by_the_first_picture() -> None:
    assert deploy.main(["up"]) == 0
    scaling, watch = boto3.client("application-autoscaling"), boto3.client("cloudwatch")
    for kind in deploy.KINDS:
        where = deploy.scalable_target(f"stylebot-{kind}")
        [target] = scaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[where["ResourceId"]])[
            "ScalableTargets"
        ]
        assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 2)
        policies = {one["PolicyType"]: one for one in scaling.describe_scaling_policies(**where)["ScalingPolicies"]}
        follow = policies["TargetTrackingScaling"]["TargetTrackingScalingPolicyConfiguration"]
        assert follow["CustomizedMetricSpecification"]["MetricName"] == "ApproximateBacklogSizePerInstance"
        assert follow["ScaleInCooldown"] > deploy.JOB_SECONDS
        step = policies["StepScaling"]["StepScalingPolicyConfiguration"]
        assert step["AdjustmentType"] == "ChangeInCapacity"
        assert step["StepAdjustments"] == [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}]
        [alarm] = watch.describe_alarms(AlarmNames=[f"stylebot-{kind}-wake"])["MetricAlarms"]
        assert alarm["MetricName"] == "HasBacklogWithoutCapacity"
        assert alarm["AlarmActions"] == [policies["StepScaling"]["PolicyARN"]]
        assert (alarm["Period"], alarm["EvaluationPeriods"], alarm["DatapointsToAlarm"]) == (60, 2, 2)
        assert (alarm["Statistic"], alarm["Threshold"], alarm["TreatMissingData"]) == ("Average", 1.0, "missing")


@pytest.mark.usefixtures("pushed")
def test_the_bucket_is_private_encrypted_and_forgets() -> None:
    assert deploy.main(["up"]) == 0
    s3 = boto3.client("s3")
    assert all(s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"].values())
    [rule] = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    rules = s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert {(rule["Filter"]["Prefix"], rule["Expiration"]["Days"]) for rule in rules} == {("jobs/", 1), ("async/", 1)}
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
        assert told - {"bucket: tag it"} <= done, "what was planned was not done"


@pytest.mark.usefixtures("pushed")
def test_options_reach_the_endpoints() -> None:
    options = ["--instance-type", "nst=ml.g5.xlarge,cyclegan=ml.c5.4xlarge", "--concurrency", "cyclegan=3"]
    options += ["--min-instances", "1", "--max-instances", "4", "--ami", "al2-ami-sagemaker-inference-gpu-3-1"]
    assert deploy.main(["up", "--prefix", "art", *options, "--image-tag", "abc"]) == 1  # its own images are missing
    assert deploy.main(["repositories", "--prefix", "art", "abc"]) == 0
    for kind in deploy.IMAGES:
        aws.push(kind, "abc", prefix="art")
    assert deploy.main(["up", "--prefix", "art", *options, "--tags", "team=paint"]) == 0
    sagemaker, scaling = boto3.client("sagemaker"), boto3.client("application-autoscaling")
    expected = {"nst": ("ml.g5.xlarge", "al2-ami-sagemaker-inference-gpu-3-1", 1), "cyclegan": ("ml.c5.4xlarge", None, 3)}
    for kind, (machine, ami, concurrency) in expected.items():
        endpoint = sagemaker.describe_endpoint(EndpointName=f"art-{kind}")
        config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
        [variant] = config["ProductionVariants"]
        assert (variant["InstanceType"], variant.get("InferenceAmiVersion")) == (machine, ami)
        assert config["AsyncInferenceConfig"]["ClientConfig"]["MaxConcurrentInvocationsPerInstance"] == concurrency
        tags = sagemaker.list_tags(ResourceArn=endpoint["EndpointArn"])["Tags"]
        assert {"Key": "team", "Value": "paint"} in tags
        assert {"Key": "stylebot", "Value": "art"} in tags
        assert not boto3.client("cloudwatch").describe_alarms(AlarmNames=[f"art-{kind}-wake"])["MetricAlarms"]
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
    assert not [call for call in wire.changes() if "Scalable" in call], "scaling is to be left alone"
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
                "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 300},
                "TerminationWaitInSeconds": deploy.JOB_SECONDS,
                "MaximumExecutionTimeoutInSeconds": 3600,
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "stylebot-nst-faults"}]},
        },
    }
    config = {"EndpointConfigName": "old", "EndpointConfigArn": "arn:aws:sagemaker:::x", "CreationTime": 0}
    config["ProductionVariants"] = [{"VariantName": "AllTraffic", "InstanceType": "ml.g4dn.xlarge"}]
    with Stubber(cloud.sagemaker) as stub:
        stub.add_response("describe_endpoint_config", config, {"EndpointConfigName": "old"})
        stub.add_response("update_endpoint", {"EndpointArn": "arn:aws:sagemaker:eu-west-1:1:endpoint/e"}, expected)
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
        if count % 5 == 0:  # taken down as it lies
            assert deploy.main(["down", "--yes"]) == 0
            assert without_bucket(aws.snapshot()) == empty, f"killed after {count} changes and taken down"
        assert deploy.main(["up", "--bot", "role"]) == 0
        assert aws.snapshot() == whole, f"killed after {count} changes and run again"
    assert deploy.main(["down", "--yes"]) == 0
    assert without_bucket(aws.snapshot()) == empty


def test_down_killed_after_any_change_and_run_again_leaves_nothing(url: str, wire: Wire) -> None:
    empty = aws.snapshot()
    for count in range(1, 100):
        start_anew(url, wire)
        assert deploy.main(["up", "--bot", "user"]) == 0
        wire.done, wire.kill_after = 0, 3 * count
        try:
            assert deploy.main(["down", "--purge", "--yes"]) == 0
            break
        except KilledError:
            wire.kill_after = None
        assert deploy.main(["down", "--purge", "--yes"]) == 0
        assert aws.snapshot() == empty, f"killed after {3 * count} changes"
    assert count > 5
    assert aws.snapshot() == empty
