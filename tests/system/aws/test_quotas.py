"""Quotas: read before anything is made, told, and requested."""

import boto3
import pytest

from tests.fakes import aws as fake
from tests.system.aws.helpers import Deploy, Wire

ENDPOINTS = "ml.g4dn.xlarge for endpoint usage"
TRAININGS = "ml.g4dn.xlarge for spot training job usage"


@pytest.mark.usefixtures("pushed")
def test_a_new_account_is_told_before_anything_is_made_and_can_request(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.quotas.update({ENDPOINTS: 0, TRAININGS: 0})
    wire.calls.clear()
    assert deploy("up") == 1
    printed = capfd.readouterr().err
    assert f'The quota "{ENDPOINTS}" is 0: 4 are needed in all' in printed
    assert "2 now" in printed
    assert f'The quota "{TRAININGS}" is 0: 1 are needed in all.' in printed
    assert "./deploy.py up --request-quota" in printed
    assert wire.changes() == []

    assert deploy("up", "--request-quota", "--plan") == 0
    assert f'would request the quota "{ENDPOINTS}": 4 instead of 0' in capfd.readouterr().out
    assert fake.requested_quotas == {}

    # Twice, with a lost answer: AWS takes one open request only.
    fake.lost_answers.add("RequestServiceQuotaIncrease")
    assert deploy("up", "--request-quota") == 0
    assert fake.requested_quotas == {ENDPOINTS: 4.0, TRAININGS: 1.0}
    assert deploy("up", "--request-quota") == 0
    assert "AWS has not decided yet" in capfd.readouterr().err
    assert boto3.client("s3").list_buckets()["Buckets"] == []

    fake.quotas.update(fake.requested_quotas)
    assert deploy("up", "--request-quota") == 0
    assert "The quotas are large enough." in capfd.readouterr().err


@pytest.mark.usefixtures("pushed")
def test_what_is_enough_for_now_is_a_note(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.quotas[ENDPOINTS] = 2
    assert deploy("up") == 0
    assert f'The quota "{ENDPOINTS}" is 2: 4 are needed in all' in capfd.readouterr().err
    assert deploy("up") == 0


@pytest.mark.usefixtures("pushed")
def test_quotas_that_are_not_told_stop_nothing(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    wire.denied_before = "ListServiceQuotas"
    assert deploy("up") == 0
    assert "The quotas are not known" in capfd.readouterr().err


@pytest.mark.usefixtures("pushed")
def test_another_instance_type_needs_its_own_quota(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    fake.quotas["ml.g5.xlarge for endpoint usage"] = 0
    assert deploy("up", "--instance-type", "ml.g5.xlarge") == 1
    printed = capfd.readouterr().err
    assert "ml.g5.xlarge for endpoint usage" in printed
    assert "Nothing was made." in printed
