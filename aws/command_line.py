"""The command line of ./deploy.py."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from aws.account import Account, open_account
from aws.batch import batch
from aws.bot_home import HOMES
from aws.clock import Clock
from aws.doctor import doctor
from aws.down import down
from aws.endpoint_settings import GPU_INSTANCES, EndpointSettings, endpoint_name
from aws.follow import follow, stop
from aws.history import print_history
from aws.messages import DeployError, explain_error, output, say
from aws.notify import NotifySettings
from aws.push import login_password, repositories
from aws.remote_build import remote_build
from aws.rollback import rollback
from aws.show_logs import SOURCES, show_logs
from aws.spent import cost
from aws.status import status
from aws.train import DEFAULT_MINUTES, TrainingRequest, train
from aws.trainings import DEFAULT_INSTANCE_TYPE as DEFAULT_TRAINING_INSTANCE_TYPE
from aws.up import up
from bot import MODELS

# In the order of their prices: the next one is taken where AWS has none of the first.
DEFAULT_INSTANCE_TYPES = ("ml.g4dn.xlarge", "ml.g6.xlarge", "ml.g5.xlarge")
DEFAULT_MAX_INSTANCES = 2
# A GPU works on one request at a time; a second one for cyclegan is read and decoded meanwhile.
DEFAULT_CONCURRENCY = {"nst": 1, "cyclegan": 2}
DEFAULT_AMI = "al2023-ami-sagemaker-inference-gpu-4-1"

# SageMaker takes no more.
MAX_INSTANCE_TYPES = 5

Value = TypeVar("Value")


def main(
    arguments: list[str] | None = None,
    session: Any = None,  # noqa: ANN401 - boto3 has no types
    clock: Clock | None = None,
) -> int:
    """Run one command and return its exit code. Tests give a boto3 session and a clock."""
    options = parse_arguments(arguments)
    try:
        settings = []
        if options.command == "up":
            settings = endpoint_settings(options)
        connect = partial(
            open_account,
            options.prefix,
            options.region,
            getattr(options, "tags", {}),
            session,
            clock,
        )
        if options.command == "doctor":
            # Of an `up` without options
            settings = endpoint_settings(parse_arguments(["up", "--prefix", options.prefix]))
            return doctor(connect, settings, DEFAULT_TRAINING_INSTANCE_TYPE)
        return run_command(connect(), options, settings)
    except (DeployError, BotoCoreError, ClientError) as error:
        say(f"deploy.py: {explain_error(error)}")
        return 1


def run_command(
    account: Account, options: argparse.Namespace, settings: list[EndpointSettings]
) -> int:
    if options.command == "up":
        return up(
            account,
            settings,
            options.image_tag,
            options.bot,
            options.plan,
            options.training_instance_type,
            options.request_quota,
            NotifySettings(options.notify, options.budget),
        )
    if options.command == "rollback":
        return rollback(account, options.model)
    if options.command == "history":
        return print_history(account)
    if options.command == "down":
        return down(account, options.purge, options.yes)
    if options.command == "batch":
        return batch(account, options.input, options.style, options.output, options.instance_type)
    if options.command == "train":
        return run_training(account, options)
    if options.command == "logs":
        return show_logs(account, options.source, options.since, options.follow)
    if options.command == "cost":
        return cost(account, options.days)
    if options.command == "policy":
        output(account.policy_document(options.name))
        return 0
    if options.command == "repositories":
        return repositories(account, options.tag)
    if options.command == "remote-build":
        return remote_build(account, options.tag, options.revision, options.base_image)
    if options.command == "login-password":
        return login_password(account)
    return status(account)


def run_training(account: Account, options: argparse.Namespace) -> int:
    if options.follow:
        return follow(account, options.follow)
    if options.stop:
        return stop(account, options.stop)
    if not options.name:
        raise DeployError(
            "--name is missing, the painter's: ./deploy.py train painting.jpg --name klimt"
        )
    minutes = options.minutes
    if minutes is None:
        if options.paintings and not options.pictures:
            raise DeployError(
                "CycleGAN learns from paintings for a day or so on a GPU. Say how long it may "
                "take, such as --minutes 1440."
            )
        minutes = DEFAULT_MINUTES
    request = TrainingRequest(
        name=options.name,
        pictures=options.pictures,
        paintings=options.paintings,
        photos=options.photos,
        start=options.start,
        minutes=minutes,
        instance_type=options.instance_type,
        spot=options.spot,
        replace=options.replace,
        wait=options.wait,
    )
    return train(account, request)


# ---------------------------------------------------------------- arguments


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="stylebot on AWS", epilog="docs/aws.md has more about each command."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--region", help="the AWS region; default: from the environment or ~/.aws/config"
    )
    common.add_argument(
        "--prefix",
        type=parse_prefix,
        default="stylebot",
        help="the prefix of all names (default: %(default)s)",
    )

    def add_command(name: str, description: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=description, description=description, parents=[common]
        )

    add_up_arguments(
        add_command("up", "Create or update everything, and print the bot's environment.")
    )
    add_command(
        "doctor",
        "Say which steps from a fresh account to a painting in Telegram are missing.",
    )
    add_command("status", "Print endpoints, their last errors, running trainings, and painters.")
    back = add_command("rollback", "Return to the last release before the one that serves.")
    back.add_argument("model", nargs="?", choices=MODELS, help="default: both endpoints")
    add_command("history", "List the releases of both endpoints: which is proven, which serves.")
    add_down_arguments(
        add_command("down", "Remove what up created, after asking; keep images and bucket.")
    )
    add_batch_arguments(
        add_command("batch", "Stylize a list of pictures with a batch transform job.")
    )
    add_train_arguments(
        add_command("train", "Train a painter from pictures, and offer it in the running bot.")
    )

    logs = add_command("logs", "Print what the bot and the models have written.")
    logs.add_argument("source", nargs="?", choices=SOURCES, help="default: all of them")
    logs.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    logs.add_argument(
        "--since",
        type=parse_duration,
        default=timedelta(hours=1),
        metavar="TIME",
        help="begin so long ago: 30m, 6h or 2d (default: 1h)",
    )
    spent = add_command("cost", "Estimate what the last days have cost.")
    spent.add_argument(
        "--days", type=parse_days, default=7, help="today among them (default: %(default)s)"
    )

    policy = add_command("policy", "Print an IAM policy with all names filled in.")
    policy.add_argument(
        "name",
        choices=(
            "bot",
            "bot-execution",
            "bot-image",
            "boundary",
            "build",
            "deployer",
            "deployer-bot",
            "deployer-build",
            "deployer-iam",
            "deployer-watch",
            "execution",
        ),
    )
    push = add_command(
        "repositories", "For build.sh --push: create the repositories and print what they have."
    )
    push.add_argument("tag")
    remote = add_command(
        "remote-build", "For build.sh --remote: build the images in CodeBuild and push them."
    )
    remote.add_argument("--revision", default="", help="git's commit, for the images' labels")
    remote.add_argument("--base-image", required=True)
    remote.add_argument("tag", type=parse_image_tag)
    add_command("login-password", "For build.sh --push: print the password for docker login.")
    return parser.parse_args(arguments)


def add_up_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", action="store_true", help="print every change and make none")
    for_each = "; one value, or nst=...,cyclegan=..."
    parser.add_argument(
        "--instance-type",
        type=parse_instance_types,
        default={},
        help="one, or up to five in the order in which they are tried; default: "
        f"{','.join(DEFAULT_INSTANCE_TYPES)}; for both, or nst=...,cyclegan=...",
    )
    parser.add_argument(
        "--min-instances",
        type=for_each_model(int),
        default={},
        help=f"default: 0, no instance while no request waits{for_each}",
    )
    parser.add_argument(
        "--max-instances",
        type=for_each_model(int),
        default={},
        help=f"default: {DEFAULT_MAX_INSTANCES}{for_each}",
    )
    parser.add_argument(
        "--concurrency",
        type=for_each_model(int),
        default={},
        help=f"requests at the same time for one instance; default: nst=1,cyclegan=2{for_each}",
    )
    parser.add_argument(
        "--ami",
        default=DEFAULT_AMI,
        help="InferenceAmiVersion of GPU instances, which decides their NVIDIA driver "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--training-instance-type",
        default=DEFAULT_TRAINING_INSTANCE_TYPE,
        help="what new painters are trained on (default: %(default)s)",
    )
    parser.add_argument(
        "--request-quota",
        action="store_true",
        help="only request the quotas that are needed, where those of the account are smaller",
    )
    parser.add_argument(
        "--notify",
        type=parse_address,
        metavar="ADDRESS",
        help="an e-mail address to be told of alarms; kept until its owner unsubscribes",
    )
    parser.add_argument(
        "--budget",
        type=parse_dollars,
        metavar="DOLLARS",
        help="tell these addresses when a month of the whole account costs more",
    )
    parser.add_argument("--image-tag", help="the tag of the images; default: the newest image")
    parser.add_argument(
        "--tags",
        type=parse_tags,
        default={},
        help="more tags for everything that is created: team=art,stage=test",
    )
    parser.add_argument(
        "--bot",
        choices=HOMES,
        help="where the bot runs: on Fargate, for which up asks for its token; elsewhere, with a "
        "role or a user; default: as it is, and none at first",
    )


def add_down_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--purge", action="store_true", help="also remove the images and the bucket"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")


def add_batch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        required=True,
        help="s3://bucket/list.csv or list.jsonl; docs/aws.md describes the columns",
    )
    parser.add_argument(
        "--style",
        required=True,
        help="for rows without a style: a style's name, or a picture's URL for nst",
    )
    parser.add_argument(
        "--output", help="s3://bucket/folder for the results of rows that name no place"
    )
    parser.add_argument(
        "--instance-type",
        default="ml.c5.4xlarge",
        help="default: %(default)s; docs/aws.md explains why it has no GPU",
    )


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "pictures",
        metavar="PICTURE",
        nargs="*",
        type=Path,
        help="a picture of the style; several become one painter",
    )
    parser.add_argument("--name", help="the painter's name, such as klimt")
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="DIR",
        help="photographs to learn from; default: those of the image",
    )
    parser.add_argument(
        "--paintings",
        type=Path,
        metavar="DIR",
        help="instead of pictures: a collection for CycleGAN, which takes a GPU a day",
    )
    parser.add_argument(
        "--from", dest="start", type=Path, metavar="CHECKPOINT", help="a painter to begin with"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help=f"how long to train (default: {DEFAULT_MINUTES:g}, none with --paintings)",
    )
    parser.add_argument("--instance-type", help="default: what up --training-instance-type has set")
    parser.add_argument(
        "--no-spot",
        dest="spot",
        action="store_false",
        help="pay the price on demand, and do not wait for Spot instances",
    )
    parser.add_argument("--replace", action="store_true", help="replace a painter of the same name")
    parser.add_argument(
        "--no-wait", dest="wait", action="store_false", help="start the training and end"
    )
    parser.add_argument("--follow", metavar="JOB", help="watch a training that is running")
    parser.add_argument("--stop", metavar="JOB", help="stop a training that is running")


def for_each_model(convert: Callable[[str], Value]) -> Callable[[str], dict[str, Value]]:
    """Return a parser of "2", a value for both models, or "nst=2,cyclegan=1", a value for each."""

    def parse(text: str) -> dict[str, Value]:
        if "=" not in text:
            return {model: convert(text) for model in MODELS}

        values = {}
        for part in text.split(","):
            model, _, value = part.partition("=")
            if model not in MODELS:
                raise argparse.ArgumentTypeError(f"{text!r}: the models are {' and '.join(MODELS)}")
            values[model] = convert(value)
        return values

    return parse


def parse_instance_types(text: str) -> dict[str, tuple[str, ...]]:
    """Return the types of each model in "ml.a,ml.b", for both, or "nst=ml.a,ml.b,cyclegan=ml.c"."""
    types: dict[str, tuple[str, ...]] = {}
    models: tuple[str, ...] = MODELS
    for part in text.split(","):
        model, equals, name = part.rpartition("=")
        if equals:
            if model not in MODELS:
                raise argparse.ArgumentTypeError(f"{text!r}: the models are {' and '.join(MODELS)}")
            models = (model,)
        if not name.startswith("ml."):
            raise argparse.ArgumentTypeError(f"{name!r} is no instance type such as ml.g4dn.xlarge")
        for each in models:
            types[each] = (*types.get(each, ()), name)
    for names in types.values():
        check_instance_types(names)
    return types


def check_instance_types(names: tuple[str, ...]) -> None:
    """Raise ArgumentTypeError if one endpoint cannot have these instance types."""
    if len(set(names)) < len(names) or len(names) > MAX_INSTANCE_TYPES:
        raise argparse.ArgumentTypeError(
            f"name up to {MAX_INSTANCE_TYPES} instance types, each once: {', '.join(names)}"
        )
    if len({name.startswith(GPU_INSTANCES) for name in names}) > 1:
        raise argparse.ArgumentTypeError(
            f"all with a GPU or all without one, as they get the same AMI: {', '.join(names)}"
        )


def parse_tags(text: str) -> dict[str, str]:
    tags = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"{text!r} is not like team=art,stage=test")
        tags[key] = value
    return tags


def parse_address(text: str) -> str:
    if not re.fullmatch(r"[^@\s,]+@[^@\s,]+\.[^@\s,]+", text) or not text.isascii():
        raise argparse.ArgumentTypeError(f"{text!r} is not an e-mail address")
    return text


def parse_dollars(text: str) -> Decimal:
    if not re.fullmatch(r"\d{1,7}(\.\d\d?)?", text) or not Decimal(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a sum of dollars, such as 50")
    return Decimal(text)


def parse_duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,4})([mhd])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 30m, 6h or 2d")
    number = int(found[1])
    return {
        "m": timedelta(minutes=number),
        "h": timedelta(hours=number),
        "d": timedelta(days=number),
    }[found[2]]


def parse_days(text: str) -> int:
    # CloudWatch answers with 1440 hours at most.
    if not re.fullmatch(r"\d{1,2}", text) or not 1 <= int(text) <= 60:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 1 to 60")
    return int(text)


def parse_image_tag(text: str) -> str:
    # As Docker takes it
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", text):
        raise argparse.ArgumentTypeError(
            "use up to 128 letters, digits, underscores, periods and hyphens"
        )
    return text


def parse_prefix(text: str) -> str:
    # ECR takes no two hyphens in a row.
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", text) or not 2 <= len(text) <= 20:
        raise argparse.ArgumentTypeError(
            "use 2 to 20 lower case letters, digits and single hyphens, beginning with a letter"
        )
    return text


def endpoint_settings(options: argparse.Namespace) -> list[EndpointSettings]:
    """Return the settings of both endpoints. Raises DeployError for limits that make no sense."""
    settings = []
    for model in MODELS:
        smallest = options.min_instances.get(model, 0)
        largest = options.max_instances.get(model, max(DEFAULT_MAX_INSTANCES, smallest))
        if not 0 <= smallest <= largest or largest < 1:
            raise DeployError(
                f"{model}: from {smallest} to {largest} instances is no range. "
                "--min-instances must be at least 0, and --max-instances at least 1."
            )
        first, *others = options.instance_type.get(model, DEFAULT_INSTANCE_TYPES)
        settings.append(
            EndpointSettings(
                model=model,
                name=endpoint_name(options.prefix, model),
                instance_type=first,
                min_instances=smallest,
                max_instances=largest,
                concurrency=options.concurrency.get(model, DEFAULT_CONCURRENCY[model]),
                ami=options.ami,
                fallback_types=tuple(others),
            )
        )
    return settings
