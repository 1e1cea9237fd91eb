"""The command rollback: return an endpoint to the last release before the one that serves."""

from __future__ import annotations

from functools import partial

from aws import painters
from aws.account import Account
from aws.changes import apply, run_in_parallel
from aws.configs import find_config, read_settings
from aws.endpoints import find_endpoint, is_in_service
from aws.history import read_history
from aws.messages import DeployError, say
from aws.release import end_pending_release, return_by_hand
from bot import MODELS


def rollback(account: Account, model: str | None = None) -> int:
    """Run the command and return its exit code. Without a model, both endpoints go back.

    Raises DeployError if there is nothing to go back to, or it does not paint.
    """
    models = [model] if model else list(MODELS)
    went = run_in_parallel([partial(roll_back, account, each) for each in models])
    if not any(went):
        names = " and ".join(account.endpoint_name(each) for each in models)
        raise DeployError(
            f"{names}: no earlier release is left that has worked. `./deploy.py history` lists "
            "them; `./deploy.py up --image-tag TAG` releases any image in ECR."
        )
    if "cyclegan" in models and (served := painters.find_served_model(account)):
        apply(painters.ensure_catalog(account, served))
    say(
        "The next `up` releases the newest image again: push a mended one before that, or name "
        "one: ./deploy.py up --image-tag TAG."
    )
    return 0


def roll_back(account: Account, model: str) -> bool:
    """Return the endpoint to its last good release. Return False if there is none."""
    name = account.endpoint_name(model)
    endpoint = find_endpoint(account, name)
    if endpoint is None:
        raise DeployError(f"There is no endpoint {name} in {account.region}.")
    settings = read_settings(account, model, endpoint)
    if end_pending_release(account, settings):
        return True
    if not is_in_service(endpoint):
        raise DeployError(f"{name} is {endpoint['EndpointStatus']}: wait, or run up.")

    good = read_history(account, name).last_good(besides=endpoint["EndpointConfigName"])
    if good is None or find_config(account, good.config) is None:
        say(f"{name}: there is no earlier release to go back to.")
        return False
    say(f"{name}: back from {endpoint['EndpointConfigName']} to {good.config}")
    return_by_hand(account, settings, good)
    return True
