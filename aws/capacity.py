"""Instance pools: several instance types, so that one without capacity is no hour of silence.

SageMaker tries the types in the order of the list, which is that of their prices. It asks for the
quota of every type of the list, whichever it takes; so a type is used where the account may run
enough instances of it. Where AWS refuses pools, there is one type.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from itertools import chain

from botocore.exceptions import ClientError

from aws.account import Account
from aws.calls import describe_error
from aws.changes import Change, Changes
from aws.configs import EndpointConfig, ensure_config, find_instance_types
from aws.endpoint_settings import EndpointSettings
from aws.endpoints import find_endpoint
from aws.history import History, change_history, read_history
from aws.messages import say
from aws.quotas import Quota, endpoint_quota_name
from aws.release import ensure_release

# For "OPERATION CODE: MESSAGE". AWS may know no pools in an account or a region, and say so when
# the configuration is created, or only when an endpoint gets it.
POOLS_REFUSED = re.compile(
    r"SerializationException|ValidationException: .*(instance ?pool|heterogeneous)"
    r"|^CreateEndpointConfig ValidationException: .*instance ?type",
    re.IGNORECASE,
)


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
        wanted = replace(endpoint, fallback_types=tuple(types))
        usable = without_refused_types(account, wanted)
        if usable != wanted:
            say(
                f"{endpoint.name} has one instance type only: AWS has refused several. To try "
                "others: --instance-type."
            )
        chosen.append(usable)
    return chosen


def has_room(settings: list[EndpointSettings], quotas: dict[str, Quota], kind: str) -> bool:
    """Return whether all endpoints that name the type may be updated on it at once.

    An update runs new instances beside the old ones.
    """
    quota = quotas.get(endpoint_quota_name(kind))
    users = [endpoint for endpoint in settings if kind in endpoint.instance_types]
    needed = sum(2 * max(1, user.min_instances) for user in users)
    return quota is not None and quota.value >= needed


def keep_types(account: Account, settings: EndpointSettings) -> list[str]:
    """Return those of the wanted further types that the endpoint has now."""
    endpoint = find_endpoint(account, settings.name)
    if endpoint is None:
        return []
    types = find_instance_types(account, endpoint["EndpointConfigName"])
    return [kind for kind in settings.fallback_types if kind in types]


def without_refused_types(account: Account, settings: EndpointSettings) -> EndpointSettings:
    """Return the settings with the first instance type only, if AWS has refused their list."""
    if not settings.fallback_types:
        return settings
    if not is_refused(account, settings.name, list(settings.instance_types)):
        return settings
    return replace(settings, fallback_types=())


def is_refused(account: Account, endpoint: str, types: list[str]) -> bool:
    """Return whether AWS has refused this list of types before."""
    return read_history(account, endpoint).refused_types == types


def ensure_pooled_release(account: Account, config: EndpointConfig) -> Changes:
    """Yield what is missing to have the endpoint serve a configuration of several types, and scale.

    If AWS refuses the types, running the change records that: `is_refused` is true then, and no
    change follows. Raises DeployError as `ensure_release` does.
    """
    settings = config.settings
    changes = chain(ensure_config(account, config), ensure_release(account, settings, config.name))
    for change in changes:
        yield Change(change.words, partial(run_or_record, account, settings, change))
        if is_refused(account, settings.name, list(settings.instance_types)):
            return


def run_or_record(account: Account, settings: EndpointSettings, change: Change) -> None:
    """Make the change. If AWS refuses the types, record that instead of raising the error."""
    try:
        change.call()
    except ClientError as error:
        if not refuses_types(error, settings):
            raise
        say(
            f"AWS refuses several instance types for {settings.name} here "
            f"({error.response['Error'].get('Message', '')}): it gets "
            f"{settings.instance_type} only."
        )
        record_refusal(account, settings.name, list(settings.instance_types))


def refuses_types(error: ClientError, settings: EndpointSettings) -> bool:
    """Return whether the same call may succeed with the first instance type alone."""
    text = describe_error(error)
    if error.response["Error"]["Code"] == "ResourceLimitExceeded":
        # Other endpoints of the account may use up the quota of a further type.
        return any(kind in text for kind in settings.fallback_types)
    return bool(POOLS_REFUSED.search(text))


def record_refusal(account: Account, endpoint: str, types: list[str]) -> None:
    def record(history: History) -> None:
        history.refused_types = types

    change_history(account, endpoint, record)
