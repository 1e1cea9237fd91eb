"""One deployment: an AWS account, a region and a prefix, with its clients, names and tags."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from boto3 import Session
from botocore.config import Config

from aws.calls import Client
from aws.clock import Clock
from aws.endpoint_settings import endpoint_name
from aws.messages import DeployError

ROOT = Path(__file__).resolve().parents[1]
POLICIES = Path(__file__).resolve().parent / "policies"
# Everything that `up` creates has the tag stylebot=PREFIX. `down` removes nothing without it.
TAG = "stylebot"
# Where each partition lists what has no region
GLOBAL_REGIONS = {"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}
# The end of the address of the console, where it is another one
CONSOLES = {"aws-cn": "console.amazonaws.cn", "aws-us-gov": "console.amazonaws-us-gov.com"}
# The end of the names of EC2 and of KMS' callers in policies, where it is another one
DNS_SUFFIXES = {"aws-cn": "amazonaws.com.cn"}


@dataclass(frozen=True)
class Account:
    """The clients of one account and region, and the names and tags of one deployment in it."""

    id: str
    partition: str
    region: str
    prefix: str
    tags: dict[str, str]
    clock: Clock

    s3: Client
    iam: Client
    ecr: Client
    logs: Client
    sagemaker: Client
    sagemaker_runtime: Client
    scaling: Client
    cloudwatch: Client
    sns: Client
    budgets: Client
    tagging: Client
    # For what has no region, such as policies
    global_tagging: Client
    quotas: Client
    ecs: Client
    ssm: Client
    ec2: Client
    codebuild: Client

    @property
    def bucket(self) -> str:
        return f"{self.prefix}-{self.id}-{self.region}"

    @property
    def execution_role(self) -> str:
        """Name the role that SageMaker assumes. It has the region in it, as IAM has no regions."""
        return f"{self.prefix}-execution-{self.region}"

    @property
    def execution_role_arn(self) -> str:
        return f"arn:{self.partition}:iam::{self.id}:role/{self.execution_role}"

    @property
    def boundary(self) -> str:
        """Name the managed policy that limits what any policy can allow the roles and the user."""
        return f"{self.prefix}-boundary-{self.region}"

    @property
    def boundary_arn(self) -> str:
        return f"arn:{self.partition}:iam::{self.id}:policy/{self.boundary}"

    @property
    def bot_identity(self) -> str:
        """Name the bot's IAM user, role and instance profile."""
        return f"{self.prefix}-bot-{self.region}"

    @property
    def bot_log_group(self) -> str:
        return f"/ecs/{self.prefix}-bot"

    @property
    def dashboard(self) -> str:
        """Name the dashboard. It has the region in it, as dashboards have no regions."""
        return f"{self.prefix}-{self.region}"

    @property
    def topic_arn(self) -> str:
        """Return the ARN of the SNS topic to which the alarms are sent."""
        return f"arn:{self.partition}:sns:{self.region}:{self.id}:{self.prefix}-alarms"

    @property
    def console(self) -> str:
        """Return the address of AWS's console for the region."""
        return f"https://{self.region}.{CONSOLES.get(self.partition, 'console.aws.amazon.com')}"

    @property
    def has_budgets(self) -> bool:
        """Return whether AWS Budgets counts this account's dollars.

        GovCloud has no AWS Budgets, and in China it counts yuan.
        """
        return self.partition == "aws"

    @property
    def budget(self) -> str:
        """Name the budget. It has the region in it, as AWS Budgets has no regions."""
        return f"{self.prefix}-{self.region}"

    @property
    def bot_identity_arn(self) -> str:
        return f"arn:{self.partition}:iam::{self.id}:role/{self.bot_identity}"

    @property
    def bot_execution_role(self) -> str:
        """Name the role with which ECS starts the bot: it pulls the image and reads the token."""
        return f"{self.prefix}-bot-execution-{self.region}"

    @property
    def bot_execution_role_arn(self) -> str:
        return f"arn:{self.partition}:iam::{self.id}:role/{self.bot_execution_role}"

    @property
    def bot_service(self) -> str:
        """Name the bot's ECS service, its cluster, task definitions and security group."""
        return f"{self.prefix}-bot"

    @property
    def build_project(self) -> str:
        """Name the CodeBuild project of `build.sh --remote`."""
        return f"{self.prefix}-build"

    @property
    def build_role(self) -> str:
        return f"{self.prefix}-build-{self.region}"

    @property
    def build_role_arn(self) -> str:
        return f"arn:{self.partition}:iam::{self.id}:role/{self.build_role}"

    @property
    def build_log_group(self) -> str:
        return f"/aws/codebuild/{self.prefix}-build"

    @property
    def token_parameter(self) -> str:
        """Name the parameter of Systems Manager that has the token of the bot on ECS.

        A name may not begin with the words aws and ssm, as a prefix may.
        """
        return f"/telegram/{self.prefix}-token"

    @property
    def tag_list(self) -> list[dict[str, str]]:
        """Return the tags in the shape that most services take."""
        return [{"Key": key, "Value": value} for key, value in self.tags.items()]

    @property
    def lower_case_tag_list(self) -> list[dict[str, str]]:
        """Return the tags in the shape that ECS and CodeBuild take."""
        return [{"key": key, "value": value} for key, value in self.tags.items()]

    def endpoint_name(self, model: str) -> str:
        return endpoint_name(self.prefix, model)

    def repository_name(self, image: str) -> str:
        return f"{self.prefix}-{image}"

    def policy_document(self, name: str) -> str:
        """Return policies/NAME.json with this deployment's names filled in."""
        template = Template((POLICIES / f"{name}.json").read_text())
        return template.substitute(
            partition=self.partition,
            dns_suffix=DNS_SUFFIXES.get(self.partition, "amazonaws.com"),
            account=self.id,
            region=self.region,
            prefix=self.prefix,
            bucket=self.bucket,
            role=self.execution_role,
            bot=self.bot_identity,
            bot_execution=self.bot_execution_role,
            build=self.build_role,
            boundary=self.boundary,
        )

    def is_ours(self, tags: list[dict[str, str]] | None) -> bool:
        """Return whether the tags of a resource say that `up` created it for this prefix."""
        mark = {"Key": TAG, "Value": self.prefix}
        lower_case_mark = {"key": TAG, "value": self.prefix}
        return any(tag in (mark, lower_case_mark) for tag in tags or [])


def open_account(
    prefix: str,
    region: str | None = None,
    extra_tags: dict[str, str] | None = None,
    session: Any = None,  # noqa: ANN401 - boto3 has no types
    clock: Clock | None = None,
) -> Account:
    """Connect to AWS with the credentials that boto3 finds.

    Raises DeployError if no region is set or SageMaker is not in that region.
    """
    session = session or Session(region_name=region)
    region = region or session.region_name
    region = check_region(session, region)
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 8},
        connect_timeout=10,
        read_timeout=60,
    )

    partition = session.get_partition_for_region(region)

    def client(service: str) -> Client:
        return session.client(service, region_name=region, config=config)

    return Account(
        id=client("sts").get_caller_identity()["Account"],
        partition=partition,
        region=region,
        prefix=prefix,
        tags={**(extra_tags or {}), TAG: prefix},
        clock=clock or Clock(),
        s3=client("s3"),
        iam=client("iam"),
        ecr=client("ecr"),
        logs=client("logs"),
        sagemaker=client("sagemaker"),
        sagemaker_runtime=client("sagemaker-runtime"),
        scaling=client("application-autoscaling"),
        cloudwatch=client("cloudwatch"),
        sns=client("sns"),
        budgets=client("budgets"),
        tagging=client("resourcegroupstaggingapi"),
        global_tagging=session.client(
            "resourcegroupstaggingapi",
            region_name=GLOBAL_REGIONS.get(partition, region),
            config=config,
        ),
        quotas=client("service-quotas"),
        ecs=client("ecs"),
        ssm=client("ssm"),
        ec2=client("ec2"),
        codebuild=client("codebuild"),
    )


def check_region(session: Any, region: str | None) -> str:  # noqa: ANN401 - boto3 has no types
    """Return the region. Raises DeployError if it is missing or has no SageMaker."""
    if not region:
        raise DeployError(
            "No region is set. Set one: --region eu-west-1, or AWS_DEFAULT_REGION, or in "
            "~/.aws/config."
        )

    known: list[str] = []
    for partition in session.get_available_partitions():
        known += session.get_available_regions("sagemaker", partition)
    if region not in known:
        similar = difflib.get_close_matches(region, known, 3) or ["eu-west-1"]
        raise DeployError(
            f"There is no SageMaker in a region {region}. Choose another with --region, such as "
            f"{' or '.join(similar)}."
        )
    return region
