"""The command up: create or update everything, print the bot's environment, test the endpoints."""

import time
from collections.abc import Callable
from functools import partial

from aws import alarms, bot_home, configs, identity, logs, models, painters, trainings
from aws.account import Account
from aws.bucket import ensure_bucket, with_kept_tags
from aws.capacity import choose_types, ensure_pooled_release, without_refused_types
from aws.changes import Changes, apply, apply_in_parallel, run_in_parallel
from aws.cost import TYPICAL_IMAGE_GIGABYTES, estimate_bot, estimate_cost
from aws.dashboard import ensure_dashboard
from aws.endpoint_settings import EndpointSettings
from aws.endpoints import find_endpoint
from aws.history import describe_release, is_proven_since, kept_releases, read_history
from aws.messages import DeployError, output, say
from aws.notify import KEEP, NotifySettings, check_settings, ensure_budget, ensure_topic
from aws.quotas import Need, check_quotas, describe_needs, request_quotas
from aws.registry import Image, find_image, remove_old_images, require_docker_manifest
from aws.release import ensure_release
from aws.sleep import ensure_sleep, warn_of_sleepless
from aws.smoke import run_smoke_test
from bot import MODELS


def up(
    account: Account,
    settings: list[EndpointSettings],
    image_tag: str | None = None,
    bot_option: str | None = None,
    plan: bool = False,
    training_instance_type: str = trainings.DEFAULT_INSTANCE_TYPE,
    request_quota: bool = False,
    notify: NotifySettings = KEEP,
) -> int:
    """Run the command up and return its exit code. However it ends, it names what never sleeps.

    `bot_option` is one of bot_home.HOMES, or None for what there is. With `plan` every change is
    printed and none is made. `training_instance_type` is for the painters that the bot trains. With
    `request_quota` AWS is asked for the quotas that are needed, and nothing else is done. `notify`
    says who is told of alarms and costs, beside those who are told already.
    Raises DeployError if an image is missing, or an endpoint does not work.
    """
    if request_quota:
        return request(account, describe_needs(account, settings, training_instance_type), plan)
    try:
        return run(account, settings, image_tag, bot_option, plan, training_instance_type, notify)
    finally:
        warn_of_sleepless(account)


def request(account: Account, needs: list[Need], plan: bool) -> int:
    """Request the quotas that are too small, and return the exit code."""
    if not apply(request_quotas(account, needs), plan):
        say("The quotas are large enough.")
    elif not plan:
        say("AWS answers by e-mail, within minutes or some days. Then run up without this option.")
    return 0


def run(
    account: Account,
    settings: list[EndpointSettings],
    image_tag: str | None,
    bot_option: str | None,
    plan: bool,
    training_instance_type: str,
    notify: NotifySettings,
) -> int:
    account = with_kept_tags(account)
    check_settings(account, notify)
    start = time.time()
    count = 0
    if not plan:
        # First of all, whatever fails later. A plan shows it with the endpoint's other changes.
        count += apply_in_parallel([ensure_sleep(account, endpoint) for endpoint in settings])

    # Before anything is created: without an image there is nothing to deploy.
    images = {}
    for endpoint in settings:
        images[endpoint.name] = require_image(account, endpoint.model, image_tag, plan)

    home = bot_home.choose_home(account, bot_option)
    bot = None
    if home == bot_home.FARGATE:
        image = require_image(account, "bot", image_tag, plan)
        bot = bot_home.describe_bot(account, settings, image, plan)

    needs = describe_needs(account, settings, training_instance_type)
    quotas = check_quotas(account, needs, plan)
    settings = choose_types(account, settings, quotas)
    if bot is None and bot_option is not None:
        count += bot_home.leave_fargate(account, plan)
    count += make_changes(account, settings, images, home, plan, notify)
    settings = [without_refused_types(account, endpoint) for endpoint in settings]
    count += apply(ensure_dashboard(account, settings), plan)
    painters_image = images[account.endpoint_name("cyclegan")]
    count += apply(trainings.ensure_template(account, painters_image, training_instance_type), plan)
    served_model = models.describe_wanted_model(account, "cyclegan", painters_image).name

    cost = estimate_cost(settings, list(images.values()))
    if bot is not None:
        cost = f"{cost}\n{estimate_bot()}"
        sequences = bot_home.ensure_surroundings(account, bot)
        count += apply_in_parallel(sequences, plan)
    if plan:
        count += apply(painters.ensure_catalog(account, served_model), plan)
        if bot is not None:
            count += bot_home.run_bot(account, bot, plan)
        output(f"{count} changes; nothing was changed." if count else "Nothing to change.")
        say(cost)
        return 0

    say("Everything is in place." if count else "Everything was in place already.")
    if bot is None:
        print_environment(account, settings, home)
    say(cost)
    tests: list[Callable[[], None]] = []
    for endpoint in settings:
        if not is_proven_since(account, endpoint.name, start):
            tests.append(partial(run_smoke_test, account, endpoint))
    run_in_parallel(tests)
    apply(painters.ensure_catalog(account, served_model))
    if bot is not None:
        bot_home.run_bot(account, bot, plan)
        say("The bot runs on Fargate: send it a photo. ./deploy.py status says how it is.")
    return 0


def make_changes(
    account: Account,
    settings: list[EndpointSettings],
    images: dict[str, Image],
    home: str,
    plan: bool,
    notify: NotifySettings,
) -> int:
    """Make every change, or with `plan` only print it. Return how many there were.

    `images` has the image of each endpoint, by the endpoint's name. `home` is one of
    bot_home.HOMES.
    """
    # The roles and the user name it.
    count = apply(identity.ensure_boundary(account), plan)
    # What the endpoints need
    sequences = [
        ensure_bucket(account),
        identity.ensure_execution_role(account),
        ensure_topic(account, notify.address),
    ]
    if home == "user":
        sequences.append(identity.ensure_bot_user(account))
    if home in ("role", "ec2"):
        sequences.append(identity.ensure_bot_role(account))
    for endpoint in settings:
        sequences.append(logs.ensure_log_group(account, endpoint.name))
    count += apply_in_parallel(sequences, plan)

    deployments = [
        ensure_budget(account, notify),
        alarms.ensure_silent_alarm(account),
    ]
    for endpoint in settings:
        deployments.append(deploy_endpoint(account, endpoint, images[endpoint.name]))
    count += apply_in_parallel(deployments, plan)
    return count


def require_image(account: Account, name: str, tag: str | None, plan: bool) -> Image:
    """Return the image to run. If it is missing, a plan says so, and anything else fails.

    Raises DeployError for an image that SageMaker would refuse.
    """
    image = find_image(account, name, tag)
    if image is not None:
        if name in MODELS:
            require_docker_manifest(account, name, image)
        return image

    repository = account.repository_name(name)
    command = f"./build.sh --push --region {account.region} --prefix {account.prefix}"
    if tag:
        command += f" --tag {tag}"
    if not plan:
        raise DeployError(
            f"{repository}:{tag or '(any tag)'} is not in ECR in {account.region}. "
            f"Push it first: {command}"
        )
    output(f"first, push the image {repository}: {command}")
    return Image(f"{repository}@(not pushed yet)", TYPICAL_IMAGE_GIGABYTES)


def deploy_endpoint(account: Account, settings: EndpointSettings, image: Image) -> Changes:
    """Yield what is missing to have the endpoint run the image, then delete what is too old."""
    model = models.describe_wanted_model(account, settings.model, image)
    yield from models.ensure_model(account, model)
    # The update names the first two alarms. The others are there before the instance.
    yield from alarms.ensure_faults_alarm(account, settings.name)
    yield from alarms.ensure_release_alarm(account, settings.name)
    yield from alarms.ensure_idle_alarm(account, settings)
    yield from alarms.ensure_failing_alarm(account, settings.name)
    yield from alarms.ensure_backlog_alarm(account, settings.name)

    config = configs.describe_wanted_config(account, settings, model.name)
    if settings.fallback_types:
        yield from ensure_pooled_release(account, config)
        settings = without_refused_types(account, settings)
    if not settings.fallback_types:
        config = configs.describe_wanted_config(account, settings, model.name)
        yield from configs.ensure_config(account, config)
        yield from ensure_release(account, settings, config.name)
    yield from remove_old_releases(account, settings, config.name, model)


def remove_old_releases(
    account: Account, settings: EndpointSettings, config: str, model: models.Model
) -> Changes:
    """Yield the deletion of configurations, models and images that no rollback needs."""
    name = settings.name
    kept = kept_releases(read_history(account, name), config)
    endpoint = find_endpoint(account, name)
    if endpoint is not None and endpoint["EndpointConfigName"] != config:
        # Only while this is a plan
        kept.append(describe_release(account, endpoint["EndpointConfigName"]))
    yield from configs.remove_configs(account, name, {config} | {item.config for item in kept})
    yield from models.remove_models(account, name, {model.name} | {item.model for item in kept})
    if model.image.manifest_type:
        # Otherwise it is not pushed yet.
        uris = [model.image.uri, *(item.image for item in kept)]
        digests = {uri.partition("@")[2] for uri in uris}
        yield from remove_old_images(account, settings.model, digests)


def print_environment(account: Account, settings: list[EndpointSettings], home: str) -> None:
    """Print the environment variables of bot.py, except TELEGRAM_TOKEN, which is not on AWS."""
    say("The bot's environment; add the token of @BotFather as TELEGRAM_TOKEN:")
    for name, value in bot_home.describe_environment(account, settings).items():
        output(f"{name}={value}")
    say(
        "To let the bot run on AWS: ./deploy.py up --bot fargate. For another place, its "
        "permissions: `./deploy.py policy bot` prints them; --bot user, --bot role or --bot ec2 "
        f"creates {account.bot_identity} with them."
    )
    if home == "ec2":
        say(
            f"On EC2: start an instance with the instance profile {account.bot_identity}, and run "
            "the bot there as examples/stylebot.service says. It needs no access key."
        )
    if home == "user":
        call = f"boto3.client('iam').create_access_key(UserName='{account.bot_identity}')"
        say(
            "To create an access key for the bot, run: "
            f'.venv/bin/python -c "import boto3; print({call})"'
        )
