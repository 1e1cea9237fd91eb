"""The command down: list what `up` created, ask, and remove it."""

import sys

from aws import (
    alarms,
    bot_home,
    bucket,
    configs,
    dashboard,
    endpoints,
    identity,
    logs,
    models,
    notify,
    registry,
    remote_build,
    scaling,
    trainings,
)
from aws.account import TAG, Account
from aws.changes import Change, apply_in_parallel
from aws.leftovers import find_left
from aws.messages import DeployError, say
from bot import MODELS


def down(account: Account, purge: bool = False, yes: bool = False) -> int:
    """Run the command down and return its exit code.

    It is 1 if the user did not agree, and if something is left in the end. With `purge`, the images
    and the bucket are removed too. With `yes`, nobody is asked.
    """
    steps = removal_steps(account)
    if purge:
        steps.append(purge_step(account))
    if not any(steps):
        exception = "" if purge else ", except what --purge removes"
        say(f"Nothing of {account.prefix} exists in {account.region}{exception}.")
        return report_left(account, purge)

    for step in steps:
        for change in step:
            say(f"will {change.words}")
    if not yes and not is_confirmed():
        say("Nothing was removed.")
        return 1

    for step in steps:
        apply_in_parallel([[change] for change in step])
    say("All of this is removed.")
    if not purge:
        say(
            f"The images and the bucket {account.bucket} are kept; "
            "`./deploy.py down --purge` removes them too."
        )
    return report_left(account, purge)


def report_left(account: Account, purge: bool) -> int:
    """Search AWS for our tag, say what is left, and return the exit code."""
    left = find_left(account, kept=[] if purge else kept_arns(account))
    if not left:
        say(f"No service lists anything else with the tag {TAG}={account.prefix}.")
        return 0
    say(f"AWS still lists this with the tag {TAG}={account.prefix}:")
    for arn in left:
        say(f"  {arn}")
    say(
        "Its search may be late: run ./deploy.py down again in an hour. What it names then, delete "
        "in AWS's console: it may cost money."
    )
    return 1


def kept_arns(account: Account) -> list[str]:
    """Return the ARNs of what only --purge removes."""
    arns = [f"arn:{account.partition}:s3:::{account.bucket}"]
    for image in registry.IMAGES:
        repository = account.repository_name(image)
        arns.append(
            f"arn:{account.partition}:ecr:{account.region}:{account.id}:repository/{repository}"
        )
    return arns


def removal_steps(account: Account) -> list[list[Change]]:
    """Return the removals as steps, in the order that AWS needs.

    The changes of one step may run in parallel.
    """
    names = [account.endpoint_name(model) for model in MODELS]

    work_step = [*trainings.remove_template(account), *trainings.remove_trainings(account)]
    work_step += remote_build.remove_builds(account)
    scaling_step: list[Change] = []
    endpoint_step: list[Change] = []
    config_step: list[Change] = []
    model_step: list[Change] = []
    last_step: list[Change] = []
    for name in names:
        scaling_step += scaling.remove_scaling(account, name)
        scaling_step += alarms.remove_all_alarms(account, name)
        endpoint_step += endpoints.remove_endpoint(account, name)
        config_step += configs.remove_configs(account, name)
        model_step += models.remove_models(account, name)
        last_step += logs.remove_log_group(account, name)

    scaling_step += alarms.remove_silent_alarm(account)
    last_step += dashboard.remove_dashboard(account)
    last_step += notify.remove_budget(account)
    last_step += notify.remove_topic(account)
    # The instance profile contains the bot's role, so it must go first.
    model_step += identity.remove_instance_profile(account)
    model_step += remote_build.remove_project(account)
    last_step += logs.remove_transform_log_group(account)
    last_step += identity.remove_execution_role(account)
    last_step += logs.remove_group(account, account.bot_log_group)
    last_step += identity.remove_bot_role(account)
    last_step += identity.remove_bot_execution_role(account)
    last_step += logs.remove_group(account, account.build_log_group)
    last_step += identity.remove_build_role(account)
    last_step += identity.remove_bot_user(account)
    boundary_step = [*identity.remove_boundary(account)]
    # The bot first: it would go on with requests to endpoints that are gone.
    steps = [*bot_home.removal_steps(account), work_step, scaling_step]
    return [*steps, endpoint_step, config_step, model_step, last_step, boundary_step]


def purge_step(account: Account) -> list[Change]:
    """Return the removal of what may be hard to get back: the images and the bucket."""
    changes: list[Change] = []
    for image in registry.IMAGES:
        changes += registry.remove_repository(account, image)
    changes += bucket.remove_bucket(account)
    return changes


def is_confirmed() -> bool:
    """Ask whether to go on. Raises DeployError if there is no terminal."""
    if not sys.stdin.isatty():
        raise DeployError("There is no terminal to ask at. To remove all of this, add --yes.")
    return input("Type yes to remove all of this: ").strip().lower() == "yes"
