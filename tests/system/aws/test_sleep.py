"""An endpoint whose instance would never stop: it is put right, deleted, and named."""

from typing import Any

import boto3
import pytest

from aws.scaling import scalable_target
from tests.fakes import aws as fake
from tests.system.aws.helpers import Deploy, KilledError, Wire, describe_endpoint

WARNING = "STYLEBOT-NST NEVER SLEEPS"
COST = "$17.66 A DAY (ML.G4DN.XLARGE)"


def scaling_of(model: str) -> list[Any]:
    """Return the registration and the policies of an endpoint."""
    scaling = boto3.client("application-autoscaling")
    arguments = scalable_target(f"stylebot-{model}")
    targets = scaling.describe_scalable_targets(
        ServiceNamespace="sagemaker", ResourceIds=[arguments["ResourceId"]]
    )["ScalableTargets"]
    policies = scaling.describe_scaling_policies(**arguments)["ScalingPolicies"]
    names = sorted(policy["PolicyName"] for policy in policies)
    return [target["MinCapacity"] for target in targets] + names


ASLEEP = [0, "stylebot-nst-follow", "stylebot-nst-wake"]


def stop_scaling() -> None:
    scaling = boto3.client("application-autoscaling")
    for name in ("follow", "wake"):
        scaling.delete_scaling_policy(
            **scalable_target("stylebot-nst"), PolicyName=f"stylebot-nst-{name}"
        )
    scaling.deregister_scalable_target(**scalable_target("stylebot-nst"))


@pytest.mark.usefixtures("pushed")
def test_an_update_of_the_instance_type_that_fails_leaves_the_scaling_as_it_was(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    fake.failures["stylebot-nst"] = "Unable to provision requested ML compute capacity"
    assert deploy("up", "--instance-type", "nst=ml.g5.xlarge") == 1
    assert scaling_of("nst") == ASLEEP
    printed = capfd.readouterr().err
    assert "Unable to provision" in printed
    assert "NEVER SLEEPS" not in printed


@pytest.mark.usefixtures("pushed")
def test_a_killed_update_of_the_instance_type_is_put_right_by_an_up_that_fails_too(
    deploy: Deploy, wire: Wire
) -> None:
    assert deploy("up") == 0
    fake.failures["stylebot-nst"] = "Unable to provision requested ML compute capacity"
    wire.kill_at = "UpdateEndpoint"
    with pytest.raises(KilledError):
        deploy("up", "--instance-type", "nst=ml.g5.xlarge")
    assert scaling_of("nst") == []
    wire.kill_at = None
    wire.kill_after = None
    assert deploy("up", "--instance-type", "nst=ml.g5.xlarge") == 1
    assert scaling_of("nst") == ASLEEP


@pytest.mark.usefixtures("pushed")
def test_the_scaling_comes_back_even_if_up_can_do_nothing_else(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    stop_scaling()
    capfd.readouterr()
    assert deploy("up", "--image-tag", "nosuch") == 1
    assert scaling_of("nst") == ASLEEP
    assert "NEVER SLEEPS" not in capfd.readouterr().err


@pytest.mark.usefixtures("pushed")
@pytest.mark.parametrize("operation", ["RegisterScalableTarget", "PutScalingPolicy"])
def test_an_endpoint_whose_scaling_aws_refuses_is_deleted(
    operation: str, deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    wire.denied_before = operation
    assert deploy("up") == 1
    assert boto3.client("sagemaker").list_endpoints()["Endpoints"] == []
    printed = capfd.readouterr().err
    assert "stylebot-nst would never sleep without this: it is deleted." in printed
    assert f"not authorized to perform: {operation}" in printed
    wire.denied_before = None
    assert deploy("up") == 0
    assert scaling_of("nst") == ASLEEP


@pytest.mark.usefixtures("pushed")
def test_an_endpoint_that_scales_already_is_not_deleted_where_a_change_is_refused(
    deploy: Deploy, wire: Wire
) -> None:
    assert deploy("up") == 0
    wire.denied_before = "RegisterScalableTarget"
    assert deploy("up", "--max-instances", "3") == 1
    assert describe_endpoint("nst")["EndpointStatus"] == "InService"


@pytest.mark.usefixtures("pushed")
def test_an_endpoint_that_never_sleeps_is_named_with_its_dollars(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    stop_scaling()
    capfd.readouterr()
    assert deploy("up", "--plan") == 0
    printed = capfd.readouterr()
    assert "would scale stylebot-nst from 0 to 2 instances" in printed.out
    assert WARNING in printed.err
    assert COST in printed.err
    assert "STYLEBOT-CYCLEGAN" not in printed.err
    assert deploy("status") == 1
    assert f"{WARNING}: NOTHING STOPS ITS INSTANCE, WHICH COSTS {COST}" in capfd.readouterr().out


@pytest.mark.usefixtures("pushed")
def test_an_endpoint_that_is_to_be_on_always_is_no_accident(deploy: Deploy, wire: Wire) -> None:
    wire.denied_before = "PutScalingPolicy"
    assert deploy("up", "--min-instances", "1") == 1
    assert describe_endpoint("nst")["EndpointStatus"] == "InService"
    wire.denied_before = None
    assert deploy("up", "--min-instances", "1") == 0
    alarms = boto3.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert not [alarm for alarm in alarms if alarm["AlarmName"].endswith("-idle")]


@pytest.mark.usefixtures("pushed")
def test_an_alarm_on_an_instance_without_work_is_there_before_the_instance(
    deploy: Deploy, wire: Wire
) -> None:
    wire.kill_at = "CreateEndpoint"
    with pytest.raises(KilledError):
        deploy("up", "--instance-type", "cyclegan=ml.c5.4xlarge")
    cloudwatch = boto3.client("cloudwatch")
    alarms = {alarm["AlarmName"]: alarm for alarm in cloudwatch.describe_alarms()["MetricAlarms"]}
    alarm = alarms["stylebot-nst-idle"]
    assert alarm["MetricName"] == "GPUUtilization"
    assert alarm["Period"] * alarm["EvaluationPeriods"] == 3 * 3600
    # Without an instance there are no data.
    assert alarm["TreatMissingData"] == "notBreaching"
    assert alarms["stylebot-cyclegan-idle"]["MetricName"] == "CPUUtilization"
