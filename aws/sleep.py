"""An endpoint whose instance never stops costs some $500 a month: it is found, named, and ended.

Between the creation of an endpoint and its scaling, `up` may be killed, or AWS may refuse the
scaling. Then the next `up` sets the scaling first of all, and deletes the endpoint if it cannot.
"""

from __future__ import annotations

from functools import partial

from botocore.exceptions import BotoCoreError, ClientError

from aws.account import Account
from aws.calls import Answer
from aws.changes import Change, Changes
from aws.configs import find_instance_types
from aws.cost import describe_daily_cost
from aws.endpoint_settings import EndpointSettings
from aws.endpoints import delete_endpoint, find_endpoint, is_busy, is_in_service, waiting
from aws.messages import explain_error, say
from aws.models import find_sagemaker_tags
from aws.scaling import can_sleep, ensure_scaling
from bot import MODELS

# Endpoints of these statuses have no instances, or soon none.
WITHOUT_INSTANCES = ("Failed", "Deleting")


def ensure_sleep(account: Account, settings: EndpointSettings) -> Changes:
    """Yield the scaling of an endpoint that an earlier `up` has left without it."""
    name = settings.name
    endpoint = find_endpoint(account, name)
    if endpoint is None or settings.min_instances > 0 or can_sleep(account, name):
        return
    if not account.is_ours(find_sagemaker_tags(account, endpoint["EndpointArn"])):
        return
    if is_busy(endpoint):
        yield waiting(account, endpoint)
        endpoint = find_endpoint(account, name)
    if endpoint is None or not is_in_service(endpoint):
        return
    yield from ensure_scaling_or_delete(account, settings)


def ensure_scaling_or_delete(account: Account, settings: EndpointSettings) -> Changes:
    """Yield what is missing to have the endpoint scale.

    If AWS refuses one of the changes, and the endpoint would never sleep without it, running the
    change deletes the endpoint and raises AWS's error.
    """
    for change in ensure_scaling(account, settings):
        if settings.min_instances > 0:
            yield change
        else:
            yield Change(change.words, partial(run_or_delete, account, settings.name, change))


def run_or_delete(account: Account, name: str, change: Change) -> None:
    try:
        change.call()
    except ClientError:
        if not can_sleep(account, name):
            say(f"{name} would never sleep without this: it is deleted.")
            delete_endpoint(account, name)
        raise


# ---------------------------------------------------------------- warnings


def warn_of_sleepless(account: Account) -> None:
    """Print each endpoint that never sleeps although it should."""
    for model in MODELS:
        name = account.endpoint_name(model)
        try:
            endpoint = find_endpoint(account, name)
            if endpoint is not None and (warning := describe_sleepless(account, endpoint)):
                say(warning)
        except (ClientError, BotoCoreError) as error:
            say(f"It is not known whether {name} sleeps: {explain_error(error)}")


def describe_sleepless(account: Account, endpoint: Answer) -> str:
    """Return what an endpoint that never sleeps costs, or "" for one that can sleep."""
    name = endpoint["EndpointName"]
    if endpoint["EndpointStatus"] in WITHOUT_INSTANCES or can_sleep(account, name):
        return ""
    variants = endpoint.get("ProductionVariants") or [{}]
    wanted_types = find_instance_types(account, endpoint["EndpointConfigName"])
    instance_type = running_type(variants[0]) or next(iter(wanted_types), "?")
    count = max(1, variants[0].get("CurrentInstanceCount", 1))
    cost = describe_daily_cost(instance_type, count)
    return (
        f"{name.upper()} NEVER SLEEPS: NOTHING STOPS ITS INSTANCE, WHICH COSTS {cost.upper()}. "
        "Run ./deploy.py up again: it sets the scaling, or deletes the endpoint."
    )


def running_type(variant: Answer) -> str:
    """Return the instance type that runs, of a variant that has several; "" if none does."""
    for pool in variant.get("InstancePools", []):
        if pool.get("CurrentInstanceCount", 0) > 0:
            return str(pool["InstanceType"])
    return ""
