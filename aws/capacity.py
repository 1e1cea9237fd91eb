"""Instance pools: several instance types, so that one without capacity is no hour of silence.

SageMaker tries the types in the order of the list, which is that of their prices. A type is used
where the account may run enough instances of it. Where AWS refuses pools, there is one type.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from botocore.exceptions import ClientError

from aws.account import Account
from aws.changes import Change, Changes
from aws.configs import EndpointConfig, ensure_config, find_instance_types
from aws.endpoint_settings import EndpointSettings
from aws.endpoints import find_endpoint
from aws.history import History, change_history, read_history
from aws.messages import say
from aws.quotas import Quota, endpoint_quota_name


def choose_types(
    account: Account, settings: list[EndpointSettings], quotas: dict[str, Quota]
) -> list[EndpointSettings]:
    """Return the settings with those further instance types that can be used.

    `quotas` has what the account may run, by the quota's name; it is empty if AWS does not tell.
    Then the endpoints keep the types that they have.
    """
    chosen = []
    for endpoint in settings:
        types = [kind for kind in endpoint.fallback_types if has_room(settings, quotas, kind)]
        if not quotas:
            types = keep_types(account, endpoint)
        unused = set(endpoint.fallback_types) - set(types)
        if unused:
            say(
                f"{endpoint.name} does without {', '.join(sorted(unused))}, where AWS has no "
                f"{endpoint.instance_type}: no quota for that is known, or it is too small."
            )
        if types and is_refused(account, endpoint.name, [endpoint.instance_type, *types]):
            say(f"{endpoint.name} has one instance type only: AWS has refused several.")
            types = []
        chosen.append(replace(endpoint, fallback_types=tuple(types)))
    return chosen


def has_room(settings: list[EndpointSettings], quotas: dict[str, Quota], kind: str) -> bool:
    """Return whether all endpoints that name the type may run an instance of it at once."""
    quota = quotas.get(endpoint_quota_name(kind))
    users = [endpoint for endpoint in settings if kind in endpoint.instance_types]
    return quota is not None and quota.value >= sum(max(1, user.min_instances) for user in users)


def keep_types(account: Account, settings: EndpointSettings) -> list[str]:
    """Return those of the wanted further types that the endpoint has now."""
    endpoint = find_endpoint(account, settings.name)
    if endpoint is None:
        return []
    types = find_instance_types(account, endpoint["EndpointConfigName"])
    return [kind for kind in settings.fallback_types if kind in types]


def is_refused(account: Account, endpoint: str, types: list[str]) -> bool:
    """Return whether AWS has refused this list of types before."""
    return read_history(account, endpoint).refused_types == types


def ensure_pools(account: Account, config: EndpointConfig) -> Changes:
    """Yield the creation of an endpoint configuration that has several instance types.

    If AWS refuses it, running the change records that, so that `is_refused` is true afterwards.
    """
    for change in ensure_config(account, config):
        yield Change(change.words, partial(create_or_record, account, config, change))


def create_or_record(account: Account, config: EndpointConfig, change: Change) -> None:
    try:
        change.call()
    except ClientError as error:
        # An account or a region without pools does not know the argument.
        if error.response["Error"]["Code"] not in ("ValidationException", "SerializationException"):
            raise
        types = list(config.settings.instance_types)
        say(
            f"AWS refuses several instance types for {config.settings.name} here "
            f"({error.response['Error'].get('Message', '')}): it gets {types[0]} only."
        )
        record_refusal(account, config.settings.name, types)


def record_refusal(account: Account, endpoint: str, types: list[str]) -> None:
    def record(history: History) -> None:
        history.refused_types = types

    change_history(account, endpoint, record)
