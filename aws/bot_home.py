"""The bot's home: what `up --bot` chooses, and all that a bot on Fargate needs."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from aws import bot_network, bot_service, bot_token, identity, logs
from aws.account import Account
from aws.changes import Change, Changes, apply, apply_in_parallel
from aws.endpoint_settings import EndpointSettings
from aws.messages import DeployError
from aws.registry import Image
from bot import SETTINGS

FARGATE = "fargate"
# "ec2" and "role" make the same role, with its instance profile.
HOMES = (FARGATE, "ec2", "role", "user", "none")


@dataclass(frozen=True)
class Bot:
    """A bot that is to run on Fargate."""

    image: Image
    token: bot_token.Token
    network: bot_network.Network
    environment: dict[str, str]


def choose_home(account: Account, option: str | None) -> str:
    """Return one of HOMES: what the option says or, without it, what there is."""
    if option is not None:
        return option
    if bot_service.find_service(account) is not None:
        return FARGATE
    return "none"


def describe_environment(account: Account, settings: list[EndpointSettings]) -> dict[str, str]:
    """Return the environment variables of bot.py that every bot of this deployment needs.

    TELEGRAM_TOKEN is not among them.
    """
    environment = {"AWS_DEFAULT_REGION": account.region, "BUCKET": account.bucket}
    for endpoint in settings:
        environment[f"{endpoint.model.upper()}_ENDPOINT"] = endpoint.name
    environment["DEPLOYMENT"] = account.prefix
    return environment


def describe_bot(
    account: Account, settings: list[EndpointSettings], image: Image, plan: bool
) -> Bot:
    """Return the bot as it is to run on Fargate. Nothing is made yet, but somebody may be asked.

    Raises DeployError if there is no network for it, no token, or a setting that it cannot read.
    """
    environment = describe_environment(account, settings)
    return Bot(
        image=image,
        network=bot_network.find_network(account),
        environment={**choose_settings(account, environment), **environment},
        token=bot_token.choose_token(account, plan),
    )


def choose_settings(account: Account, fixed: dict[str, str]) -> dict[str, str]:
    """Return the bot's other settings, such as ADMINS, that have values.

    They come from the environment of this program or, where it has none, from the running bot. An
    empty value takes a setting away.
    """
    running = bot_service.running_environment(account)
    chosen = {}
    for name, setting in SETTINGS.items():
        if name in fixed or name == bot_token.VARIABLE:
            continue
        value = os.environ.get(name, running.get(name, ""))
        if not value:
            continue
        if not re.fullmatch(setting.pattern, value, re.ASCII | re.DOTALL):
            raise DeployError(f"{name} is not {setting.advice}. Set it, or leave it empty.")
        chosen[name] = value
    return chosen


def ensure_surroundings(account: Account, bot: Bot) -> list[Changes]:
    """Return what is missing around the bot, as sequences that may run in parallel."""
    return [
        bot_token.ensure_token(account, bot.token),
        identity.ensure_task_roles(account),
        bot_service.ensure_cluster(account),
        bot_network.ensure_security_group(account, bot.network),
        logs.ensure_group(account, account.bot_log_group),
    ]


def run_bot(account: Account, bot: Bot, plan: bool) -> int:
    """Check the bot in a task, then let the service run it. Return the number of changes.

    The check comes first, so that a bot that would not work does not replace one that does. Raises
    DeployError if the check fails, or the bot does not run in the end.
    """
    task = bot_service.describe_wanted_task(
        account, bot.image.uri, bot.token.fingerprint, bot.environment
    )
    count = apply(bot_service.ensure_task_definition(account, task), plan)
    if not plan:
        bot_service.run_check(account, bot.network)
    count += apply(bot_service.ensure_service(account, task, bot.network), plan)
    if not plan:
        bot_service.wait_until_running(account, task)
    return count


def removal_steps(account: Account) -> list[list[Change]]:
    """Return the removal of the bot on Fargate, as steps whose changes may run in parallel.

    The roles stay: another home may use them.
    """
    return [
        [*bot_service.remove_service(account)],
        [
            *bot_service.remove_cluster(account),
            *bot_service.remove_task_definitions(account),
            *bot_network.remove_security_group(account),
            *bot_token.remove_token(account),
        ],
    ]


def leave_fargate(account: Account, plan: bool) -> int:
    """Remove the bot on Fargate, if there is one. Return the number of changes."""
    count = 0
    for step in removal_steps(account):
        count += apply_in_parallel([[change] for change in step], plan)
    return count
