"""Several instance types: the next one is taken where AWS has none of the first."""

import boto3
import pytest

from aws import capacity
from aws.configs import instance_types_of
from tests.fakes import aws as fake
from tests.system.aws.helpers import Deploy, Wire, describe_config, describe_endpoint
from tests.system.aws.test_sleep import ASLEEP, scaling_of, stop_scaling

ALL = ["ml.g4dn.xlarge", "ml.g6.xlarge", "ml.g5.xlarge"]


def types(model: str = "nst") -> list[str]:
    return instance_types_of(describe_config(model)["ProductionVariants"][0])


@pytest.mark.usefixtures("pushed")
def test_a_type_without_capacity_stops_nothing(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.no_capacity.add("ml.g4dn.xlarge")
    assert deploy("up") == 0
    assert types() == ALL
    pools = describe_endpoint("nst")["ProductionVariants"][0]["InstancePools"]
    running = [pool["InstanceType"] for pool in pools if pool["CurrentInstanceCount"]]
    assert running == ["ml.g6.xlarge"]
    assert "$1.127 on an ml.g6.xlarge" in capfd.readouterr().err

    # The dollars of what runs, not of what was tried first
    stop_scaling()
    assert deploy("status") == 1
    printed = capfd.readouterr().out
    assert "stylebot-nst: InService, 1 instance (1 ml.g6.xlarge)\n" in printed
    assert "instances: ml.g4dn.xlarge or ml.g6.xlarge or ml.g5.xlarge" in printed
    assert "$27.05 A DAY (ML.G6.XLARGE)" in printed

    fake.no_capacity.update(ALL)
    assert deploy("up", "--concurrency", "nst=2") == 1
    assert "Unable to provision" in capfd.readouterr().err


@pytest.mark.usefixtures("pushed")
def test_a_plan_tells_the_types_and_their_prices(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up", "--plan") == 0
    printed = capfd.readouterr()
    assert "(ml.g4dn.xlarge or ml.g6.xlarge or ml.g5.xlarge, concurrency 1)" in printed.out
    assert "$1.408 on an ml.g5.xlarge, where AWS has no ml.g4dn.xlarge" in printed.err


@pytest.mark.usefixtures("pushed")
def test_types_without_a_quota_are_left_out_until_there_is_one(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    quota = "ml.g5.xlarge for endpoint usage"
    fake.quotas[quota] = 3
    assert deploy("up") == 0
    assert types() == ALL[:2], "two endpoints that are updated do not have room on three instances"
    assert "stylebot-nst does without ml.g5.xlarge" in capfd.readouterr().err
    assert deploy("up", "--request-quota") == 0
    assert fake.requested_quotas == {quota: 4.0}

    # What AWS does not tell changes nothing.
    wire.denied_before = "ListServiceQuotas"
    wire.calls.clear()
    assert deploy("up") == 0
    assert "sagemaker:UpdateEndpoint" not in wire.calls
    wire.denied_before = None

    fake.quotas[quota] = 4
    assert deploy("up") == 0
    assert types() == ALL
    assert scaling_of("nst") == ASLEEP


@pytest.mark.usefixtures("pushed")
def test_where_aws_knows_no_pools_there_is_one_type(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.unknown_arguments.add("InstancePools")
    assert deploy("up") == 0
    assert types() == ["ml.g4dn.xlarge"]
    assert "AWS refuses several instance types for stylebot-nst here" in capfd.readouterr().err
    before = fake.snapshot()
    assert deploy("up", "--plan") == 0
    assert "Nothing to change." in capfd.readouterr().out
    assert deploy("up") == 0
    assert fake.snapshot() == before
    assert deploy("status") == 0

    # Others are tried.
    fake.unknown_arguments.clear()
    assert deploy("up", "--instance-type", "nst=ml.g5.xlarge,ml.g6.xlarge") == 0
    assert types() == ["ml.g5.xlarge", "ml.g6.xlarge"]
    assert types("cyclegan") == ["ml.g4dn.xlarge"]


@pytest.mark.usefixtures("pushed")
def test_pools_that_only_an_endpoint_refuses_are_left_out_too(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.refusing_pools.update(["CreateEndpoint", "UpdateEndpoint"])
    fake.lag = 1
    fake.lost_answers |= {"CreateEndpointConfig", "CreateEndpoint"}
    assert deploy("up") == 0
    fake.lag = 0
    fake.unseen.clear()
    assert types() == types("cyclegan") == ["ml.g4dn.xlarge"]
    assert scaling_of("nst") == ASLEEP
    printed = capfd.readouterr().err
    assert "AWS refuses several instance types for stylebot-nst here" in printed
    before = fake.snapshot()
    assert deploy("up") == 0
    assert fake.snapshot() == before
    configs = [name for name in before if name.startswith("EndpointConfig ")]
    assert len(configs) == 2, "those that were refused are not needed"
    assert deploy("history") == 0
    assert "failed: the endpoint was not created" in capfd.readouterr().out

    # An update that is refused leaves what serves as it was, and it still scales.
    serving = describe_endpoint("nst")["EndpointConfigName"]
    assert deploy("up", "--instance-type", "ml.g4dn.xlarge,ml.g6.xlarge") == 0
    assert describe_endpoint("nst")["EndpointConfigName"] == serving
    assert scaling_of("nst") == ASLEEP
    assert deploy("status") == 0


@pytest.mark.usefixtures("pushed")
def test_a_quota_that_other_endpoints_use_up_costs_the_further_types_only(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # As if the account ran so many already: the quotas alone do not tell.
    monkeypatch.setattr(capacity, "has_room", lambda *_: True)
    fake.quotas["ml.g5.xlarge for endpoint usage"] = 0
    assert deploy("up") == 0
    assert types() == ["ml.g4dn.xlarge"]
    assert "limit 'ml.g5.xlarge for endpoint usage' is 0" in capfd.readouterr().err


@pytest.mark.usefixtures("pushed")
def test_an_endpoint_of_one_type_gets_more_and_scales_again(deploy: Deploy) -> None:
    assert deploy("up", "--instance-type", "ml.g4dn.xlarge") == 0
    assert types() == ["ml.g4dn.xlarge"]
    assert deploy("up") == 0
    assert types() == ALL
    assert scaling_of("nst") == ASLEEP
    assert deploy("rollback") == 0
    assert types() == ["ml.g4dn.xlarge"]


@pytest.mark.parametrize(
    "value",
    [
        "ml.g5.xlarge,ml.g5.xlarge",
        "ml.g5.xlarge,ml.c5.4xlarge",
        "nst=g5",
        "dalle=ml.g5.xlarge",
        "ml.g5.xlarge,",
        "ml.g5.xlarge,ml.g5.2xlarge,ml.g6.xlarge,ml.g6.2xlarge,ml.g4dn.xlarge,ml.g4dn.2xlarge",
    ],
)
def test_types_that_do_not_fit_are_refused_at_once(value: str, deploy: Deploy) -> None:
    with pytest.raises(SystemExit):
        deploy("up", "--instance-type", value)
    assert boto3.client("sagemaker").list_endpoints()["Endpoints"] == []
