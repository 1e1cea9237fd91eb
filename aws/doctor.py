"""The command doctor: from a fresh account to a painting in Telegram, and which step is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from botocore.exceptions import BotoCoreError, ClientError

from aws import bot_network, bot_service, bot_token
from aws.account import Account
from aws.endpoint_settings import EndpointSettings
from aws.endpoints import find_endpoint, is_in_service
from aws.identity import find_policy
from aws.messages import DeployError, explain_error, output
from aws.quotas import describe_needs, find_quotas
from aws.registry import IMAGES, find_image


@dataclass(frozen=True)
class Step:
    """One step on the way, whether it is done, and the line that does it."""

    name: str
    # What there is or, if it is not done, what is missing
    finding: str
    # Empty if the step is done
    command: str = ""


def doctor(
    connect: Callable[[], Account], settings: list[EndpointSettings], training_type: str
) -> int:
    """Print each step and, for each that is missing, the line to paste.

    Returns the exit code: 1 if a step is missing. Nothing is made.
    """
    try:
        account = connect()
    except (DeployError, BotoCoreError, ClientError) as error:
        missing = Step("credentials and region", in_one_line(error), "see docs/aws.md, step 1")
        print_steps([missing])
        return 1

    identity = f"account {account.id}, {account.region}"
    checks = {
        "permissions": partial(check_permissions, account),
        "quotas": partial(check_quotas, account, settings, training_type),
        "images in ECR": partial(check_images, account),
        "network of the bot": partial(check_network, account),
        "endpoints": partial(check_endpoints, account, settings),
        "token of the bot": partial(check_token, account),
        "bot": partial(check_bot, account),
    }
    steps = [Step("credentials and region", identity)]
    steps += [run_check(name, check) for name, check in checks.items()]
    print_steps(steps)
    return int(any(step.command for step in steps))


def print_steps(steps: list[Step]) -> None:
    for step in steps:
        if step.command:
            output(f"! {step.name}: {step.finding}\n    {step.command}")
        else:
            output(f"ok {step.name}: {step.finding}")
    # One line may be what several steps need.
    commands = list(dict.fromkeys(step.command for step in steps if step.command))
    if not commands:
        output("Nothing is missing: send the bot a photo.")
    elif len(commands) == 1:
        output(f"One line is left: {commands[0]}")
    else:
        output(f"{len(commands)} lines are left. The next: {commands[0]}")


def in_one_line(error: BaseException) -> str:
    return " ".join(explain_error(error).split())


def run_check(name: str, check: Callable[[], tuple[str, str]]) -> Step:
    """Return the step with what the check has found: a text, and the command or ""."""
    try:
        return Step(name, *check())
    except (ClientError, BotoCoreError) as error:
        return Step(name, f"not known: {in_one_line(error)}", "./deploy.py policy deployer")
    except DeployError as error:
        finding, _, command = str(error).partition("\n")
        return Step(name, finding, command.strip().partition("\n")[0] or "./deploy.py up")


def with_names(account: Account, command: str) -> str:
    """Return a command with the options that name this deployment, if they are needed."""
    options = f" --region {account.region}"
    if account.prefix != "stylebot":
        options += f" --prefix {account.prefix}"
    return command + options


def check_permissions(account: Account) -> tuple[str, str]:
    if find_policy(account, account.boundary_arn) is not None:
        return f"the boundary {account.boundary} exists", ""
    # No step of its own: whether it has to be one, `up` finds out when it creates the boundary.
    return (
        f"`up` creates the boundary {account.boundary}; if you may not create policies, it says "
        "what an administrator has to do",
        "",
    )


def check_quotas(
    account: Account, settings: list[EndpointSettings], training_type: str
) -> tuple[str, str]:
    needs = describe_needs(account, settings, training_type)
    quotas = find_quotas(account, [need.quota for need in needs])
    short = []
    for need in needs:
        value = quotas[need.quota].value if need.quota in quotas else 0
        if value < need.in_all and not need.is_optional:
            short.append(f'"{need.quota}" is {value} instead of {need.in_all}')
    if short:
        return "; ".join(short), with_names(account, "./deploy.py up --request-quota")
    return "large enough", ""


def check_images(account: Account) -> tuple[str, str]:
    missing = [name for name in IMAGES if find_image(account, name, None) is None]
    if missing:
        names = ", ".join(account.repository_name(name) for name in missing)
        return f"{names} missing", with_names(account, "./build.sh --push")
    return "all three", ""


def check_network(account: Account) -> tuple[str, str]:
    network = bot_network.find_network(account)
    return f"the default VPC {network.vpc}", ""


def check_endpoints(account: Account, settings: list[EndpointSettings]) -> tuple[str, str]:
    states = []
    is_complete = True
    for endpoint in settings:
        found = find_endpoint(account, endpoint.name)
        if found is None:
            states.append(f"{endpoint.name} missing")
        else:
            states.append(f"{endpoint.name} {found['EndpointStatus']}")
        is_complete = is_complete and found is not None and is_in_service(found)
    command = "" if is_complete else with_names(account, "./deploy.py up --bot fargate")
    return ", ".join(states), command


def check_token(account: Account) -> tuple[str, str]:
    if bot_token.find_parameter(account) is not None:
        return f"stored in {account.token_parameter}", ""
    return (
        "not stored; /newbot to @BotFather gives you one, and this asks for it",
        with_names(account, "./deploy.py up --bot fargate"),
    )


def check_bot(account: Account) -> tuple[str, str]:
    service = bot_service.find_service(account)
    if service is None:
        return "no bot on Fargate", with_names(account, "./deploy.py up --bot fargate")
    if service["runningCount"] != 1:
        return "does not run", with_names(account, "./deploy.py status")
    return "runs on Fargate", ""
