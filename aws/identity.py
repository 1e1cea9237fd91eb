"""IAM: the role that SageMaker assumes, the bot's user, or its role and instance profile, and the
permissions boundary of them all.
"""

import json
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from aws.account import Account
from aws.calls import Answer, delete_if_present, find, is_subset, perform
from aws.changes import Change, Changes
from aws.messages import DeployError

# IAM keeps no more versions of a managed policy.
MAX_POLICY_VERSIONS = 5


def find_role(account: Account, name: str) -> Answer | None:
    return find_described(account.iam.get_role, "Role", RoleName=name)


def find_user(account: Account, name: str) -> Answer | None:
    return find_described(account.iam.get_user, "User", UserName=name)


def find_instance_profile(account: Account, name: str) -> Answer | None:
    return find_described(
        account.iam.get_instance_profile, "InstanceProfile", InstanceProfileName=name
    )


def find_policy(account: Account, arn: str) -> Answer | None:
    return find_described(account.iam.get_policy, "Policy", PolicyArn=arn)


def find_described(call: Callable[..., Any], member: str, **arguments: object) -> Answer | None:
    """Return a member of what a get call answers, or None if the resource does not exist."""
    found = find(call, **arguments)
    if found is None:
        return None
    description: Answer = found[member]
    return description


# ---------------------------------------------------------------- the boundary


def ensure_boundary(account: Account) -> Changes:
    """Yield what is missing to have the permissions boundary of the roles and the user.

    Whatever policy somebody gives them, they can do no more than the boundary allows. So whoever
    may give policies to them only, as the deployer, cannot become an administrator by it. The
    deployer cannot write the boundary: then running the change raises DeployError, which says what
    an administrator has to do.
    """
    document = account.policy_document("boundary")
    policy = find_policy(account, account.boundary_arn)
    if policy is None:
        yield Change(
            f"create the permissions boundary {account.boundary}",
            lambda: write_boundary(
                account,
                account.iam.create_policy,
                PolicyName=account.boundary,
                PolicyDocument=document,
                Tags=account.tag_list,
            ),
        )
    elif missing_statements(json.loads(document), read_boundary(account, policy)):
        yield Change(
            f"change the permissions boundary {account.boundary}",
            lambda: replace_boundary(account, document),
        )


def read_boundary(account: Account, policy: Answer) -> Answer:
    """Return the document of the boundary, whose description is `policy`."""
    found = account.iam.get_policy_version(
        PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"]
    )
    document: Answer = found["PolicyVersion"]["Document"]
    return document


def missing_statements(wanted: Answer, current: Answer) -> list[Answer]:
    """Return the wanted statements that are missing. An administrator may have added others."""
    return [
        statement
        for statement in wanted["Statement"]
        if not any(is_subset(statement, other) for other in current["Statement"])
    ]


def replace_boundary(account: Account, document: str) -> None:
    arn = account.boundary_arn
    versions = account.iam.list_policy_versions(PolicyArn=arn)["Versions"]
    others = [version for version in versions if not version["IsDefaultVersion"]]
    if len(versions) >= MAX_POLICY_VERSIONS:
        oldest = min(others, key=lambda version: version["CreateDate"])
        delete_policy_version(account, arn, oldest["VersionId"])
    write_boundary(
        account,
        account.iam.create_policy_version,
        PolicyArn=arn,
        PolicyDocument=document,
        SetAsDefault=True,
    )


def write_boundary(account: Account, call: Callable[..., Any], **arguments: object) -> None:
    try:
        perform(account.clock, call, **arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("AccessDenied", "AccessDeniedException"):
            raise
        command = f"./deploy.py policy boundary --region {account.region} --prefix {account.prefix}"
        read = "open('boundary.json').read()"
        iam = "import boto3; boto3.client('iam')"
        raise DeployError(
            f"These credentials may not write the permissions boundary {account.boundary}, and "
            "should not: it limits what they can give away. An administrator does it:\n"
            f"  {command} >boundary.json\n"
            f'  .venv/bin/python -c "{iam}.create_policy('
            f"PolicyName='{account.boundary}', PolicyDocument={read})\"\n"
            "or, if it exists:\n"
            f'  .venv/bin/python -c "{iam}.create_policy_version('
            f"PolicyArn='{account.boundary_arn}', PolicyDocument={read}, SetAsDefault=True)\""
        ) from error


def remove_boundary(account: Account) -> Changes:
    """Yield the deletion of the boundary, if `up` created it, after all that it limits."""
    policy = find_policy(account, account.boundary_arn)
    if policy is None or not account.is_ours(policy.get("Tags")):
        return
    yield Change(
        f"delete the permissions boundary {account.boundary}", lambda: delete_boundary(account)
    )


def delete_boundary(account: Account) -> None:
    arn = account.boundary_arn
    found = find(account.iam.list_policy_versions, PolicyArn=arn) or {"Versions": []}
    for version in found["Versions"]:
        if not version["IsDefaultVersion"]:
            delete_policy_version(account, arn, version["VersionId"])
    delete_if_present(account.clock, account.iam.delete_policy, PolicyArn=arn)


def delete_policy_version(account: Account, arn: str, version: str) -> None:
    delete_if_present(
        account.clock, account.iam.delete_policy_version, PolicyArn=arn, VersionId=version
    )


def has_boundary(account: Account, identity: Answer) -> bool:
    """Return whether our boundary limits a role or a user."""
    boundary = identity.get("PermissionsBoundary") or {}
    return bool(boundary.get("PermissionsBoundaryArn") == account.boundary_arn)


# ---------------------------------------------------------------- ensure


def ensure_execution_role(account: Account) -> Changes:
    """Yield what is missing to have the role that SageMaker assumes."""
    yield from ensure_role(account, account.execution_role, ["execution"], trust="trust")


def ensure_bot_user(account: Account) -> Changes:
    """Yield what is missing to have a user for a bot that runs outside AWS."""
    iam = account.iam
    name = account.bot_identity
    user = find_user(account, name)
    if user is None:
        yield Change(
            f"create the user {name}",
            lambda: perform(
                account.clock,
                iam.create_user,
                UserName=name,
                PermissionsBoundary=account.boundary_arn,
                Tags=account.tag_list,
            ),
        )
    elif not has_boundary(account, user):
        yield Change(
            f"limit the user {name} by {account.boundary}",
            lambda: perform(
                account.clock,
                iam.put_user_permissions_boundary,
                UserName=name,
                PermissionsBoundary=account.boundary_arn,
            ),
        )

    wanted = without_sids(account.policy_document("bot"))
    found = find(iam.get_user_policy, UserName=name, PolicyName="bot")
    if found and is_subset(json.loads(wanted), found["PolicyDocument"]):
        return
    yield Change(
        f"give the user {name} the policy bot.json",
        lambda: perform(
            account.clock,
            iam.put_user_policy,
            UserName=name,
            PolicyName="bot",
            PolicyDocument=wanted,
        ),
    )


def without_sids(document: str) -> str:
    """Return a policy without the names of its statements: a user's may have 2048 characters."""
    policy = json.loads(document)
    for statement in policy["Statement"]:
        statement.pop("Sid", None)
    return json.dumps(policy, separators=(",", ":"))


def ensure_bot_role(account: Account) -> Changes:
    """Yield what is missing to have a role for a bot on ECS or, by its instance profile, on EC2."""
    iam = account.iam
    name = account.bot_identity
    yield from ensure_role(account, name, ["bot", "bot-image"], trust="bot-trust")

    profile = find_instance_profile(account, name)
    if profile is None:
        yield Change(
            f"create the instance profile {name}",
            lambda: perform(
                account.clock,
                iam.create_instance_profile,
                InstanceProfileName=name,
                Tags=account.tag_list,
            ),
        )
    if profile is None or not profile["Roles"]:
        yield Change(
            f"put the role into the instance profile {name}",
            lambda: perform(
                account.clock,
                iam.add_role_to_instance_profile,
                InstanceProfileName=name,
                RoleName=name,
            ),
        )


def ensure_task_roles(account: Account) -> Changes:
    """Yield what is missing to have the bot's role, and the one with which ECS starts the bot."""
    yield from ensure_role(account, account.bot_identity, ["bot"], trust="bot-trust")
    yield from ensure_role(
        account, account.bot_execution_role, ["bot-execution"], trust="bot-execution-trust"
    )


def ensure_build_role(account: Account) -> Changes:
    """Yield what is missing to have the role with which CodeBuild builds and pushes the images."""
    yield from ensure_role(account, account.build_role, ["build"], trust="build-trust")


def ensure_role(account: Account, name: str, policies: list[str], trust: str) -> Changes:
    """Yield what is missing to have a role with inline policies, within the boundary.

    `policies` and `trust` name files in policies/: what the role may do, and who may assume it.
    """
    iam = account.iam
    trust_document = account.policy_document(trust)
    role = find_role(account, name)
    if role is None:
        yield Change(
            f"create the role {name}",
            lambda: perform(
                account.clock,
                iam.create_role,
                RoleName=name,
                AssumeRolePolicyDocument=trust_document,
                PermissionsBoundary=account.boundary_arn,
                Tags=account.tag_list,
            ),
        )
    elif not is_subset(json.loads(trust_document), role["AssumeRolePolicyDocument"]):
        yield Change(
            f"change who may assume the role {name}",
            lambda: perform(
                account.clock,
                iam.update_assume_role_policy,
                RoleName=name,
                PolicyDocument=trust_document,
            ),
        )

    if role is not None and not has_boundary(account, role):
        yield Change(
            f"limit the role {name} by {account.boundary}",
            lambda: perform(
                account.clock,
                iam.put_role_permissions_boundary,
                RoleName=name,
                PermissionsBoundary=account.boundary_arn,
            ),
        )
    for policy in policies:
        yield from ensure_role_policy(account, name, policy)


def ensure_role_policy(account: Account, name: str, policy: str) -> Changes:
    iam = account.iam
    wanted = account.policy_document(policy)
    found = find(iam.get_role_policy, RoleName=name, PolicyName=policy)
    if found and is_subset(json.loads(wanted), found["PolicyDocument"]):
        return
    yield Change(
        f"give the role {name} the policy {policy}.json",
        lambda: perform(
            account.clock,
            iam.put_role_policy,
            RoleName=name,
            PolicyName=policy,
            PolicyDocument=wanted,
        ),
    )


# ---------------------------------------------------------------- remove


def remove_instance_profile(account: Account) -> Changes:
    """Yield the deletion of the bot's instance profile, if `up` created it."""
    profile = find_instance_profile(account, account.bot_identity)
    if profile is None or not account.is_ours(profile.get("Tags")):
        return
    roles = [role["RoleName"] for role in profile["Roles"]]
    yield Change(
        f"delete the instance profile {account.bot_identity}",
        lambda: delete_instance_profile(account, account.bot_identity, roles),
    )


def remove_execution_role(account: Account) -> Changes:
    """Yield the deletion of the role that SageMaker assumes, if `up` created it."""
    yield from remove_role(account, account.execution_role)


def remove_bot_role(account: Account) -> Changes:
    """Yield the deletion of the bot's role, if `up` created it."""
    yield from remove_role(account, account.bot_identity)


def remove_bot_execution_role(account: Account) -> Changes:
    """Yield the deletion of the role with which ECS starts the bot, if `up` created it."""
    yield from remove_role(account, account.bot_execution_role)


def remove_build_role(account: Account) -> Changes:
    """Yield the deletion of CodeBuild's role, if `build.sh --remote` created it."""
    yield from remove_role(account, account.build_role)


def remove_role(account: Account, name: str) -> Changes:
    role = find_role(account, name)
    if role is None or not account.is_ours(role.get("Tags")):
        return
    yield Change(f"delete the role {name}", lambda: delete_role(account, name))


def remove_bot_user(account: Account) -> Changes:
    """Yield the deletion of the bot's user and its access keys, if `up` created it."""
    name = account.bot_identity
    user = find_user(account, name)
    if user is None or not account.is_ours(user.get("Tags")):
        return
    yield Change(f"delete the user {name}", lambda: delete_user(account, name))


def delete_instance_profile(account: Account, name: str, roles: list[str]) -> None:
    iam = account.iam
    for role in roles:
        delete_if_present(
            account.clock,
            iam.remove_role_from_instance_profile,
            InstanceProfileName=name,
            RoleName=role,
        )
    delete_if_present(account.clock, iam.delete_instance_profile, InstanceProfileName=name)


def delete_role(account: Account, name: str) -> None:
    """Delete the role's inline policies, then the role, as IAM asks for that order."""
    iam = account.iam
    policies = find(iam.list_role_policies, RoleName=name) or {"PolicyNames": []}
    for policy in policies["PolicyNames"]:
        delete_if_present(account.clock, iam.delete_role_policy, RoleName=name, PolicyName=policy)
    delete_if_present(account.clock, iam.delete_role, RoleName=name)


def delete_user(account: Account, name: str) -> None:
    """Delete the user's inline policies and access keys, then the user."""
    iam = account.iam
    policies = find(iam.list_user_policies, UserName=name) or {"PolicyNames": []}
    for policy in policies["PolicyNames"]:
        delete_if_present(account.clock, iam.delete_user_policy, UserName=name, PolicyName=policy)

    keys = find(iam.list_access_keys, UserName=name) or {"AccessKeyMetadata": []}
    for key in keys["AccessKeyMetadata"]:
        delete_if_present(
            account.clock,
            iam.delete_access_key,
            UserName=name,
            AccessKeyId=key["AccessKeyId"],
        )

    delete_if_present(account.clock, iam.delete_user, UserName=name)
