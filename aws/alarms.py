"""The CloudWatch alarms.

Of each endpoint, two roll back an update: when the model answers with errors, and when `up` finds
that it does not paint; one starts the first instance. Those of bot.ALARM_KINDS tell people what is
wrong, by the topic of aws/notify.py and by the bot: an instance has been on for hours without work,
the model fails, a picture has waited for long. One more alarm tells that the bot is silent.
"""

from collections.abc import Callable

from aws.account import Account
from aws.calls import Answer, delete_if_present, find_created, is_subset, perform
from aws.changes import Change, Changes
from aws.endpoint_settings import GPU_INSTANCES, EndpointSettings
from aws.messages import DeployError
from aws.metrics import ENDPOINT_NAMESPACE, INSTANCE_NAMESPACE, describe_dimensions
from bot import ALARM_KINDS, DEPLOYMENT_DIMENSION, HEARTBEAT_METRIC, METRICS_NAMESPACE

# An instance that is on for so long without work is told by an alarm.
IDLE_HOURS = 3
# Below these the instance only answers /ping. SageMaker counts 100 % for each CPU core.
IDLE_GPU_PERCENT = 1.0
IDLE_CPU_PERCENT = 25.0
# A request that waits longer than waking and the longest picture take has been forgotten.
OLDEST_REQUEST_SECONDS = 1800
# So many errors of the model in a quarter of an hour are told.
FAILING_ERRORS = 3
FAILING_SECONDS = 900
# The bot writes its heartbeat once a minute.
SILENT_MINUTES = 15


def faults_alarm_name(endpoint: str) -> str:
    return f"{endpoint}-faults"


def release_alarm_name(endpoint: str) -> str:
    return f"{endpoint}-release"


def wake_alarm_name(endpoint: str) -> str:
    return f"{endpoint}-wake"


def idle_alarm_name(endpoint: str) -> str:
    return f"{endpoint}-idle"


def failing_alarm_name(endpoint: str) -> str:
    return f"{endpoint}-failing"


def backlog_alarm_name(endpoint: str) -> str:
    return f"{endpoint}-backlog"


def silent_alarm_name(account: Account) -> str:
    return f"{account.prefix}-bot-silent"


def find_alarms(account: Account, names: list[str]) -> list[Answer]:
    alarms: list[Answer] = account.cloudwatch.describe_alarms(AlarmNames=names)["MetricAlarms"]
    return alarms


def ensure_faults_alarm(account: Account, endpoint: str) -> Changes:
    """Yield what is missing to have the alarm that rolls back an update.

    It counts 5xx answers: errors of our own. A picture that cannot be read is a 4xx answer.
    """
    alarm = {
        "AlarmName": faults_alarm_name(endpoint),
        "Namespace": ENDPOINT_NAMESPACE,
        "MetricName": "Invocation5XXErrors",
        "Dimensions": describe_dimensions(endpoint),
        "Statistic": "Sum",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 3.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "notBreaching",
    }
    yield from ensure_alarm(account, alarm)


def ensure_release_alarm(account: Account, endpoint: str) -> Changes:
    """Yield what is missing to have the alarm by which `up` ends a release that does not paint.

    Nobody writes its metric: its state is set by SetAlarmState, and stays as it was set.
    """
    alarm = {
        "AlarmName": release_alarm_name(endpoint),
        "AlarmDescription": f"The new instances of {endpoint} did not paint the test pictures. "
        "deploy.py sets the state; then SageMaker returns to the old instances.",
        "Namespace": METRICS_NAMESPACE,
        "MetricName": "FailedReleases",
        "Dimensions": describe_dimensions(endpoint, variant=""),
        "Statistic": "Sum",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "ignore",
    }
    yield from ensure_alarm(account, alarm)


def set_release_alarm(account: Account, endpoint: str, state: str, reason: str) -> None:
    """Set the state of the release's alarm: OK or ALARM."""
    perform(
        account.clock,
        account.cloudwatch.set_alarm_state,
        AlarmName=release_alarm_name(endpoint),
        StateValue=state,
        # CloudWatch takes no more.
        StateReason=reason[:1000],
    )


def ensure_idle_alarm(account: Account, settings: EndpointSettings) -> Changes:
    """Yield what is missing to have the alarm on an instance without work.

    SageMaker writes the metrics of instances only while there are some. An instance without work
    stops within the first hour; where it does not, the scaling is missing or broken. Endpoints that
    never sleep need no such alarm.
    """
    name = settings.name
    if settings.min_instances > 0:
        yield from remove_alarms(account, [idle_alarm_name(name)])
        return

    metric = "CPUUtilization"
    threshold = IDLE_CPU_PERCENT
    if settings.instance_type.startswith(GPU_INSTANCES):
        metric = "GPUUtilization"
        threshold = IDLE_GPU_PERCENT
    alarm = {
        "AlarmName": idle_alarm_name(name),
        "AlarmDescription": f"{name} has an instance, and no work for {IDLE_HOURS} hours. "
        "./deploy.py status says what it costs; ./deploy.py up sets its scaling again.",
        "Namespace": INSTANCE_NAMESPACE,
        "MetricName": metric,
        "Dimensions": describe_dimensions(name),
        "Statistic": "Maximum",
        "Period": 3600,
        "EvaluationPeriods": IDLE_HOURS,
        "DatapointsToAlarm": IDLE_HOURS,
        "Threshold": threshold,
        "ComparisonOperator": "LessThanThreshold",
        "TreatMissingData": "notBreaching",
    }
    yield from ensure_told_alarm(account, alarm)


def ensure_failing_alarm(account: Account, endpoint: str) -> Changes:
    """Yield what is missing to have the alarm on a model that answers with errors of its own.

    It stays on longer than the alarm that rolls back an update, so that people see it.
    """
    alarm = {
        "AlarmName": failing_alarm_name(endpoint),
        "AlarmDescription": f"The model of {endpoint} has answered with {FAILING_ERRORS} errors of "
        "its own or more in 15 minutes. ./deploy.py logs shows them.",
        "Namespace": ENDPOINT_NAMESPACE,
        "MetricName": "Invocation5XXErrors",
        "Dimensions": describe_dimensions(endpoint),
        "Statistic": "Sum",
        "Period": FAILING_SECONDS,
        "EvaluationPeriods": 1,
        "Threshold": float(FAILING_ERRORS),
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "notBreaching",
    }
    yield from ensure_told_alarm(account, alarm)


def ensure_backlog_alarm(account: Account, endpoint: str) -> Changes:
    """Yield what is missing to have the alarm on a picture that has waited for long."""
    alarm = {
        "AlarmName": backlog_alarm_name(endpoint),
        "AlarmDescription": f"A picture has waited at {endpoint} for "
        f"{OLDEST_REQUEST_SECONDS // 60} minutes. ./deploy.py status says more.",
        "Namespace": ENDPOINT_NAMESPACE,
        "MetricName": "ApproximateAgeOfOldestRequest",
        "Dimensions": describe_dimensions(endpoint, variant=""),
        "Statistic": "Maximum",
        "Period": 300,
        "EvaluationPeriods": 1,
        "Threshold": float(OLDEST_REQUEST_SECONDS),
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
    }
    yield from ensure_told_alarm(account, alarm)


def ensure_silent_alarm(account: Account) -> Changes:
    """Yield what is missing to have the alarm on a bot that writes no heartbeat."""
    alarm = {
        "AlarmName": silent_alarm_name(account),
        "AlarmDescription": f"The bot has been silent for {SILENT_MINUTES} minutes. It is alive "
        f"only if Telegram answers it, and DEPLOYMENT={account.prefix} is in its environment.",
        "Namespace": METRICS_NAMESPACE,
        "MetricName": HEARTBEAT_METRIC,
        "Dimensions": [{"Name": DEPLOYMENT_DIMENSION, "Value": account.prefix}],
        "Statistic": "SampleCount",
        "Period": 300,
        "EvaluationPeriods": SILENT_MINUTES // 5,
        "Threshold": 1.0,
        "ComparisonOperator": "LessThanThreshold",
        "TreatMissingData": "breaching",
    }
    yield from ensure_told_alarm(account, alarm)


def ensure_told_alarm(account: Account, alarm: Answer) -> Changes:
    """Yield what is missing to have an alarm of which people are told, also when it is over."""
    told = [account.topic_arn]
    yield from ensure_alarm(account, {**alarm, "AlarmActions": told, "OKActions": told})


def ensure_wake_alarm(
    account: Account, endpoint: str, find_policy: Callable[[], Answer | None]
) -> Changes:
    """Yield what is missing to have the alarm that starts the first instance.

    It goes off when requests have waited for two minutes and no instance runs, and then runs the
    scaling policy that `find_policy` returns.
    """
    alarm: Answer = {
        "AlarmName": wake_alarm_name(endpoint),
        "Namespace": ENDPOINT_NAMESPACE,
        "MetricName": "HasBacklogWithoutCapacity",
        "Dimensions": describe_dimensions(endpoint, variant=""),
        "Statistic": "Average",
        "Period": 60,
        "EvaluationPeriods": 2,
        "DatapointsToAlarm": 2,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "missing",
    }
    policy = find_policy() or {}
    if is_set(account, {**alarm, "AlarmActions": [policy.get("PolicyARN")]}):
        return

    def put() -> None:
        policy = find_created(account.clock, find_policy)
        if policy is None:
            raise DeployError(
                f"AWS does not show the scaling policy of {endpoint}, which was created a moment "
                "ago. Run up again."
            )
        put_alarm(account, {**alarm, "AlarmActions": [policy["PolicyARN"]]})

    yield Change(describe_alarm(alarm), put)


def ensure_alarm(account: Account, alarm: Answer) -> Changes:
    """Yield the creation or the update of an alarm, given as the arguments of PutMetricAlarm."""
    if not is_set(account, alarm):
        yield Change(describe_alarm(alarm), lambda: put_alarm(account, alarm))


def is_set(account: Account, alarm: Answer) -> bool:
    """Return whether the alarm exists with these arguments of PutMetricAlarm."""
    found = find_alarms(account, [alarm["AlarmName"]])
    return bool(found and is_subset(alarm, found[0]))


def describe_alarm(alarm: Answer) -> str:
    return f"set the alarm {alarm['AlarmName']} on {alarm['MetricName']}"


def put_alarm(account: Account, alarm: Answer) -> None:
    tags = {}
    if not find_alarms(account, [alarm["AlarmName"]]):
        # CloudWatch takes tags only when it creates the alarm.
        tags = {"Tags": account.tag_list}
    perform(account.clock, account.cloudwatch.put_metric_alarm, **alarm, **tags)


def remove_wake_alarm(account: Account, endpoint: str) -> Changes:
    """Yield the deletion of the alarm that an endpoint without sleep does not need."""
    yield from remove_alarms(account, [wake_alarm_name(endpoint)])


def remove_all_alarms(account: Account, endpoint: str) -> Changes:
    """Yield the deletion of each alarm of the endpoint."""
    names = [
        wake_alarm_name(endpoint),
        faults_alarm_name(endpoint),
        release_alarm_name(endpoint),
    ]
    names += [f"{endpoint}-{kind}" for kind in ALARM_KINDS]
    yield from remove_alarms(account, names)


def remove_silent_alarm(account: Account) -> Changes:
    """Yield the deletion of the alarm on the bot, if `up` created it."""
    yield from remove_alarms(account, [silent_alarm_name(account)])


def remove_alarms(account: Account, names: list[str]) -> Changes:
    """Yield the deletion of each of these alarms that `up` created."""
    for alarm in find_alarms(account, names):
        arn = alarm["AlarmArn"]
        tags = account.cloudwatch.list_tags_for_resource(ResourceARN=arn)["Tags"]
        if account.is_ours(tags):
            yield removal(account, alarm["AlarmName"])


def removal(account: Account, name: str) -> Change:
    return Change(
        f"delete the alarm {name}",
        lambda: delete_if_present(
            account.clock, account.cloudwatch.delete_alarms, AlarmNames=[name]
        ),
    )
