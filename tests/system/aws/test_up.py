"""The command up: what it creates, what it updates, and what it leaves alone."""

import json
import re
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from aws.account import open_account
from aws.endpoints import start_update
from aws.identity import without_sids
from aws.scaling import scalable_target
from bot import ALARM_KINDS, INVOCATION_SECONDS, MODELS
from tests.fakes import aws as fake
from tests.fakes.clock import fake_clock
from tests.system.aws.helpers import (
    BUCKET,
    Deploy,
    Wire,
    describe_config,
    describe_endpoint,
    list_keys,
    push_images,
)

BOT_IDENTITY = f"stylebot-bot-{fake.REGION}"


# ---------------------------------------------------------------- what it creates


@pytest.mark.usefixtures("pushed")
def test_up_prints_what_the_bot_needs_and_no_secret(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    printed = capfd.readouterr()
    environment = dict(line.split("=") for line in printed.out.splitlines()[-5:])
    assert environment == {
        "AWS_DEFAULT_REGION": fake.REGION,
        "BUCKET": BUCKET,
        "NST_ENDPOINT": "stylebot-nst",
        "CYCLEGAN_ENDPOINT": "stylebot-cyclegan",
        "DEPLOYMENT": "stylebot",
    }
    assert "testing" not in printed.out + printed.err
    for model in MODELS:
        assert f"stylebot-{model}: Creating" in printed.err
        assert f"stylebot-{model}: stylized the test picture in" in printed.err
    assert re.search(r"Estimate of \d{4}-\d\d-\d\d", printed.err)
    assert "assumed" in printed.err


@pytest.mark.usefixtures("pushed")
@pytest.mark.parametrize(("model", "concurrency"), [("nst", 1), ("cyclegan", 2)])
def test_up_creates_asynchronous_endpoints_of_the_images_by_digest(
    model: str, concurrency: int, deploy: Deploy
) -> None:
    assert deploy("up") == 0
    config = describe_config(model)
    [variant] = config["ProductionVariants"]
    assert describe_endpoint(model)["EndpointStatus"] == "InService"
    pools = [(pool["Priority"], pool["InstanceType"]) for pool in variant["InstancePools"]]
    assert pools == [(1, "ml.g4dn.xlarge"), (2, "ml.g6.xlarge"), (3, "ml.g5.xlarge")]
    assert "InstanceType" not in variant
    assert variant["InferenceAmiVersion"] == "al2023-ami-sagemaker-inference-gpu-4-1"

    asynchronous = config["AsyncInferenceConfig"]
    assert asynchronous["ClientConfig"]["MaxConcurrentInvocationsPerInstance"] == concurrency
    assert asynchronous["OutputConfig"] == {
        "S3OutputPath": f"s3://{BUCKET}/async/output/",
        "S3FailurePath": f"s3://{BUCKET}/async/failure/",
    }

    sagemaker_model = boto3.client("sagemaker").describe_model(ModelName=variant["ModelName"])
    container = sagemaker_model["PrimaryContainer"]
    assert re.fullmatch(rf"\d+\.dkr\..*/stylebot-{model}@sha256:\w{{64}}", container["Image"])
    environment = {"AWS_DEFAULT_REGION": fake.REGION}
    if model == "cyclegan":
        environment["MODELS_URL"] = f"s3://{BUCKET}/models/"
    assert container["Environment"] == environment


@pytest.mark.usefixtures("pushed")
@pytest.mark.parametrize("model", MODELS)
def test_an_endpoint_sleeps_and_is_woken_by_the_first_picture(model: str, deploy: Deploy) -> None:
    assert deploy("up") == 0
    scaling = boto3.client("application-autoscaling")
    arguments = scalable_target(f"stylebot-{model}")
    [target] = scaling.describe_scalable_targets(
        ServiceNamespace="sagemaker", ResourceIds=[arguments["ResourceId"]]
    )["ScalableTargets"]
    assert target["MinCapacity"] == 0
    assert target["MaxCapacity"] == 2

    found = scaling.describe_scaling_policies(**arguments)["ScalingPolicies"]
    policies = {policy["PolicyType"]: policy for policy in found}
    assert set(policies) == {"TargetTrackingScaling", "StepScaling"}
    backlog = policies["TargetTrackingScaling"]["TargetTrackingScalingPolicyConfiguration"]
    metric = backlog["CustomizedMetricSpecification"]["MetricName"]
    assert metric == "ApproximateBacklogSizePerInstance"
    assert backlog["ScaleInCooldown"] > INVOCATION_SECONDS
    wake = policies["StepScaling"]["StepScalingPolicyConfiguration"]
    assert wake["AdjustmentType"] == "ChangeInCapacity"
    assert wake["StepAdjustments"] == [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}]

    names = [f"stylebot-{model}-wake"]
    [alarm] = boto3.client("cloudwatch").describe_alarms(AlarmNames=names)["MetricAlarms"]
    assert alarm["MetricName"] == "HasBacklogWithoutCapacity"
    assert alarm["AlarmActions"] == [policies["StepScaling"]["PolicyARN"]]
    assert alarm["Period"] == 60
    assert alarm["EvaluationPeriods"] == 2
    assert alarm["DatapointsToAlarm"] == 2
    assert alarm["Statistic"] == "Average"
    assert alarm["Threshold"] == 1.0
    assert alarm["TreatMissingData"] == "missing"


@pytest.mark.usefixtures("pushed")
def test_the_bucket_is_private_encrypted_and_forgets(deploy: Deploy) -> None:
    assert deploy("up") == 0
    s3 = boto3.client("s3")
    assert all(s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"].values())
    [rule] = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    rules = s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    days = {rule["Filter"]["Prefix"]: rule["Expiration"]["Days"] for rule in rules}
    passing = {"jobs/": 1, "async/": 1, "updates/": 1, "builds/": 1}
    assert days == passing | {"chats/": 30, "training/": 30, "quarantine/": 30}
    [statement] = json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


@pytest.mark.usefixtures("pushed")
def test_up_leaves_no_trace_of_its_test_pictures(deploy: Deploy) -> None:
    assert deploy("up") == 0
    assert all(key.startswith(("models/", "releases/")) for key in list_keys(""))


@pytest.mark.usefixtures("pushed")
def test_the_bots_user_is_created_on_request(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up", "--bot", "user") == 0
    assert f"create_access_key(UserName='{BOT_IDENTITY}')" in capfd.readouterr().err
    iam = boto3.client("iam")
    policy = iam.get_user_policy(UserName=BOT_IDENTITY, PolicyName="bot")
    assert deploy("policy", "bot") == 0
    assert policy["PolicyDocument"] == json.loads(without_sids(capfd.readouterr().out))


@pytest.mark.usefixtures("pushed")
def test_the_bots_role_is_created_on_request(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up", "--bot", "role") == 0
    iam = boto3.client("iam")
    policy = iam.get_role_policy(RoleName=BOT_IDENTITY, PolicyName="bot")
    capfd.readouterr()
    assert deploy("policy", "bot") == 0
    assert policy["PolicyDocument"] == json.loads(capfd.readouterr().out)
    profile = iam.get_instance_profile(InstanceProfileName=BOT_IDENTITY)["InstanceProfile"]
    assert [role["RoleName"] for role in profile["Roles"]] == [BOT_IDENTITY]


@pytest.mark.usefixtures("pushed")
def test_roles_and_user_are_within_the_boundary_also_those_of_older_versions(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    iam = boto3.client("iam")
    boundary = f"arn:aws:iam::{fake.ACCOUNT}:policy/stylebot-boundary-{fake.REGION}"
    role = f"stylebot-execution-{fake.REGION}"
    iam.create_role(RoleName=role, AssumeRolePolicyDocument="{}")
    iam.create_user(UserName=BOT_IDENTITY)
    assert deploy("up", "--bot", "user") == 0
    limit = {
        "PermissionsBoundaryType": "PermissionsBoundaryPolicy",
        "PermissionsBoundaryArn": boundary,
    }
    assert iam.get_role(RoleName=role)["Role"]["PermissionsBoundary"] == limit
    assert iam.get_user(UserName=BOT_IDENTITY)["User"]["PermissionsBoundary"] == limit
    assert deploy("up", "--bot", "user", "--plan") == 0
    assert "Nothing to change." in capfd.readouterr().out

    # An older boundary is written again; AWS keeps five versions.
    for _ in range(4):
        iam.create_policy_version(
            PolicyArn=boundary, PolicyDocument=OLD_BOUNDARY, SetAsDefault=True
        )
    assert deploy("up") == 0
    policy = iam.get_policy(PolicyArn=boundary)["Policy"]
    version = iam.get_policy_version(PolicyArn=boundary, VersionId=policy["DefaultVersionId"])
    assert len(version["PolicyVersion"]["Document"]["Statement"]) > 1


OLD_BOUNDARY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}],
    }
)


@pytest.mark.usefixtures("pushed")
def test_a_deployer_who_may_not_write_the_boundary_is_told_who_does(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    wire.denied_operation = "CreatePolicy"
    assert deploy("up") == 1
    printed = capfd.readouterr().err
    assert "An administrator does it" in printed
    assert "create_policy(PolicyName='stylebot-boundary" in printed
    assert boto3.client("s3").list_buckets()["Buckets"] == []


# ---------------------------------------------------------------- painters


@pytest.mark.usefixtures("pushed")
def test_up_writes_what_the_bot_needs_to_train(deploy: Deploy) -> None:
    assert deploy("up", "--tags", "team=paint") == 0
    template = read_json("models/training.json")
    assert template["version"] == 1
    assert template["name_prefix"] == "stylebot-train-"
    arguments = template["arguments"]
    container = describe_container("cyclegan")
    assert arguments["AlgorithmSpecification"]["TrainingImage"] == container["Image"]
    [metric] = arguments["AlgorithmSpecification"]["MetricDefinitions"]
    line = json.dumps({"event": "progress", "step": 5, "loss": 1.25e-05, "seconds": 3.0})
    assert re.findall(metric["Regex"], line) == ["1.25e-05"]
    assert arguments["ResourceConfig"]["InstanceType"] == "ml.g4dn.xlarge"
    assert arguments["EnableManagedSpotTraining"]
    condition = arguments["StoppingCondition"]
    assert condition["MaxWaitTimeInSeconds"] >= condition["MaxRuntimeInSeconds"]
    assert {"Key": "team", "Value": "paint"} in arguments["Tags"]
    assert {"Key": "stylebot", "Value": "stylebot"} in arguments["Tags"]

    # The bot adds what depends on the painter.
    boto3.client("s3").put_object(Bucket=BUCKET, Key="training/job/style/1.jpg", Body=b"picture")
    boto3.client("sagemaker").create_training_job(
        **arguments,
        TrainingJobName=template["name_prefix"] + "klimt-1",
        HyperParameters={"name": "klimt"},
        InputDataConfig=[
            {
                "ChannelName": "style",
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri": f"s3://{BUCKET}/training/job/style/",
                    }
                },
            }
        ],
        OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/training/"},
    )


def read_json(key: str) -> Any:  # noqa: ANN401 - whatever JSON can hold
    return json.loads(boto3.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read())


def describe_container(model: str) -> dict[str, Any]:
    [variant] = describe_config(model)["ProductionVariants"]
    described = boto3.client("sagemaker").describe_model(ModelName=variant["ModelName"])
    container: dict[str, Any] = described["PrimaryContainer"]
    return container


@pytest.mark.usefixtures("pushed")
def test_the_template_changes_with_the_image_and_the_instance_type(
    deploy: Deploy, wire: Wire
) -> None:
    assert deploy("up") == 0
    fake.push("cyclegan", "def", content="new")
    assert deploy("up", "--training-instance-type", "ml.g5.xlarge") == 0
    arguments = read_json("models/training.json")["arguments"]
    image = describe_container("cyclegan")["Image"]
    assert arguments["AlgorithmSpecification"]["TrainingImage"] == image
    assert arguments["ResourceConfig"]["InstanceType"] == "ml.g5.xlarge"


@pytest.mark.usefixtures("pushed")
def test_the_catalog_is_written_again_only_when_it_may_lack_a_style(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    sentence = "let stylebot-cyclegan write the catalog of its styles"

    def run_up() -> bool:
        """Return whether `up` had the catalog written, after a plan that said so."""
        capfd.readouterr()
        assert deploy("up", "--plan") == 0
        is_planned = f"would {sentence}" in capfd.readouterr().out
        assert deploy("up") == 0
        is_done = sentence in capfd.readouterr().err.splitlines()
        assert is_planned == is_done
        return is_done

    assert run_up(), "it is missing"
    assert read_json("models/catalog.json")["styles"][0]["name"] == "vintage"
    assert not run_up()

    fake.make_older("models/catalog.json", seconds=3600)
    assert run_up(), "the model is newer"
    assert not run_up()

    boto3.client("s3").put_object(Bucket=BUCKET, Key="models/style_klimt.pth", Body=b"PK")
    fake.make_older("models/catalog.json", seconds=-3600)
    assert not run_up(), "the painter is older"
    fake.make_older("models/style_klimt.pth", seconds=-7200)
    assert run_up(), "a painter is newer"
    assert [style["name"] for style in read_json("models/catalog.json")["styles"]][-1] == "klimt"

    boto3.client("s3").delete_object(Bucket=BUCKET, Key="models/style_klimt.pth")
    fake.push("cyclegan", "def", content="new")
    fake.make_older("models/catalog.json", seconds=3600)
    assert run_up(), "there is a new image"


@pytest.mark.usefixtures("pushed")
def test_a_catalog_that_fails_is_reported(
    deploy: Deploy, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(url: str) -> dict[str, Any]:
        return {"error": {"code": "invalid_parameter", "message": "catalog_url is unknown."}}

    monkeypatch.setattr(fake, "write_catalog", refuse)
    assert deploy("up") == 1
    printed = capfd.readouterr().err
    assert "stylebot-cyclegan is up, but the catalog of its styles failed" in printed
    assert "catalog_url is unknown." in printed


# ---------------------------------------------------------------- plans and repetition


@pytest.mark.usefixtures("pushed")
def test_a_second_up_changes_nothing(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up", "--bot", "role") == 0
    before = fake.snapshot()
    wire.calls.clear()
    assert deploy("up", "--bot", "role") == 0
    test_pictures = {"s3:PutObject", "s3:DeleteObjects", "sagemaker-runtime:InvokeEndpointAsync"}
    assert set(wire.changes()) == test_pictures
    assert fake.snapshot() == before
    assert "Everything was in place already." in capfd.readouterr().err
    assert deploy("up", "--bot", "role", "--plan") == 0
    assert capfd.readouterr().out == "Nothing to change.\n"


@pytest.mark.parametrize("has_images", [True, False])
def test_a_plan_prints_every_change_and_makes_none(
    has_images: bool,
    deploy: Deploy,
    wire: Wire,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    if has_images:
        request.getfixturevalue("pushed")
    before = fake.snapshot()
    wire.calls.clear()
    capfd.readouterr()
    assert deploy("up", "--plan", "--bot", "user") == 0
    assert wire.changes() == []
    assert fake.snapshot() == before

    lines = capfd.readouterr().out.splitlines()
    planned = {line.removeprefix("would ") for line in lines if line.startswith("would ")}
    assert len(planned) == int(lines[-1].split()[0])
    assert ("first, push the image stylebot-nst" in "\n".join(lines)) == (not has_images)
    if has_images:
        assert deploy("up", "--bot", "user") == 0
        done = set(capfd.readouterr().err.splitlines())
        # The bucket has its tags from its creation, where it was created.
        planned.remove(f"tag the bucket {BUCKET}")
        assert planned <= done, "what was planned was not done"


@pytest.mark.usefixtures("pushed")
def test_a_plan_does_not_wait_for_an_endpoint_that_is_being_updated(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    sagemaker = boto3.client("sagemaker")
    config = describe_endpoint("nst")["EndpointConfigName"]
    sagemaker.create_endpoint_config(
        EndpointConfigName="other", ProductionVariants=describe_config("nst")["ProductionVariants"]
    )
    sagemaker.update_endpoint(
        EndpointName="stylebot-nst", EndpointConfigName="other", RetainAllVariantProperties=True
    )
    capfd.readouterr()
    assert deploy("up", "--plan") == 0
    printed = capfd.readouterr()
    assert "would wait for the endpoint stylebot-nst, which is Updating" in printed.out
    assert f"would update the endpoint stylebot-nst to {config}" in printed.out
    assert "stylebot-nst: Updating" not in printed.err, "the plan waited"


# ---------------------------------------------------------------- options and updates


@pytest.mark.usefixtures("pushed")
def test_options_reach_the_endpoints(deploy: Deploy) -> None:
    options = [
        "--prefix=art",
        "--instance-type=nst=ml.g5.xlarge,cyclegan=ml.c5.4xlarge",
        "--concurrency=cyclegan=3",
        "--min-instances=1",
        "--max-instances=4",
        "--ami=al2-ami-sagemaker-inference-gpu-3-1",
    ]
    assert deploy("up", *options, "--image-tag", "abc") == 1, "its own images are missing"
    assert deploy("repositories", "--prefix", "art", "abc") == 0
    push_images(prefix="art")
    assert deploy("up", *options, "--tags", "team=paint") == 0

    assert_endpoint("nst", "ml.g5.xlarge", "al2-ami-sagemaker-inference-gpu-3-1", concurrency=1)
    assert_endpoint("cyclegan", "ml.c5.4xlarge", ami=None, concurrency=3)
    scaling = boto3.client("application-autoscaling")
    targets = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert {(target["MinCapacity"], target["MaxCapacity"]) for target in targets} == {(1, 4)}


def assert_endpoint(model: str, instance_type: str, ami: str | None, concurrency: int) -> None:
    """Check an endpoint of the prefix art that never sleeps."""
    sagemaker = boto3.client("sagemaker")
    endpoint = sagemaker.describe_endpoint(EndpointName=f"art-{model}")
    config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    [variant] = config["ProductionVariants"]
    assert variant["InstanceType"] == instance_type
    assert variant.get("InferenceAmiVersion") == ami
    client = config["AsyncInferenceConfig"]["ClientConfig"]
    assert client["MaxConcurrentInvocationsPerInstance"] == concurrency

    tags = sagemaker.list_tags(ResourceArn=endpoint["EndpointArn"])["Tags"]
    assert {"Key": "team", "Value": "paint"} in tags
    assert {"Key": "stylebot", "Value": "art"} in tags
    names = [f"art-{model}-wake"]
    assert boto3.client("cloudwatch").describe_alarms(AlarmNames=names)["MetricAlarms"] == []


@pytest.mark.usefixtures("pushed")
def test_a_pair_that_no_longer_sleeps_needs_no_alarm_and_gets_it_back(deploy: Deploy) -> None:
    assert deploy("up") == 0
    asleep = fake.snapshot()
    assert deploy("up", "--min-instances", "1") == 0
    assert not [name for name in fake.snapshot() if name.endswith("-wake")]
    assert deploy("up") == 0
    assert fake.snapshot() == asleep


@pytest.mark.usefixtures("pushed")
def test_another_minimum_of_instances_needs_no_other_configuration(
    deploy: Deploy, wire: Wire
) -> None:
    assert deploy("up") == 0
    wire.calls.clear()
    assert deploy("up", "--min-instances", "2") == 0
    assert "sagemaker:UpdateEndpoint" not in wire.calls
    assert "sagemaker:CreateEndpointConfig" not in wire.calls


@pytest.mark.usefixtures("pushed")
def test_tags_are_kept_until_others_are_given(deploy: Deploy, wire: Wire) -> None:
    assert deploy("up", "--tags", "team=paint") == 0
    before = fake.snapshot()
    wire.calls.clear()
    assert deploy("up") == 0
    assert "s3:PutBucketTagging" not in wire.calls
    assert fake.snapshot() == before
    assert deploy("up", "--tags", "team=other") == 0
    tags = boto3.client("s3").get_bucket_tagging(Bucket=BUCKET)["TagSet"]
    assert {"Key": "team", "Value": "other"} in tags


@pytest.mark.usefixtures("pushed")
def test_old_images_are_deleted_but_never_the_one_that_is_used(deploy: Deploy) -> None:
    for number in range(11):
        fake.push("nst", f"new{number}", content=f"new{number}")
    assert deploy("up", "--image-tag", "abc") == 0

    def tags_left() -> list[str]:
        found = boto3.client("ecr").describe_images(repositoryName="stylebot-nst")
        return sorted(tag for image in found["imageDetails"] for tag in image["imageTags"])

    newest = [f"new{number}" for number in range(1, 11)]
    assert tags_left() == sorted(["abc", *newest])
    assert deploy("up", "--image-tag", "abc", "--plan") == 0


@pytest.mark.usefixtures("pushed")
def test_a_new_image_is_taken_without_downtime(deploy: Deploy, wire: Wire) -> None:
    assert deploy("up") == 0
    fake.push("nst", "def", content="new")
    wire.calls.clear()
    assert deploy("up") == 0
    assert wire.changes().count("sagemaker:UpdateEndpoint") == 1
    assert not {"sagemaker:DeleteEndpoint", "sagemaker:CreateEndpoint"} & set(wire.calls)
    scaling_changes = [call for call in wire.changes() if "Scalable" in call]
    assert not scaling_changes, "the scaling was to be left alone"
    sagemaker = boto3.client("sagemaker")
    # The one before is kept for a rollback.
    assert len(sagemaker.list_models()["Models"]) == 3
    assert len(sagemaker.list_endpoint_configs()["EndpointConfigs"]) == 3

    # Back to the first image
    assert deploy("up", "--image-tag", "abc") == 0
    assert wire.changes().count("sagemaker:UpdateEndpoint") == 2


@pytest.mark.usefixtures("pushed")
def test_another_instance_type_is_taken_although_a_scaling_target_refuses_it(
    deploy: Deploy,
) -> None:
    assert deploy("up") == 0
    before = fake.snapshot()
    assert deploy("up", "--instance-type", "ml.g6.xlarge") == 0
    assert describe_config("nst")["ProductionVariants"][0]["InstanceType"] == "ml.g6.xlarge"
    after = fake.snapshot()
    assert after["policies"] == before["policies"]
    assert after["targets"] == before["targets"]


@pytest.mark.parametrize("count", [0, 2])
def test_an_update_keeps_the_number_of_instances_but_starts_one_where_there_is_none(
    count: int, session: boto3.Session
) -> None:
    """Against botocore's Stubber, which compares every argument."""
    account = open_account("stylebot", session=session, clock=fake_clock())
    variants = [{"VariantName": "AllTraffic", "DesiredInstanceCount": count}]
    endpoint = {"EndpointName": "stylebot-nst", "ProductionVariants": variants}
    expected_arguments = {
        "EndpointName": "stylebot-nst",
        "EndpointConfigName": "new",
        "RetainAllVariantProperties": count > 0,
        "DeploymentConfig": {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": {
                    "Type": "ALL_AT_ONCE",
                    "WaitIntervalInSeconds": 600,
                },
                # Nobody waits for old instances that are not there.
                "TerminationWaitInSeconds": INVOCATION_SECONDS if count else 0,
                "MaximumExecutionTimeoutInSeconds": 7200,
            },
            "AutoRollbackConfiguration": {
                "Alarms": [
                    {"AlarmName": "stylebot-nst-faults"},
                    {"AlarmName": "stylebot-nst-release"},
                ]
            },
        },
    }
    arn = "arn:aws:sagemaker:eu-west-1:1:endpoint/stylebot-nst"
    with Stubber(account.sagemaker) as stub:
        stub.add_response("update_endpoint", {"EndpointArn": arn}, expected_arguments)
        start_update(account, endpoint, "new")
        stub.assert_no_pending_responses()


# ---------------------------------------------------------------- who is told


def find_alarm(name: str) -> dict[str, Any]:
    cloudwatch = boto3.client("cloudwatch")
    alarm: dict[str, Any]
    [alarm] = cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return alarm


@pytest.mark.usefixtures("pushed")
def test_alarms_are_sent_to_a_topic_whose_addresses_stay(deploy: Deploy) -> None:
    topic = f"arn:aws:sns:{fake.REGION}:{fake.ACCOUNT}:stylebot-alarms"
    assert deploy("up", "--notify", "vera@example.com") == 0
    assert deploy("up", "--notify", "olga@example.com") == 0
    assert deploy("up") == 0
    [tags] = [
        boto3.client("sns").list_tags_for_resource(ResourceArn=item["TopicArn"])["Tags"]
        for item in boto3.client("sns").list_topics()["Topics"]
    ]
    assert tags == [{"Key": "stylebot", "Value": "stylebot"}]
    found = boto3.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    assert {item["Endpoint"] for item in found} == {"vera@example.com", "olga@example.com"}

    told = ["bot-silent"]
    for model in MODELS:
        told += [f"{model}-{kind}" for kind in ALARM_KINDS]
    for name in told:
        alarm = find_alarm(f"stylebot-{name}")
        assert alarm["AlarmActions"] == alarm["OKActions"] == [topic], name
    silent = find_alarm("stylebot-bot-silent")
    assert silent["TreatMissingData"] == "breaching"
    # These belong to the scaling and to updates.
    assert topic not in find_alarm("stylebot-nst-wake")["AlarmActions"]
    assert not find_alarm("stylebot-nst-faults")["AlarmActions"]


@pytest.mark.usefixtures("pushed")
def test_a_budget_tells_the_addresses(deploy: Deploy, capfd: pytest.CaptureFixture[str]) -> None:
    empty = fake.snapshot()
    assert deploy("up", "--budget", "50") == 1
    assert "--budget tells nobody: add --notify ADDRESS." in capfd.readouterr().err
    assert fake.snapshot() == empty

    assert deploy("up", "--notify", "vera@example.com", "--budget", "50") == 0
    assert deploy("up", "--notify", "olga@example.com") == 0
    assert deploy("up", "--budget", "60.50") == 0
    budget = fake.find_budget(f"stylebot-{fake.REGION}")
    assert budget.budget["BudgetLimit"] == {"Amount": "60.50", "Unit": "USD"}
    [notification] = budget.notifications
    subscribers: Any = notification.subscribers
    addresses = [item["Address"] for item in subscribers]
    assert addresses == ["vera@example.com", "olga@example.com"]

    capfd.readouterr()
    assert deploy("up", "--plan", "--budget", "60.5") == 0
    assert "Nothing to change." in capfd.readouterr().out


@pytest.mark.parametrize("address", ["vera", "vera@home", "a@b.c,d@e.f", "вера@example.com"])
def test_what_is_no_address_is_refused_at_once(address: str, deploy: Deploy) -> None:
    with pytest.raises(SystemExit):
        deploy("up", "--notify", address)


@pytest.mark.parametrize("dollars", ["0", "-5", "many", "1.999"])
def test_what_is_no_sum_is_refused_at_once(dollars: str, deploy: Deploy) -> None:
    with pytest.raises(SystemExit):
        deploy("up", "--notify", "vera@example.com", f"--budget={dollars}")
