"""Service Quotas: how many instances the account may run, what this needs, and asking for more."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from aws.account import Account
from aws.calls import Answer, perform
from aws.changes import Change, Changes
from aws.configs import find_instance_types
from aws.endpoint_settings import EndpointSettings
from aws.endpoints import find_endpoint
from aws.messages import DeployError, explain_error, say

SERVICE = "sagemaker"


@dataclass(frozen=True)
class Need:
    """How many instances one quota has to allow."""

    # The quota's name, such as "ml.g4dn.xlarge for endpoint usage"
    quota: str
    # Without so many, this `up` fails
    now: int
    # So many let every endpoint be updated, old and new instances side by side, and scale
    in_all: int
    # Whether it is for an instance type that is only taken where AWS has none of the first
    is_optional: bool = False


@dataclass(frozen=True)
class Quota:
    """What the account has."""

    name: str
    code: str
    value: int


def endpoint_quota_name(instance_type: str) -> str:
    return f"{instance_type} for endpoint usage"


def describe_needs(
    account: Account, settings: list[EndpointSettings], training_type: str
) -> list[Need]:
    """Return what the endpoints and a training need, by quota."""
    now: dict[str, int] = {}
    updating: dict[str, int] = {}
    scaling: dict[str, int] = {}
    for endpoint in settings:
        name = endpoint_quota_name(endpoint.instance_type)
        running = max(1, endpoint.min_instances)
        found = find_endpoint(account, endpoint.name)
        now.setdefault(name, 0)
        types = []
        if found is not None:
            types = find_instance_types(account, found["EndpointConfigName"])
        if types[:1] != [endpoint.instance_type]:
            now[name] += running
        for instance_type in endpoint.instance_types:
            name = endpoint_quota_name(instance_type)
            now.setdefault(name, 0)
            updating[name] = updating.get(name, 0) + 2 * running
            scaling[name] = scaling.get(name, 0) + endpoint.max_instances
    first_types = {endpoint_quota_name(endpoint.instance_type) for endpoint in settings}
    needs = []
    for name, count in now.items():
        in_all = max(updating[name], scaling[name])
        needs.append(Need(name, count, in_all, is_optional=name not in first_types))
    return [*needs, Need(f"{training_type} for spot training job usage", now=0, in_all=1)]


def find_quotas(account: Account, names: Iterable[str]) -> dict[str, Quota]:
    """Return the quotas by name: what the account has, or AWS's default."""
    wanted = set(names)
    found: dict[str, Quota] = {}
    for operation in ("list_service_quotas", "list_aws_default_service_quotas"):
        if wanted <= set(found):
            break
        # SageMaker has some thousands of quotas.
        pages = account.quotas.get_paginator(operation).paginate(
            ServiceCode=SERVICE, PaginationConfig={"PageSize": 100}
        )
        for page in pages:
            for quota in page["Quotas"]:
                name = quota["QuotaName"]
                if name in wanted and name not in found:
                    found[name] = Quota(name, quota["QuotaCode"], math.floor(quota["Value"]))
    return found


def check_quotas(account: Account, needs: list[Need], plan: bool) -> dict[str, Quota]:
    """Print what is needed and what there is, where there is too little. Return the quotas by name.

    Raises DeployError if this `up` would fail, unless it is a plan. Where AWS does not tell the
    quotas, prints that.
    """
    quotas = find_known_quotas(account, needs)
    missing = []
    for need in needs:
        quota = quotas.get(need.quota)
        if quota is None or quota.value >= need.in_all:
            continue
        text = describe_shortage(need, quota)
        if quota.value < need.now and not plan:
            missing.append(text)
        else:
            say(text)
    if missing:
        raise DeployError(
            "\n".join(missing) + "\nNothing was made. To request what is needed in all: "
            f"./deploy.py up --request-quota --region {account.region} --prefix {account.prefix}. "
            "Or choose another --instance-type."
        )
    return quotas


def find_known_quotas(account: Account, needs: list[Need]) -> dict[str, Quota]:
    try:
        return find_quotas(account, [need.quota for need in needs])
    except (ClientError, BotoCoreError) as error:
        say(f"The quotas are not known: {explain_error(error)}")
        return {}


def describe_shortage(need: Need, quota: Quota) -> str:
    text = f'The quota "{need.quota}" is {quota.value}: {need.in_all} are needed in all'
    if need.now:
        text += (
            f" (to update with old and new instances side by side, and to scale), {need.now} now"
        )
    return f"{text}."


def request_quotas(account: Account, needs: list[Need]) -> Changes:
    """Yield the request of each quota that is smaller than what is needed in all.

    Raises DeployError if AWS does not tell a quota.
    """
    quotas = find_quotas(account, [need.quota for need in needs])
    for need in needs:
        quota = quotas.get(need.quota)
        if quota is None:
            raise DeployError(f'Service Quotas knows no "{need.quota}" in {account.region}.')
        if quota.value < need.in_all:
            yield requesting(account, quota, need.in_all)


def requesting(account: Account, quota: Quota, value: int) -> Change:
    return Change(
        f'request the quota "{quota.name}": {value} instead of {quota.value}',
        lambda: request_quota(account, quota, value),
    )


def request_quota(account: Account, quota: Quota, value: int) -> None:
    answer: Answer = perform(
        account.clock,
        account.quotas.request_service_quota_increase,
        ServiceCode=SERVICE,
        QuotaCode=quota.code,
        DesiredValue=float(value),
    )
    if not answer:
        say(f'"{quota.name}" was requested before; AWS has not decided yet.')
