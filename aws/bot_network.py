"""EC2: where the bot on ECS is in the network. It reaches the internet, and nothing reaches it."""

from __future__ import annotations

from dataclasses import dataclass

from aws.account import Account
from aws.calls import Answer, delete_if_present, perform
from aws.changes import Change, Changes
from aws.messages import DeployError


@dataclass(frozen=True)
class Network:
    """The default VPC of the region and its public subnets, one in each availability zone."""

    vpc: str
    subnets: list[str]


def find_network(account: Account) -> Network:
    """Return the default VPC. Raises DeployError if there is none, with what to do."""
    is_default = [{"Name": "is-default", "Values": ["true"]}]
    vpcs = account.ec2.describe_vpcs(Filters=is_default)["Vpcs"]
    if vpcs:
        vpc = str(vpcs[0]["VpcId"])
        filters = [
            {"Name": "vpc-id", "Values": [vpc]},
            {"Name": "default-for-az", "Values": ["true"]},
        ]
        found = account.ec2.describe_subnets(Filters=filters)["Subnets"]
        subnets = sorted(subnet["SubnetId"] for subnet in found)
        if subnets:
            return Network(vpc, subnets)

    call = f"import boto3; boto3.client('ec2', '{account.region}').create_default_vpc()"
    raise DeployError(
        f"There is no default VPC with subnets in {account.region}, and the bot on Fargate needs "
        "one. It costs nothing. To create it, run:\n"
        f'  .venv/bin/python -c "{call}"\n'
        "or, in the console: VPC > Your VPCs > Actions > Create default VPC. Then run up again."
    )


def find_security_group(account: Account) -> Answer | None:
    filters = [{"Name": "group-name", "Values": [account.bot_service]}]
    found: list[Answer] = account.ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    for group in found:
        if account.is_ours(group.get("Tags")):
            return group
    return None


def ensure_security_group(account: Account, network: Network) -> Changes:
    """Yield the creation of a security group that lets everything out and nothing in."""
    if find_security_group(account) is not None:
        return
    tags = {"ResourceType": "security-group", "Tags": account.tag_list}
    yield Change(
        f"create the security group {account.bot_service}",
        lambda: perform(
            account.clock,
            account.ec2.create_security_group,
            GroupName=account.bot_service,
            Description="The Telegram bot: no way in",
            VpcId=network.vpc,
            TagSpecifications=[tags],
        ),
    )


def remove_security_group(account: Account) -> Changes:
    """Yield the deletion of the security group, if `up` created it."""
    group = find_security_group(account)
    if group is None:
        return
    yield Change(
        f"delete the security group {account.bot_service}",
        lambda: delete_if_present(
            account.clock, account.ec2.delete_security_group, GroupId=group["GroupId"]
        ),
    )
