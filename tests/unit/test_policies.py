"""Every policy document: parliament understands it, and each wildcard is listed here."""

import json
import re
import warnings

import pytest

from aws.identity import without_sids
from bot import (
    ASYNC_PREFIX,
    CHATS_PREFIX,
    JOBS_PREFIX,
    LESSONS_PREFIX,
    METRICS_NAMESPACE,
    MODELS,
    MODELS_PREFIX,
    QUARANTINE_PREFIX,
    TRAINING_PREFIX,
    UPDATES_PREFIX,
)
from tests.fakes.aws import ACCOUNT, BUCKET, REGION
from tests.fakes.policies import (
    FOLDER,
    allowed_actions,
    as_list,
    example_request,
    is_allowed,
    read_document,
    read_statements,
)

with warnings.catch_warnings():
    # It imports pkg_resources, which is deprecated.
    warnings.simplefilter("ignore")
    from parliament import analyze_policy_string

# ECR's lifecycle rules, which are no permissions
LIFECYCLE = "images"
POLICIES = sorted(path.stem for path in FOLDER.glob("*.json") if path.stem != LIFECYCLE)
TRUST_POLICIES = ("bot-execution-trust", "bot-trust", "build-trust", "trust")
# This policy only denies, and so may be wide.
DENYING_POLICY = "bucket"
# Actions that nobody can limit to a resource
WITHOUT_RESOURCE = {
    "application-autoscaling:DescribeScalableTargets",
    "application-autoscaling:DescribeScalingPolicies",
    "cloudwatch:GetMetricStatistics",
    "cloudwatch:PutMetricData",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
    "ecr:GetAuthorizationToken",
    "ecs:DeregisterTaskDefinition",
    "ecs:DescribeTaskDefinition",
    "ecs:ListTaskDefinitions",
    "logs:DescribeLogGroups",
    "sagemaker:ListEndpointConfigs",
    "sagemaker:ListModels",
    "sagemaker:ListTrainingJobs",
    "servicequotas:ListAWSDefaultServiceQuotas",
    "servicequotas:ListServiceQuotas",
    "ssm:DescribeParameters",
    "tag:GetResources",
}
# In characters, without white space
MANAGED_POLICY_SIZE = 6144


def find_issues(policy: dict[str, object]) -> set[str]:
    findings = analyze_policy_string(json.dumps(policy)).findings
    return {finding.issue for finding in findings}


def test_no_policy_is_forgotten() -> None:
    expected = {
        "bot",
        "bot-execution",
        "bot-execution-trust",
        "bot-image",
        "bot-trust",
        "boundary",
        "bucket",
        "build",
        "build-trust",
        "deployer",
        "deployer-bot",
        "deployer-build",
        "deployer-iam",
        "deployer-watch",
        "execution",
        "trust",
    }
    assert set(POLICIES) == expected


@pytest.mark.parametrize("name", POLICIES)
def test_the_linter_has_nothing_to_say(name: str) -> None:
    policy = read_document(name)
    expected: set[str] = set()
    if name in TRUST_POLICIES:
        # A trust policy has no resource: it is the role. The linter wants one, and then says that
        # "*" is too wide.
        for statement in policy["Statement"]:
            statement["Resource"] = "*"
        expected = {"RESOURCE_STAR"}
    if name in ("deployer-build", "deployer-iam"):
        # IAM compares iam:PermissionsBoundary as a string, as its documentation does.
        expected = {"MISMATCHED_TYPE_BUT_USABLE"}
    if name == "deployer-bot":
        # CreateSecurityGroup asks for the group and for the VPC. Only the group has a tag in the
        # request, so they are two statements, as in EC2's documentation; the linter wants one.
        expected = {"RESOURCE_MISMATCH"}
    assert find_issues(policy) <= expected


def test_the_linter_would_find_what_is_wrong() -> None:
    statement = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:GetObjekt"], "Resource": "*"}
    policy: dict[str, object] = {"Version": "2012-10-17", "Statement": [statement]}
    assert "UNKNOWN_ACTION" in find_issues(policy)
    policy["Statement"] = [{**statement, "Action": "s3:GetObject"}]
    assert find_issues(policy) == {"RESOURCE_STAR"}


@pytest.mark.parametrize("name", [name for name in POLICIES if name != DENYING_POLICY])
def test_nothing_is_allowed_by_wildcard(name: str) -> None:
    for statement in read_statements(name):
        assert statement["Effect"] == "Allow"
        actions = as_list(statement["Action"])
        assert not any("*" in action for action in actions)
        assert "NotAction" not in statement
        assert "NotResource" not in statement
        assert statement.get("Principal") not in ("*", {"AWS": "*"})
        if "*" in as_list(statement.get("Resource", [])):
            sid = statement["Sid"]
            assert set(actions) <= WITHOUT_RESOURCE, f"{sid} is not limited to a resource"


@pytest.mark.parametrize(
    "name",
    [
        "bot",
        "bot-execution",
        "bot-image",
        "boundary",
        "build",
        "deployer",
        "deployer-bot",
        "deployer-build",
        "deployer-iam",
        "deployer-watch",
        "execution",
    ],
)
def test_every_resource_is_of_this_deployment(name: str) -> None:
    service_wide = (
        # AWS chooses the ids of scalable targets.
        f"arn:aws:application-autoscaling:{REGION}:{ACCOUNT}:scalable-target/*",
        # AWS chooses the codes of quotas.
        f"arn:aws:servicequotas:{REGION}:{ACCOUNT}:sagemaker/*",
        # Alarms can only be listed all together.
        f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:*",
        # All transform jobs of an account share one log group, and so do all training jobs.
        f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/sagemaker/TransformJobs",
        f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/sagemaker/TransformJobs:log-stream:*",
        f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/sagemaker/TrainingJobs",
        f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/sagemaker/TrainingJobs:log-stream:*",
    )
    linked_roles = (
        "role/aws-service-role/sagemaker.application-autoscaling.amazonaws.com/",
        "role/aws-service-role/ecs.amazonaws.com/",
    )
    # AWS chooses the ids of keys, security groups and VPCs: these have conditions, see below.
    by_condition = (
        f"arn:aws:kms:{REGION}:{ACCOUNT}:key/*",
        f"arn:aws:ec2:{REGION}:{ACCOUNT}:security-group/*",
        f"arn:aws:ec2:{REGION}:{ACCOUNT}:vpc/*",
    )
    for statement in read_statements(name):
        for resource in as_list(statement["Resource"]):
            ours = re.search(r"[:/]stylebot-", resource) or resource in by_condition
            if any(linked_role in resource for linked_role in linked_roles):
                ours = True
            assert ours or resource == "*" or resource in service_wide, resource


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("deployer", 0),
        ("deployer-bot", 0),
        ("deployer-build", 1),
        ("deployer-iam", 3),
        ("deployer-watch", 0),
        ("bot", 1),
        ("boundary", 1),
        ("execution", 0),
    ],
)
def test_a_role_is_passed_to_its_service_only(name: str, count: int) -> None:
    passing = []
    for statement in read_statements(name):
        if "iam:PassRole" in as_list(statement["Action"]):
            passing.append(statement)
    assert len(passing) == count
    for statement in passing:
        assert "iam:PassedToService" in statement["Condition"]["StringEquals"]


def resources_of(name: str, action: str) -> set[str]:
    """Return the resources on which a policy allows an action."""
    resources: set[str] = set()
    for statement in read_statements(name):
        if action in as_list(statement["Action"]):
            resources.update(as_list(statement["Resource"]))
    return resources


def objects_below(*prefixes: str) -> set[str]:
    return {f"arn:aws:s3:::{BUCKET}/{prefix}*" for prefix in prefixes}


def test_the_bot_may_do_what_it_does_and_no_more() -> None:
    """It keeps its prefixes, calls two endpoints, trains painters, and looks at the alarms."""
    own = (CHATS_PREFIX, JOBS_PREFIX, ASYNC_PREFIX, UPDATES_PREFIX, LESSONS_PREFIX)
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}"
    role = f"arn:aws:iam::{ACCOUNT}:role/stylebot-execution-{REGION}"
    expected = {
        "s3:GetObject": objects_below(*own, MODELS_PREFIX, TRAINING_PREFIX, QUARANTINE_PREFIX),
        "s3:PutObject": objects_below(*own, TRAINING_PREFIX, QUARANTINE_PREFIX),
        "s3:DeleteObject": objects_below(*own),
        "s3:ListBucket": {f"arn:aws:s3:::{BUCKET}"},
        "sagemaker:InvokeEndpointAsync": {f"{arn}:endpoint/stylebot-{model}" for model in MODELS},
        "iam:PassRole": {role},
        # Alarms can only be listed all together.
        "cloudwatch:DescribeAlarms": {f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:*"},
        # A metric has no ARN.
        "cloudwatch:PutMetricData": {"*"},
    }
    # A job with tags needs AddTags.
    for action in ("CreateTrainingJob", "DescribeTrainingJob", "StopTrainingJob", "AddTags"):
        expected[f"sagemaker:{action}"] = {f"{arn}:training-job/stylebot-train-*"}
    assert allowed_actions("bot") == set(expected)
    for action, resources in expected.items():
        assert resources_of("bot", action) == resources, action
    metrics = {"cloudwatch:namespace": METRICS_NAMESPACE}
    assert is_allowed(["bot"], "cloudwatch:PutMetricData", "*", metrics)
    assert not is_allowed(["bot"], "cloudwatch:PutMetricData", "*")


def test_the_containers_may_read_and_write_models_and_trainings() -> None:
    prefixes = (JOBS_PREFIX, ASYNC_PREFIX, "batch/", MODELS_PREFIX, TRAINING_PREFIX)
    assert resources_of("execution", "s3:GetObject") == objects_below(*prefixes)
    assert resources_of("execution", "s3:PutObject") == objects_below(*prefixes)
    assert resources_of("execution", "s3:DeleteObject") == set()
    assert resources_of("execution", "s3:ListBucket") == {f"arn:aws:s3:::{BUCKET}"}


# ---------------------------------------------------------------- the permissions boundary

IAM = f"arn:aws:iam::{ACCOUNT}"
BOUNDARY = f"{IAM}:policy/stylebot-boundary-{REGION}"
ROLE = f"{IAM}:role/stylebot-execution-{REGION}"
BOT_ROLE = f"{IAM}:role/stylebot-bot-{REGION}"
BOT_USER = f"{IAM}:user/stylebot-bot-{REGION}"
BOT_EXECUTION_ROLE = f"{IAM}:role/stylebot-bot-execution-{REGION}"
BUILD_ROLE = f"{IAM}:role/stylebot-build-{REGION}"
ECS = f"arn:aws:ecs:{REGION}:{ACCOUNT}"
TASK = f"{ECS}:task-definition/stylebot-bot:1"
TOKEN = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/telegram/stylebot-token"
GROUP = f"arn:aws:ec2:{REGION}:{ACCOUNT}:security-group/sg-1"
WITHIN = {"iam:PermissionsBoundary": BOUNDARY}
ADMINISTRATOR = {"iam:PermissionsBoundary": "arn:aws:iam::aws:policy/AdministratorAccess"}
DEPLOYER = ["deployer", "deployer-bot", "deployer-build", "deployer-iam", "deployer-watch"]


@pytest.mark.parametrize(
    ("action", "resource", "context"),
    [
        # Give a role or the user more than the boundary allows
        ("iam:CreateRole", ROLE, {}),
        ("iam:CreateRole", BOT_ROLE, ADMINISTRATOR),
        ("iam:PutRolePolicy", ROLE, {}),
        ("iam:PutRolePolicy", BOT_ROLE, ADMINISTRATOR),
        ("iam:PutRolePermissionsBoundary", ROLE, ADMINISTRATOR),
        ("iam:DeleteRolePermissionsBoundary", ROLE, WITHIN),
        ("iam:AttachRolePolicy", ROLE, WITHIN),
        ("iam:CreateUser", BOT_USER, {}),
        ("iam:PutUserPolicy", BOT_USER, {}),
        ("iam:PutUserPolicy", BOT_USER, ADMINISTRATOR),
        ("iam:PutUserPermissionsBoundary", BOT_USER, ADMINISTRATOR),
        ("iam:DeleteUserPermissionsBoundary", BOT_USER, WITHIN),
        ("iam:AttachUserPolicy", BOT_USER, WITHIN),
        # Write the boundary
        ("iam:CreatePolicy", BOUNDARY, {}),
        ("iam:CreatePolicyVersion", BOUNDARY, {}),
        ("iam:SetDefaultPolicyVersion", BOUNDARY, {}),
        # Use what others have
        ("iam:PassRole", f"{IAM}:role/admin", {"iam:PassedToService": "sagemaker.amazonaws.com"}),
        ("iam:PassRole", ROLE, {"iam:PassedToService": "lambda.amazonaws.com"}),
        ("iam:PassRole", f"{IAM}:role/admin", {"iam:PassedToService": "ecs-tasks.amazonaws.com"}),
        ("iam:PassRole", BOT_EXECUTION_ROLE, {"iam:PassedToService": "ec2.amazonaws.com"}),
        ("iam:PassRole", BUILD_ROLE, {"iam:PassedToService": "ec2.amazonaws.com"}),
        ("iam:CreateRole", BUILD_ROLE, {}),
        ("iam:PutRolePolicy", BUILD_ROLE, ADMINISTRATOR),
        ("ecs:RunTask", TASK, {"ecs:cluster": f"{ECS}:cluster/other"}),
        ("ssm:GetParameter", TOKEN, {}),
        ("ssm:GetParameters", TOKEN, {}),
        ("ssm:PutParameter", TOKEN.replace("stylebot", "other"), {}),
        ("ec2:CreateSecurityGroup", GROUP, {"aws:RequestTag/stylebot": "other"}),
        ("ec2:DeleteSecurityGroup", GROUP, {}),
        ("ec2:CreateTags", GROUP, {"ec2:CreateAction": "RunInstances"}),
        ("iam:UpdateAssumeRolePolicy", f"{IAM}:role/admin", WITHIN),
        ("iam:PutRolePolicy", f"{IAM}:role/admin", WITHIN),
        ("iam:CreateAccessKey", f"{IAM}:user/admin", WITHIN),
        ("iam:CreateLoginProfile", BOT_USER, WITHIN),
        ("sts:AssumeRole", f"{IAM}:role/admin", {}),
    ],
)
def test_the_deployer_cannot_become_an_administrator(
    action: str, resource: str, context: dict[str, str]
) -> None:
    assert not is_allowed(DEPLOYER, action, resource, context)


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("iam:CreateRole", ROLE),
        ("iam:PutRolePolicy", BOT_ROLE),
        ("iam:PutRolePermissionsBoundary", ROLE),
        ("iam:CreateRole", BOT_EXECUTION_ROLE),
        ("iam:CreateUser", BOT_USER),
        ("iam:PutUserPolicy", BOT_USER),
    ],
)
def test_the_deployer_can_make_roles_and_the_user_within_the_boundary(
    action: str, resource: str
) -> None:
    assert is_allowed(DEPLOYER, action, resource, WITHIN)


def test_the_boundary_gives_no_way_out() -> None:
    """Only S3, ECR, logs, metrics and SageMaker; of IAM only to pass one role to SageMaker."""
    actions = allowed_actions("boundary")
    services = {action.partition(":")[0] for action in actions}
    assert services == {"s3", "ecr", "logs", "cloudwatch", "sagemaker", "iam", "ssm", "kms"}
    assert {action for action in actions if action.startswith("iam:")} == {"iam:PassRole"}
    assert not {action for action in actions if action.startswith("s3:") and "Policy" in action}


@pytest.mark.parametrize("name", ["bot", "bot-execution", "bot-image", "build", "execution"])
def test_the_boundary_allows_what_the_roles_do(name: str) -> None:
    for statement in read_statements(name):
        resources, context = example_request(statement)
        for action in as_list(statement["Action"]):
            for resource in resources:
                assert is_allowed(["boundary"], action, resource, context), (action, resource)


def test_the_bots_role_may_pull_its_image_only() -> None:
    repository = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/stylebot-bot"
    for action in ("BatchGetImage", "GetDownloadUrlForLayer", "BatchCheckLayerAvailability"):
        assert resources_of("bot-image", f"ecr:{action}") == {repository}
    assert "ecr:GetAuthorizationToken" in allowed_actions("bot-image")


def test_only_the_one_token_can_be_read_and_only_to_start_the_bot() -> None:
    assert resources_of("bot-execution", "ssm:GetParameters") == {TOKEN}
    through_the_store = {
        "kms:ViaService": f"ssm.{REGION}.amazonaws.com",
        "kms:EncryptionContext:PARAMETER_ARN": TOKEN,
    }
    key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1"
    for name in ("bot-execution", "boundary"):
        assert is_allowed([name], "kms:Decrypt", key, through_the_store)
        other = {**through_the_store, "kms:EncryptionContext:PARAMETER_ARN": f"{TOKEN}-2"}
        assert not is_allowed([name], "kms:Decrypt", key, other)
    assert not {action for action in allowed_actions("bot") if action.startswith(("ssm", "kms"))}


@pytest.mark.parametrize(
    ("partition", "region"),
    [("aws", "ap-southeast-2"), ("aws-cn", "cn-northwest-1"), ("aws-us-gov", "us-gov-west-1")],
)
def test_the_bots_policy_fits_into_a_user_whatever_the_names(partition: str, region: str) -> None:
    """A user's own policies may have 2048 characters, in all."""
    text = without_sids(json.dumps(read_document("bot"))).replace("arn:aws:", f"arn:{partition}:")
    longest = text.replace("stylebot", "a" * 20).replace(REGION, region)
    assert len(longest) <= 2048


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_fits_into_iam(name: str) -> None:
    text = json.dumps(read_document(name), separators=(",", ":"))
    assert len(text) <= MANAGED_POLICY_SIZE
