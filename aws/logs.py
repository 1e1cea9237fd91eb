"""The endpoints' log groups in CloudWatch, and what stands in them."""

import time
from datetime import datetime

from aws.account import TAG, Account
from aws.calls import Answer, delete_if_present, find, is_subset, perform
from aws.changes import Change, Changes

RETENTION_DAYS = 30
DAY_SECONDS = 86400


def log_group_name(endpoint: str) -> str:
    """Return the name that SageMaker gives to an endpoint's log group."""
    return f"/aws/sagemaker/Endpoints/{endpoint}"


def find_log_group(account: Account, endpoint: str) -> Answer | None:
    name = log_group_name(endpoint)
    # The call looks for a prefix, so it may find others too.
    groups: list[Answer] = account.logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    for group in groups:
        if group["logGroupName"] == name:
            return group
    return None


def ensure_log_group(account: Account, endpoint: str) -> Changes:
    """Yield what is missing to have a log group whose lines expire.

    It must exist before the endpoint: SageMaker would create one that keeps its lines for ever.
    """
    logs = account.logs
    name = log_group_name(endpoint)
    group = find_log_group(account, endpoint)
    if group is None:
        yield Change(
            f"create the log group {name}",
            lambda: perform(
                account.clock, logs.create_log_group, logGroupName=name, tags=account.tags
            ),
        )
    if not is_subset({"retentionInDays": RETENTION_DAYS}, group):
        yield Change(
            f"keep the log of {endpoint} for {RETENTION_DAYS} days",
            lambda: perform(
                account.clock,
                logs.put_retention_policy,
                logGroupName=name,
                retentionInDays=RETENTION_DAYS,
            ),
        )


def remove_log_group(account: Account, endpoint: str) -> Changes:
    """Yield the deletion of the log group, if `up` created it."""
    logs = account.logs
    name = log_group_name(endpoint)
    if find_log_group(account, endpoint) is None:
        return
    arn = f"arn:{account.partition}:logs:{account.region}:{account.id}:log-group:{name}"
    tags = logs.list_tags_for_resource(resourceArn=arn)["tags"]
    if tags.get(TAG) != account.prefix:
        return
    yield Change(
        f"delete the log group {name}",
        lambda: delete_if_present(account.clock, logs.delete_log_group, logGroupName=name),
    )


def last_log_lines(account: Account, endpoint: str, count: int = 10) -> list[str]:
    """Return the last lines of the log stream that was written to last."""
    logs = account.logs
    group = log_group_name(endpoint)
    found = find(
        logs.describe_log_streams,
        logGroupName=group,
        orderBy="LastEventTime",
        descending=True,
        limit=1,
    )
    if not found or not found["logStreams"]:
        return []
    stream = found["logStreams"][0]["logStreamName"]
    events = logs.get_log_events(logGroupName=group, logStreamName=stream, limit=count)["events"]
    return [event["message"].rstrip() for event in events]


def last_errors(account: Account, endpoint: str, count: int = 5) -> list[str]:
    """Return the last lines of the last 24 hours that have the word "error" in them."""
    start = time.time() - DAY_SECONDS
    found = find(
        account.logs.filter_log_events,
        logGroupName=log_group_name(endpoint),
        # In milliseconds
        startTime=int(start * 1000),
        filterPattern="?error ?Error ?ERROR",
    )
    lines = []
    for event in (found or {}).get("events", []):
        message = event["message"].rstrip()
        if "error" in message.lower():
            written = datetime.fromtimestamp(event["timestamp"] / 1000)
            lines.append(f"{written:%H:%M} {message}")
    return lines[-count:]
