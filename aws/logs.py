"""The endpoints' log groups in CloudWatch, and what stands in them."""

import time
from datetime import datetime

from aws.account import TAG, Account
from aws.calls import Answer, delete_if_present, find, is_subset, perform
from aws.changes import Change, Changes

RETENTION_DAYS = 30
DAY_SECONDS = 86400
# All batch transform jobs of an account write here.
TRANSFORM_GROUP = "/aws/sagemaker/TransformJobs"


def log_group_name(endpoint: str) -> str:
    """Return the name that SageMaker gives to an endpoint's log group."""
    return f"/aws/sagemaker/Endpoints/{endpoint}"


def find_log_group(account: Account, name: str) -> Answer | None:
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
    yield from ensure_group(account, log_group_name(endpoint))


def ensure_transform_log_group(account: Account) -> Changes:
    """Yield the creation of the log group that all batch transform jobs of the account share.

    If it exists already, it is not ours, and its lines are kept as its owner wants.
    """
    if find_log_group(account, TRANSFORM_GROUP) is None or is_our_group(account, TRANSFORM_GROUP):
        yield from ensure_group(account, TRANSFORM_GROUP)


def ensure_group(account: Account, name: str) -> Changes:
    logs = account.logs
    group = find_log_group(account, name)
    if group is None:
        yield Change(
            f"create the log group {name}",
            lambda: perform(
                account.clock, logs.create_log_group, logGroupName=name, tags=account.tags
            ),
        )
    if not is_subset({"retentionInDays": RETENTION_DAYS}, group):
        yield Change(
            f"keep the lines of {name} for {RETENTION_DAYS} days",
            lambda: perform(
                account.clock,
                logs.put_retention_policy,
                logGroupName=name,
                retentionInDays=RETENTION_DAYS,
            ),
        )


def remove_log_group(account: Account, endpoint: str) -> Changes:
    """Yield the deletion of the endpoint's log group, if `up` created it."""
    yield from remove_group(account, log_group_name(endpoint))


def remove_transform_log_group(account: Account) -> Changes:
    """Yield the deletion of the log group of batches, if `batch` created it."""
    yield from remove_group(account, TRANSFORM_GROUP)


def remove_group(account: Account, name: str) -> Changes:
    """Yield the deletion of a log group, if `up` or `batch` created it."""
    if find_log_group(account, name) is None or not is_our_group(account, name):
        return
    yield Change(
        f"delete the log group {name}",
        lambda: delete_if_present(account.clock, account.logs.delete_log_group, logGroupName=name),
    )


def is_our_group(account: Account, name: str) -> bool:
    arn = f"arn:{account.partition}:logs:{account.region}:{account.id}:log-group:{name}"
    tags = account.logs.list_tags_for_resource(resourceArn=arn)["tags"]
    return bool(tags.get(TAG) == account.prefix)


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


def read_events(account: Account, group: str, start: datetime) -> list[Answer] | None:
    """Return the events of a log group since `start`. None: there is no such group."""
    events: list[Answer] = []
    token: dict[str, str] = {}
    while True:
        found = find(
            account.logs.filter_log_events,
            logGroupName=group,
            # In milliseconds
            startTime=int(start.timestamp() * 1000),
            **token,
        )
        if found is None:
            return None
        events += found["events"]
        if not found.get("nextToken"):
            return events
        token = {"nextToken": found["nextToken"]}


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
