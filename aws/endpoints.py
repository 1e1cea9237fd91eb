"""SageMaker endpoints: created, updated without downtime, deleted, and waited for."""

from botocore.exceptions import BotoCoreError, ClientError

from aws.account import Account
from aws.alarms import faults_alarm_name
from aws.calls import LAG_POLL_SECONDS, LAG_SECONDS, Answer, delete_if_present, find, perform
from aws.changes import Change, Changes, apply
from aws.configs import find_config
from aws.endpoint_settings import EndpointSettings
from aws.logs import last_log_lines
from aws.messages import DeployError, explain_error, find_remedy, say
from aws.models import find_sagemaker_tags
from aws.scaling import ensure_scaling, remove_scaling
from bot import INVOCATION_SECONDS

POLL_SECONDS = 15.0
# An unchanged status is printed again after this time.
REPORT_SECONDS = 60.0
BUSY = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
BROKEN = ("Failed", "OutOfService", "UpdateRollbackFailed")


def find_endpoint(account: Account, name: str) -> Answer | None:
    return find(account.sagemaker.describe_endpoint, EndpointName=name)


# ---------------------------------------------------------------- ensure


def ensure_endpoint(account: Account, settings: EndpointSettings, config: str) -> Changes:
    """Yield what is missing to have the endpoint with that endpoint configuration.

    Running a change raises DeployError, with SageMaker's reason and the end of the log, if the
    endpoint does not come into service.
    """
    name = settings.name
    endpoint = find_endpoint(account, name)
    if endpoint and is_busy(endpoint):
        # A run that was interrupted may have left it so.
        yield waiting(account, endpoint)
        endpoint = find_endpoint(account, name)

    if endpoint and endpoint["EndpointStatus"] in BROKEN:
        yield Change(
            f"delete the endpoint {name}, which is {endpoint['EndpointStatus']}",
            lambda: delete_endpoint(account, name),
        )
        endpoint = None

    if endpoint is None:
        yield Change(f"create the endpoint {name}", lambda: create_endpoint(account, name, config))
        return
    if endpoint["EndpointConfigName"] == config:
        return

    if uses_other_instance_type(account, endpoint, settings):
        # SageMaker refuses to change the instance type of a variant that scales.
        # `ensure_scaling` registers it again.
        yield from remove_scaling(account, name)
    yield Change(
        f"update the endpoint {name} to {config}, without downtime",
        lambda: update_or_restore_scaling(account, settings, config),
    )


def waiting(account: Account, endpoint: Answer) -> Change:
    name = endpoint["EndpointName"]
    return Change(
        f"wait for the endpoint {name}, which is {endpoint['EndpointStatus']}",
        lambda: wait_until_settled(account, name),
    )


def uses_other_instance_type(
    account: Account, endpoint: Answer, settings: EndpointSettings
) -> bool:
    config = find_config(account, endpoint["EndpointConfigName"])
    if config is None:
        return True
    variant = config["ProductionVariants"][0]
    return bool(variant.get("InstanceType") != settings.instance_type)


def create_endpoint(account: Account, name: str, config: str) -> None:
    perform(
        account.clock,
        account.sagemaker.create_endpoint,
        EndpointName=name,
        EndpointConfigName=config,
        Tags=account.tag_list,
    )
    wait_until_in_service(account, name, config)


def update_or_restore_scaling(account: Account, settings: EndpointSettings, config: str) -> None:
    """Update the endpoint; if that fails, let it scale again, so that its instances stop."""
    try:
        update_endpoint(account, settings.name, config)
    except (DeployError, BotoCoreError, ClientError):
        try:
            apply(ensure_scaling(account, settings))
        except (BotoCoreError, ClientError) as error:
            say(f"The scaling of {settings.name} was not set: {explain_error(error)}")
        raise


def update_endpoint(account: Account, name: str, config: str) -> None:
    """Update blue/green: the old instances serve until the new ones are healthy.

    If the alarm on 5xx answers goes off, SageMaker returns to the old instances.
    """
    deployment = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 300},
            # The old instances finish their requests.
            "TerminationWaitInSeconds": INVOCATION_SECONDS,
            "MaximumExecutionTimeoutInSeconds": 3600,
        },
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": faults_alarm_name(name)}]},
    }
    perform(
        account.clock,
        account.sagemaker.update_endpoint,
        EndpointName=name,
        EndpointConfigName=config,
        DeploymentConfig=deployment,
        # Without this the number of instances would be reset.
        RetainAllVariantProperties=True,
    )
    wait_until_in_service(account, name, config)


# ---------------------------------------------------------------- wait


def wait_until_settled(account: Account, name: str) -> Answer | None:
    """Wait until the endpoint's status no longer changes, and print the status meanwhile.

    Returns the endpoint's description, or None if it is gone.
    """
    clock = account.clock
    start = clock.monotonic()
    next_report = start
    last_status = ""
    while True:
        endpoint = find_endpoint(account, name)
        if endpoint is None:
            return None
        status = endpoint["EndpointStatus"]
        if status not in BUSY:
            return endpoint

        now = clock.monotonic()
        if status != last_status or now >= next_report:
            say(describe_wait(name, status, int(now - start)))
            next_report = now + REPORT_SECONDS
            last_status = status
        clock.sleep(POLL_SECONDS)


def describe_wait(name: str, status: str, seconds: int) -> str:
    """Return a line such as "stylebot-nst: Creating, 1:30, usually 5 to 10 minutes"."""
    line = f"{name}: {status}, {seconds // 60}:{seconds % 60:02}"
    if status == "Deleting":
        return line
    return f"{line}, usually 5 to 10 minutes"


def wait_until_in_service(account: Account, name: str, config: str) -> None:
    """Wait for the endpoint, which was created or updated a moment ago.

    For a minute, AWS may show no endpoint, or the one before the update.
    Raises DeployError if it does not run with that configuration in the end.
    """
    clock = account.clock
    deadline = clock.monotonic() + LAG_SECONDS
    while True:
        endpoint = wait_until_settled(account, name)
        if endpoint and is_in_service(endpoint) and endpoint["EndpointConfigName"] == config:
            return
        if clock.monotonic() >= deadline:
            break
        clock.sleep(LAG_POLL_SECONDS)

    if endpoint is None:
        raise DeployError(f"The endpoint {name} was deleted meanwhile. Run up again.")
    raise DeployError(explain_failure(account, name, endpoint))


def is_busy(endpoint: Answer) -> bool:
    return endpoint["EndpointStatus"] in BUSY


def is_in_service(endpoint: Answer) -> bool:
    return bool(endpoint["EndpointStatus"] == "InService")


def explain_failure(account: Account, name: str, endpoint: Answer) -> str:
    """Return SageMaker's reason, the end of the endpoint's log, and what to do."""
    status = endpoint["EndpointStatus"]
    state = f"is {status}"
    if status == "InService":
        state = "was rolled back to its previous configuration"
    reason = endpoint.get("FailureReason") or "SageMaker gives no reason."
    log_lines = last_log_lines(account, name)
    if not log_lines:
        log_lines = ["(empty: the container did not start)"]
    remedy = find_remedy(reason) or "Fix that, then run up again."

    lines = [f"The endpoint {name} {state}: {reason}", "The end of its log:", *log_lines, remedy]
    return "\n  ".join(lines)


# ---------------------------------------------------------------- remove


def remove_endpoint(account: Account, name: str) -> Changes:
    """Yield the deletion of the endpoint, if `up` created it."""
    endpoint = find_endpoint(account, name)
    if endpoint is None:
        return
    if not account.is_ours(find_sagemaker_tags(account, endpoint["EndpointArn"])):
        return
    yield Change(f"delete the endpoint {name}", lambda: delete_endpoint(account, name))


def delete_endpoint(account: Account, name: str) -> None:
    """Delete the endpoint and wait until it is gone. Raises DeployError if it does not go."""
    clock = account.clock
    # SageMaker refuses to delete an endpoint that it is creating or updating.
    endpoint = wait_until_settled(account, name)
    deadline = clock.monotonic() + LAG_SECONDS
    while endpoint is not None:
        delete_if_present(clock, account.sagemaker.delete_endpoint, EndpointName=name)
        # For a moment, AWS may show it as it was.
        clock.sleep(LAG_POLL_SECONDS)
        endpoint = wait_until_settled(account, name)
        if endpoint is not None and clock.monotonic() >= deadline:
            raise DeployError(explain_failure(account, name, endpoint))
