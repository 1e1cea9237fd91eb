"""An endpoint's CloudWatch alarms: one rolls back an update, one starts the first instance."""

from aws.account import Account
from aws.calls import Answer, is_subset
from aws.changes import Change, Changes
from aws.endpoint_settings import VARIANT


def faults_alarm_name(endpoint: str) -> str:
    return f"{endpoint}-faults"


def wake_alarm_name(endpoint: str) -> str:
    return f"{endpoint}-wake"


def find_alarms(account: Account, names: list[str]) -> list[Answer]:
    alarms: list[Answer] = account.cloudwatch.describe_alarms(AlarmNames=names)["MetricAlarms"]
    return alarms


def ensure_faults_alarm(account: Account, endpoint: str) -> Changes:
    """Yield what is missing to have the alarm that rolls back an update.

    It counts 5xx answers: errors of our own. A picture that cannot be read is a 4xx answer.
    """
    alarm = {
        "AlarmName": faults_alarm_name(endpoint),
        "Namespace": "AWS/SageMaker",
        "MetricName": "Invocation5XXErrors",
        "Dimensions": [
            {"Name": "EndpointName", "Value": endpoint},
            {"Name": "VariantName", "Value": VARIANT},
        ],
        "Statistic": "Sum",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 3.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "notBreaching",
    }
    yield from ensure_alarm(account, alarm)


def ensure_wake_alarm(account: Account, endpoint: str, policy_arn: str) -> Changes:
    """Yield what is missing to have the alarm that starts the first instance.

    It goes off when requests have waited for two minutes and no instance runs, and then runs the
    scaling policy with that ARN.
    """
    alarm = {
        "AlarmName": wake_alarm_name(endpoint),
        "Namespace": "AWS/SageMaker",
        "MetricName": "HasBacklogWithoutCapacity",
        "Dimensions": [{"Name": "EndpointName", "Value": endpoint}],
        "Statistic": "Average",
        "Period": 60,
        "EvaluationPeriods": 2,
        "DatapointsToAlarm": 2,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "missing",
        "AlarmActions": [policy_arn],
    }
    yield from ensure_alarm(account, alarm)


def ensure_alarm(account: Account, alarm: Answer) -> Changes:
    """Yield the creation or the update of an alarm, given as the arguments of PutMetricAlarm."""
    name = alarm["AlarmName"]
    found = find_alarms(account, [name])
    if found and is_subset(alarm, found[0]):
        return

    tags = {}
    if not found:
        # CloudWatch takes tags only when it creates the alarm.
        tags = {"Tags": account.tag_list}
    yield Change(
        f"set the alarm {name} on {alarm['MetricName']}",
        lambda: account.cloudwatch.put_metric_alarm(**alarm, **tags),
    )


def remove_wake_alarm(account: Account, endpoint: str) -> Changes:
    """Yield the deletion of the alarm that an endpoint without sleep does not need."""
    yield from remove_alarms(account, [wake_alarm_name(endpoint)])


def remove_all_alarms(account: Account, endpoint: str) -> Changes:
    """Yield the deletion of each alarm of the endpoint."""
    yield from remove_alarms(account, [wake_alarm_name(endpoint), faults_alarm_name(endpoint)])


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
        lambda: account.cloudwatch.delete_alarms(AlarmNames=[name]),
    )
