"""The command status: a health check of the endpoints, and what else there is.

Each check stands by itself: a call that AWS does not permit costs one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial

from botocore.exceptions import BotoCoreError, ClientError

from aws import alarms, bot_network, bot_service, bot_token, identity, logs
from aws.account import Account
from aws.bucket import ensure_bucket, find_bucket, with_kept_tags
from aws.calls import Answer
from aws.changes import Change
from aws.configs import instance_types_of, read_settings
from aws.cost import describe_daily_cost
from aws.dashboard import describe_url, find_dashboard
from aws.endpoint_settings import VARIANT
from aws.endpoints import find_endpoint, is_in_service, pending_config
from aws.history import PROVEN, read_history
from aws.messages import output
from aws.metrics import read_metric
from aws.notify import ensure_topic, find_addresses, find_budget
from aws.painters import list_painters
from aws.registry import find_image_details
from aws.scaling import ensure_scaling, find_scalable_target
from aws.sleep import describe_sleepless, running_type
from aws.trainings import describe_state, list_running_jobs, read_progress
from bot import DEPLOYMENT_DIMENSION, HEARTBEAT_METRIC, METRICS_NAMESPACE, MODELS

BACKLOG_MINUTES = 10
DAY = timedelta(days=1)
HEARTBEAT_DAYS = timedelta(days=14)
# AWS takes Spot capacity back now and then. A bot that ends by itself is started far more often.
MOST_STARTS_A_DAY = 10


@dataclass(frozen=True)
class Line:
    """A line of the report."""

    text: str
    is_wrong: bool = False


Lines = Iterable[Line]


def status(account: Account) -> int:
    """Print the state of the deployment. Return the exit code: 1 if something is wrong."""
    sections = [check_endpoint(account, model) for model in MODELS]
    sections.append(check_shared(account))
    sections.append([Line("alarms:"), *run_check("alarms", check_notification, account)])
    sections.append([Line("dashboard:"), *run_check("dashboard", check_dashboard, account)])
    if bot := run_check("bot", check_fargate, account):
        sections.append(bot)
    sections.append([Line("trainings:"), *run_check("trainings", describe_trainings, account)])
    sections.append([Line("painters:"), *run_check("painters", describe_painters, account)])

    wrong = 0
    for lines in sections:
        output("\n  ".join(describe_line(line) for line in lines))
        wrong += sum(line.is_wrong for line in lines)
    if wrong:
        count = "1 line" if wrong == 1 else f"{wrong} lines"
        output(f"Something is wrong: {count} above, with a ! in front.")
        return 1
    output("Nothing is wrong.")
    return 0


def describe_line(line: Line) -> str:
    if line.is_wrong:
        return f"! {line.text}"
    return line.text


def run_check(name: str, check: Callable[..., Lines], *arguments: object) -> list[Line]:
    """Return the lines of a check, or one line that says why it could not be made."""
    try:
        return list(check(*arguments))
    except (ClientError, BotoCoreError) as error:
        message = " ".join(str(error).split())
        return [Line(f"{name}: not known: {message}", is_wrong=True)]


def check_drift(changes: Iterable[Change]) -> Lines:
    """Return a line for each change that `up` would make."""
    for change in changes:
        yield Line(f"differs from what up has set; up would {change.words}", is_wrong=True)


# ---------------------------------------------------------------- endpoints


def check_endpoint(account: Account, model: str) -> list[Line]:
    """Return the lines about the endpoint of one model."""
    name = account.endpoint_name(model)
    try:
        endpoint = find_endpoint(account, name)
    except (ClientError, BotoCoreError) as error:
        return [Line(f"{name}: not known: {error}", is_wrong=True)]
    if endpoint is None:
        return [Line(f"{name}: does not exist. ./deploy.py up creates it.", is_wrong=True)]

    config = run_check("configuration", describe_config, account, endpoint)
    lines = [
        Line(
            f"{name}: {endpoint['EndpointStatus']}, {describe_instances(endpoint)}",
            is_wrong=endpoint["EndpointStatus"] in ("Failed", "OutOfService"),
        ),
        *config,
    ]
    if reason := endpoint.get("FailureReason"):
        lines.append(Line(f"reason: {reason}"))
    checks = {
        "sleep": check_sleep,
        "alarms": check_alarms,
        "settings": check_settings,
        "backlog": check_backlog,
        "waking": describe_waking,
        "faults": check_faults,
        "image": check_image,
        "release": check_release,
        "last errors": describe_errors,
    }
    for label, check in checks.items():
        lines += run_check(label, check, account, model, endpoint)
    return lines


def describe_config(account: Account, endpoint: Answer) -> Lines:
    variant = find_variant(account, endpoint)
    limits = describe_limits(account, endpoint["EndpointName"])
    yield Line(f"instances: {' or '.join(instance_types_of(variant))}, {limits}")


def find_variant(account: Account, endpoint: Answer) -> Answer:
    """Return the production variant in the endpoint's configuration."""
    config = account.sagemaker.describe_endpoint_config(
        EndpointConfigName=endpoint["EndpointConfigName"]
    )
    variant: Answer = config["ProductionVariants"][0]
    return variant


def describe_instances(endpoint: Answer) -> str:
    """Return, for example, "1 instance", "1 instance, soon 2" or "0 instances, asleep".

    Of an endpoint with several instance types, also which of them run.
    """
    variants = endpoint.get("ProductionVariants") or [{}]
    current = variants[0].get("CurrentInstanceCount", 0)
    desired = variants[0].get("DesiredInstanceCount", 0)

    text = f"{current} instances"
    if current == 1:
        text = "1 instance"
    pools = variants[0].get("InstancePools", [])
    running = [pool for pool in pools if pool.get("CurrentInstanceCount", 0) > 0]
    if running:
        counts = [f"{pool['CurrentInstanceCount']} {pool['InstanceType']}" for pool in running]
        text += f" ({', '.join(counts)})"
    if current != desired:
        return f"{text}, soon {desired}"
    if current == 0:
        return f"{text}, asleep"
    return text


def describe_limits(account: Account, endpoint: str) -> str:
    target = find_scalable_target(account, endpoint)
    if target is None:
        return "no scaling"
    return f"{target['MinCapacity']} to {target['MaxCapacity']}"


def check_sleep(account: Account, model: str, endpoint: Answer) -> Lines:
    if warning := describe_sleepless(account, endpoint):
        yield Line(warning, is_wrong=True)


def check_alarms(account: Account, model: str, endpoint: Answer) -> Lines:
    """Return a line for each alarm that has gone off. Missing ones differ from the settings."""
    name = endpoint["EndpointName"]
    meanings = {
        alarms.idle_alarm_name(name): f"an instance has had no work for {alarms.IDLE_HOURS} hours",
        alarms.faults_alarm_name(name): "the model answers with errors of its own",
        alarms.failing_alarm_name(name): "the model fails",
        alarms.backlog_alarm_name(name): "a picture waits, and nobody works on it",
    }
    for alarm in alarms.find_alarms(account, list(meanings)):
        if alarm["StateValue"] != "ALARM":
            continue
        text = f"{meanings[alarm['AlarmName']]}: the alarm {alarm['AlarmName']} has gone off"
        if alarm["AlarmName"] == alarms.idle_alarm_name(name):
            variants = endpoint.get("ProductionVariants") or [{}]
            wanted_types = instance_types_of(find_variant(account, endpoint))
            instance_type = running_type(variants[0]) or wanted_types[0]
            text += f"; it costs {describe_daily_cost(instance_type, 1)}"
        yield Line(text, is_wrong=True)


def check_settings(account: Account, model: str, endpoint: Answer) -> Lines:
    """Compare alarms, scaling and log with what `up` sets. Options of `up` are read from AWS."""
    name = endpoint["EndpointName"]
    if find_scalable_target(account, name) is None or not is_in_service(endpoint):
        return
    settings = read_settings(account, model, endpoint)
    yield from check_drift(ensure_scaling(account, settings))
    yield from check_drift(alarms.ensure_idle_alarm(account, settings))
    yield from check_drift(alarms.ensure_faults_alarm(account, name))
    yield from check_drift(alarms.ensure_failing_alarm(account, name))
    yield from check_drift(alarms.ensure_backlog_alarm(account, name))
    yield from check_drift(alarms.ensure_release_alarm(account, name))
    yield from check_drift(logs.ensure_log_group(account, name))


# ---------------------------------------------------------------- metrics


def check_backlog(account: Account, model: str, endpoint: Answer) -> Lines:
    read = partial(read_metric, account, endpoint["EndpointName"], statistic="Maximum")
    back = timedelta(minutes=BACKLOG_MINUTES)
    points = read(metric="ApproximateBacklogSize", back=back)
    if not points:
        yield Line(f"backlog: no data in the last {BACKLOG_MINUTES} minutes")
    else:
        yield Line(f"backlog: {points[-1][1]:.0f} pictures")

    ages = read(metric="ApproximateAgeOfOldestRequest", back=back)
    if ages and ages[-1][1] > alarms.OLDEST_REQUEST_SECONDS:
        yield Line(
            f"a picture has waited for {ages[-1][1] / 60:.0f} minutes: nobody works on it",
            is_wrong=True,
        )


def describe_waking(account: Account, model: str, endpoint: Answer) -> Lines:
    """Return how long requests have waited for a first instance, by CloudWatch."""
    points = read_metric(
        account, endpoint["EndpointName"], "HasBacklogWithoutCapacity", "Maximum", DAY
    )
    waits = measure_waits(points)
    if waits:
        yield Line(
            f"waking: {len(waits)} times in the last 24 hours, {max(waits)} minutes at most, "
            f"{sum(waits) / len(waits):.0f} on average"
        )


def measure_waits(points: list[tuple[datetime, float]]) -> list[int]:
    """Return the lengths in minutes of the runs of ones in a metric with a point each minute."""
    waits: list[int] = []
    last: datetime | None = None
    for time, value in points:
        if value < 1:
            last = None
            continue
        if last is not None and time - last <= timedelta(minutes=1):
            waits[-1] += 1
        else:
            waits.append(1)
        last = time
    return waits


def check_faults(account: Account, model: str, endpoint: Answer) -> Lines:
    """Return a line if the model answered with errors of its own, not of a picture."""
    points = read_metric(
        account,
        endpoint["EndpointName"],
        "Invocation5XXErrors",
        "Sum",
        DAY,
        period=3600,
        variant=VARIANT,
    )
    count = sum(value for _, value in points)
    if count:
        yield Line(
            f"{count:.0f} answers in the last 24 hours were errors of the model (5xx)",
            is_wrong=True,
        )


# ---------------------------------------------------------------- image and log


def check_image(account: Account, model: str, endpoint: Answer) -> Lines:
    """Return the image's tags, age and digest."""
    name = find_variant(account, endpoint)["ModelName"]
    described = account.sagemaker.describe_model(ModelName=name)
    digest = described["PrimaryContainer"]["Image"].partition("@")[2]
    short_digest = digest[:19]
    image = find_image_details(account, model, digest)
    if image is None:
        yield Line(
            f"image: {short_digest}, which is no longer in ECR: no instance can start. "
            "./build.sh --push, then ./deploy.py up",
            is_wrong=True,
        )
        return

    tags = ", ".join(image.get("imageTags", ["without a tag"]))
    age = datetime.now(timezone.utc) - image["imagePushedAt"]
    pushed = "today"
    if age.days:
        pushed = f"{age.days} days ago"
    yield Line(f"image: {tags}, pushed {pushed}, {short_digest}")


def check_release(account: Account, model: str, endpoint: Answer) -> Lines:
    """Return a line if what serves has not painted its test pictures."""
    name = endpoint["EndpointName"]
    config = endpoint["EndpointConfigName"]
    release = read_history(account, name).find(config)
    if release is None or release.state == PROVEN or pending_config(endpoint):
        return
    yield Line(
        f"{config} serves without a proof that it paints ({release.state}): ./deploy.py up goes on",
        is_wrong=True,
    )


def describe_errors(account: Account, model: str, endpoint: Answer) -> Lines:
    errors = logs.last_errors(account, endpoint["EndpointName"])
    if not errors:
        yield Line("last errors: none in the log of the last 24 hours")
        return
    yield Line("last errors:")
    for error in errors:
        yield Line(error)


# ---------------------------------------------------------------- what both endpoints share


def check_shared(account: Account) -> list[Line]:
    """Return the lines about the bucket and the role of the endpoints."""
    lines = run_check("bucket", check_bucket, account)
    lines += run_check("role", check_role, account)
    if not lines:
        lines = [Line("as up has set them")]
    return [Line(f"bucket {account.bucket}, role {account.execution_role}:"), *lines]


def check_bucket(account: Account) -> Lines:
    return check_drift(ensure_bucket(with_kept_tags(account)))


def check_role(account: Account) -> Lines:
    yield from check_drift(identity.ensure_boundary(account))
    yield from check_drift(identity.ensure_execution_role(account))


def check_notification(account: Account) -> Lines:
    """Return who is told of alarms and costs, and whether the bot is alive."""
    yield from check_drift(ensure_topic(account, None))
    yield from check_drift(alarms.ensure_silent_alarm(account))
    yield from check_bot(account)
    addresses = find_addresses(account)
    for address, is_confirmed in addresses.items():
        if is_confirmed:
            yield Line(f"{address} is told of alarms")
        else:
            yield Line(
                f"{address} is not told of alarms yet: it must click on the link in AWS's e-mail. "
                f"./deploy.py up --notify {address} sends another one",
                is_wrong=True,
            )
    if not addresses:
        yield Line("nobody is told of alarms by e-mail: ./deploy.py up --notify ADDRESS")
    budget = find_budget(account)
    if budget is not None:
        dollars = float(budget["BudgetLimit"]["Amount"])
        yield Line(f"budget: ${dollars:.2f} a month for the whole account")


def check_bot(account: Account) -> Lines:
    """Return a line if the bot is silent. One that was never heard may not be wanted."""
    [alarm] = alarms.find_alarms(account, [alarms.silent_alarm_name(account)]) or [{}]
    if alarm.get("StateValue") != "ALARM":
        return
    if find_heartbeats(account):
        yield Line(f"the bot has been silent for {alarms.SILENT_MINUTES} minutes", is_wrong=True)
    else:
        yield Line(
            f"no bot has written a heartbeat in {HEARTBEAT_DAYS.days} days. If one runs, set "
            f"DEPLOYMENT={account.prefix} in its environment"
        )


def find_heartbeats(account: Account) -> list[Answer]:
    """Return the days on which the bot has written heartbeats, and how many."""
    now = datetime.now(timezone.utc)
    days: list[Answer] = account.cloudwatch.get_metric_statistics(
        Namespace=METRICS_NAMESPACE,
        MetricName=HEARTBEAT_METRIC,
        Dimensions=[{"Name": DEPLOYMENT_DIMENSION, "Value": account.prefix}],
        StartTime=now - HEARTBEAT_DAYS,
        EndTime=now,
        Period=86400,
        Statistics=["SampleCount"],
    )["Datapoints"]
    return days


def check_dashboard(account: Account) -> Lines:
    """Return the address of the dashboard."""
    if find_dashboard(account) is None:
        yield Line("missing; ./deploy.py up creates it", is_wrong=True)
    else:
        yield Line(describe_url(account))


# ---------------------------------------------------------------- the bot


def check_fargate(account: Account) -> Lines:
    """Return the lines about the bot on Fargate, or none if there is no such bot."""
    service = bot_service.find_service(account)
    if service is None:
        return
    name = account.bot_service
    running = service["runningCount"] == 1
    state = "running" if running else "not running"
    yield Line(f"{name}: {state}, on Fargate", is_wrong=not running)
    if bot_service.has_given_up(service):
        yield Line("ECS has given up to start it: ./deploy.py up tries again", is_wrong=True)

    since = datetime.now(timezone.utc) - DAY
    starts = bot_service.count_starts(service, since)
    yield Line(f"starts in the last 24 hours: {starts}", is_wrong=starts > MOST_STARTS_A_DAY)
    if stopped := bot_service.find_last_stop(account):
        reason = bot_service.describe_stop(stopped)
        yield Line(f"last stop: {stopped['stoppedAt']:%Y-%m-%d %H:%M} UTC, {reason}")
    if not running and service["events"]:
        yield Line(f"last event: {service['events'][0]['message']}")

    yield from check_drift(identity.ensure_task_roles(account))
    yield from check_drift(bot_service.ensure_cluster(account))
    yield from check_drift(logs.ensure_group(account, account.bot_log_group))
    if bot_token.find_parameter(account) is None:
        yield Line("its token is gone, so it cannot start again: ./deploy.py up", is_wrong=True)
    if task := bot_service.find_task_definition(account, name):
        network = bot_network.find_network(account)
        yield from check_drift(bot_service.ensure_service(account, task, network))


def describe_trainings(account: Account) -> Lines:
    """Return a line for each training that is running."""
    jobs = list_running_jobs(account)
    for job in jobs:
        state = describe_state(job, read_progress(account, job))
        yield Line(f"{job['TrainingJobName']}: {state}")
    if not jobs:
        yield Line("none is running")


def describe_painters(account: Account) -> Lines:
    """Return a line for each painter in the bucket."""
    painters = []
    if find_bucket(account) is not None:
        painters = list_painters(account)
    for painter in painters:
        megabytes = painter.bytes / 1e6
        yield Line(f"{painter.name}: {megabytes:.1f} MB, of {painter.modified:%Y-%m-%d %H:%M} UTC")
    if not painters:
        yield Line("none but those of the image")
