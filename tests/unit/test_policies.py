"""Every policy document: understood by parliament, and without a wildcard that is not known and explained here."""

import json
import re
import warnings
from string import Template

import pytest

from tests.fakes.aws import ACCOUNT, REGION
from tests.fakes.servers import ROOT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports pkg_resources, which is deprecated
    from parliament import analyze_policy_string

BUCKET = f"stylebot-{ACCOUNT}-{REGION}"
NAMES = {
    "partition": "aws",
    "account": ACCOUNT,
    "region": REGION,
    "prefix": "stylebot",
    "bucket": BUCKET,
}
NAMES |= {"role": f"stylebot-execution-{REGION}", "bot": f"stylebot-bot-{REGION}"}
LIFECYCLE = "images"  # ECR's lifecycle rules, which are no permissions
POLICIES = sorted(
    path.stem for path in (ROOT / "policies").glob("*.json") if path.stem != LIFECYCLE
)
WITHOUT_RESOURCE = {  # actions that AWS lets nobody limit to a resource
    "ecr:GetAuthorizationToken", "cloudwatch:PutMetricData", "cloudwatch:GetMetricStatistics",
    "application-autoscaling:DescribeScalableTargets", "application-autoscaling:DescribeScalingPolicies",
    "logs:DescribeLogGroups", "sagemaker:ListModels", "sagemaker:ListEndpointConfigs",
}  # fmt: skip
MANAGED_POLICY_SIZE = 6144  # characters, without white space


def document(name: str) -> dict[str, list[dict[str, object]]]:
    return json.loads(Template((ROOT / "policies" / f"{name}.json").read_text()).substitute(NAMES))


def statements(name: str) -> list[dict[str, object]]:
    return document(name)["Statement"]


def as_list(value: object) -> list[str]:
    return [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]


def test_no_policy_is_forgotten() -> None:
    assert {"bot", "bot-trust", "bucket", "deployer", "execution", "trust"} == set(POLICIES)


@pytest.mark.parametrize("name", POLICIES)
def test_the_linter_has_nothing_to_say(name: str) -> None:
    policy = document(name)
    for statement in policy["Statement"]:
        if "trust" in name:
            statement["Resource"] = (
                "*"  # the role itself: a trust policy does not name it, and the linter wants one
            )
    findings = analyze_policy_string(json.dumps(policy)).findings
    told = [f"{finding.issue}: {finding.detail}" for finding in findings if "trust" not in name]
    told += [
        finding.issue
        for finding in findings
        if "trust" in name and finding.issue != "RESOURCE_STAR"
    ]
    assert not told


def test_the_linter_would_find_what_is_wrong() -> None:
    statement = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:GetObjekt"], "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    issues = {finding.issue for finding in analyze_policy_string(json.dumps(policy)).findings}
    assert "UNKNOWN_ACTION" in issues
    policy["Statement"] = [{**statement, "Action": "s3:GetObject"}]
    assert {finding.issue for finding in analyze_policy_string(json.dumps(policy)).findings} == {
        "RESOURCE_STAR"
    }


@pytest.mark.parametrize(
    "name", [name for name in POLICIES if name != "bucket"]
)  # that one forbids, and so is wide
def test_nothing_is_allowed_by_wildcard(name: str) -> None:
    for statement in statements(name):
        assert statement["Effect"] == "Allow"
        actions = as_list(statement["Action"])
        assert not any("*" in action for action in actions)
        assert "NotAction" not in statement
        assert "NotResource" not in statement
        assert statement.get("Principal") not in ("*", {"AWS": "*"})
        if "*" in as_list(statement.get("Resource", [])):
            assert set(actions) <= WITHOUT_RESOURCE, (
                f"{statement['Sid']} is not limited to a resource"
            )


@pytest.mark.parametrize("name", ["bot", "deployer", "execution"])
def test_every_resource_is_of_this_deployment(name: str) -> None:
    service_wide = (
        f"arn:aws:application-autoscaling:{REGION}:{ACCOUNT}:scalable-target/*",  # their ids are AWS's own
        f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:*",  # which can be listed as a whole only
        f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/sagemaker/TransformJobs",  # one for all jobs of an account
        f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/sagemaker/TransformJobs:log-stream:*",
    )
    linked_role = "role/aws-service-role/sagemaker.application-autoscaling.amazonaws.com/"
    for statement in statements(name):
        for resource in as_list(statement["Resource"]):
            ours = re.search(r"[:/]stylebot-", resource) or linked_role in resource
            assert ours or resource == "*" or resource in service_wide, resource


def test_a_role_is_handed_to_its_service_only() -> None:
    passing = [
        statement
        for statement in statements("deployer")
        if "iam:PassRole" in as_list(statement["Action"])
    ]
    assert len(passing) == 2
    for statement in passing:
        assert "iam:PassedToService" in statement["Condition"]["StringEquals"]  # type: ignore[index]


def test_the_bot_may_do_what_it_does_and_no_more() -> None:
    """Its calls are S3's on its three prefixes, and two models; see docs/chat.md."""
    allowed = {action for statement in statements("bot") for action in as_list(statement["Action"])}
    objects = {"s3:GetObject", "s3:PutObject", "s3:DeleteObject"}
    assert allowed == objects | {"s3:ListBucket", "sagemaker:InvokeEndpointAsync"}
    places = {
        place
        for one in statements("bot")
        for place in as_list(one["Resource"])
        if place.endswith("/*")
    }
    assert places == {f"arn:aws:s3:::{BUCKET}/{prefix}/*" for prefix in ("chats", "jobs", "async")}


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_fits_into_iam(name: str) -> None:
    assert len(json.dumps(document(name), separators=(",", ":"))) <= MANAGED_POLICY_SIZE
