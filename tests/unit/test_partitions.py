"""AWS in China and GovCloud: other ARNs, names and addresses, and no dollars of AWS Budgets."""

import json
from decimal import Decimal

import boto3
import pytest
from moto import mock_aws

from aws.account import Account, open_account
from aws.dashboard import describe_url
from aws.messages import DeployError
from aws.notify import NotifySettings, check_settings, find_budget

CHINA = "cn-northwest-1"
GOVCLOUD = "us-gov-west-1"


def connect(region: str, monkeypatch: pytest.MonkeyPatch) -> Account:
    """Return an account in the region, as moto answers GetCallerIdentity."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    session = boto3.Session("testing", "testing", region_name=region)
    with mock_aws():
        return open_account("stylebot", session=session)


@pytest.mark.parametrize(
    ("region", "partition", "suffix", "console"),
    [
        ("eu-west-1", "aws", "amazonaws.com", "console.aws.amazon.com"),
        (CHINA, "aws-cn", "amazonaws.com.cn", "console.amazonaws.cn"),
        (GOVCLOUD, "aws-us-gov", "amazonaws.com", "console.amazonaws-us-gov.com"),
    ],
)
def test_names_are_those_of_the_partition(
    region: str, partition: str, suffix: str, console: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = connect(region, monkeypatch)
    assert account.topic_arn.startswith(f"arn:{partition}:sns:{region}:")
    assert describe_url(account).startswith(f"https://{region}.{console}/cloudwatch/")

    for name in ("bot", "boundary", "deployer", "deployer-bot", "execution"):
        document = account.policy_document(name)
        assert document.count('"arn:') == document.count(f'"arn:{partition}:'), name
    trust = json.loads(account.policy_document("bot-trust"))
    principals = {statement["Principal"]["Service"] for statement in trust["Statement"]}
    # Only EC2 has a name of its own in China.
    assert principals == {f"ec2.{suffix}", "ecs-tasks.amazonaws.com"}
    assert f'"ec2.{suffix}"' in account.policy_document("deployer-iam")
    for name in ("bot-execution", "boundary"):
        assert f'"ssm.{region}.{suffix}"' in account.policy_document(name)


@pytest.mark.parametrize("region", [CHINA, GOVCLOUD])
def test_nothing_is_asked_of_budgets_where_they_count_no_dollars(
    region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = connect(region, monkeypatch)
    # Without moto a call would find no server, or refuse the credentials.
    assert find_budget(account) is None
    check_settings(account, NotifySettings(address="a@example.com"))
    with pytest.raises(DeployError, match=f"none in {region}"):
        check_settings(account, NotifySettings("a@example.com", Decimal(50)))
