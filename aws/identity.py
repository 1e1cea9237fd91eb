"""IAM: the role that SageMaker assumes, and the bot's user, or its role and instance profile."""

import json

from aws.account import Account
from aws.calls import Answer, delete_if_present, find, is_subset, perform
from aws.changes import Change, Changes


def find_role(account: Account, name: str) -> Answer | None:
    found = find(account.iam.get_role, RoleName=name)
    if found is None:
        return None
    role: Answer = found["Role"]
    return role


def find_user(account: Account, name: str) -> Answer | None:
    found = find(account.iam.get_user, UserName=name)
    if found is None:
        return None
    user: Answer = found["User"]
    return user


def find_instance_profile(account: Account, name: str) -> Answer | None:
    found = find(account.iam.get_instance_profile, InstanceProfileName=name)
    if found is None:
        return None
    profile: Answer = found["InstanceProfile"]
    return profile


# ---------------------------------------------------------------- ensure


def ensure_execution_role(account: Account) -> Changes:
    """Yield what is missing to have the role that SageMaker assumes."""
    yield from ensure_role(account, account.execution_role, policy="execution", trust="trust")


def ensure_bot_user(account: Account) -> Changes:
    """Yield what is missing to have a user for a bot that runs outside AWS."""
    iam = account.iam
    name = account.bot_identity
    if find_user(account, name) is None:
        yield Change(
            f"create the user {name}",
            lambda: perform(account.clock, iam.create_user, UserName=name, Tags=account.tag_list),
        )

    wanted = account.policy_document("bot")
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


def ensure_bot_role(account: Account) -> Changes:
    """Yield what is missing to have a role for a bot on ECS or, by its instance profile, on EC2."""
    iam = account.iam
    name = account.bot_identity
    yield from ensure_role(account, name, policy="bot", trust="bot-trust")

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


def ensure_role(account: Account, name: str, policy: str, trust: str) -> Changes:
    """Yield what is missing to have a role with one inline policy.

    `policy` and `trust` name files in policies/: what the role may do, and who may assume it.
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
