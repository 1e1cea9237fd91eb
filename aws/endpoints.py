"""SageMaker endpoints: created, updated without downtime, deleted, and waited for."""

from aws.account import Account
from aws.alarms import faults_alarm_name, release_alarm_name
from aws.calls import LAG_POLL_SECONDS, LAG_SECONDS, Answer, delete_if_present, find, perform
from aws.changes import Change, Changes
from aws.configs import find_instance_types
from aws.endpoint_settings import EndpointSettings
from aws.logs import last_log_lines
from aws.messages import DeployError, find_remedy, say
from aws.models import find_sagemaker_tags
from bot import INVOCATION_SECONDS

POLL_SECONDS = 15.0
# For so long the alarms are watched after the new instances have taken over, and `up` sends its
# test pictures.
BAKE_SECONDS = 600
# An unchanged status is printed again after this time.
REPORT_SECONDS = 60.0
BUSY = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
BROKEN = ("Failed", "OutOfService", "UpdateRollbackFailed")


def find_endpoint(account: Account, name: str) -> Answer | None:
    return find(account.sagemaker.describe_endpoint, EndpointName=name)


# ---------------------------------------------------------------- create and update


def pending_config(endpoint: Answer | None) -> str:
    """Return the endpoint configuration to which the endpoint is being updated, or ""."""
    if endpoint is None:
        return ""
    name: str = endpoint.get("PendingDeploymentSummary", {}).get("EndpointConfigName", "")
    return name


def waiting(account: Account, endpoint: Answer) -> Change:
    name = endpoint["EndpointName"]
    return Change(
        f"wait for the endpoint {name}, which is {endpoint['EndpointStatus']}",
        lambda: wait_until_settled(account, name),
    )


def uses_other_instance_type(
    account: Account, endpoint: Answer, settings: EndpointSettings
) -> bool:
    types = find_instance_types(account, endpoint["EndpointConfigName"])
    return types != list(settings.instance_types)


def count_instances(endpoint: Answer) -> int:
    """Return how many instances the endpoint should have now."""
    variants = endpoint.get("ProductionVariants") or [{}]
    count: int = variants[0].get("DesiredInstanceCount", 0)
    return count


def create_endpoint(account: Account, name: str, config: str) -> None:
    """Create the endpoint. Raises DeployError if it does not come into service."""
    perform(
        account.clock,
        account.sagemaker.create_endpoint,
        EndpointName=name,
        EndpointConfigName=config,
        Tags=account.tag_list,
    )
    wait_until_in_service(account, name, config)


def start_update(account: Account, endpoint: Answer, config: str) -> None:
    """Start an update blue/green: the old instances serve until the new ones are healthy.

    Then all requests go to the new ones, and SageMaker returns to the old ones if an alarm goes off
    within the next ten minutes. An endpoint at zero instances gets one, as the configuration says:
    kept at zero, no instance would start, and nothing could be tested.
    """
    name = endpoint["EndpointName"]
    has_instances = count_instances(endpoint) > 0
    alarms = [faults_alarm_name(name), release_alarm_name(name)]
    deployment = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {
                "Type": "ALL_AT_ONCE",
                "WaitIntervalInSeconds": BAKE_SECONDS,
            },
            # The old instances finish their requests.
            "TerminationWaitInSeconds": INVOCATION_SECONDS if has_instances else 0,
            "MaximumExecutionTimeoutInSeconds": 7200,
        },
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": alarm} for alarm in alarms]},
    }
    update(account, name, config, deployment, keep_count=has_instances)


def return_to(account: Account, endpoint: Answer, config: str) -> None:
    """Update the endpoint to a configuration that has worked, and wait for it."""
    deployment = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0},
            "MaximumExecutionTimeoutInSeconds": 7200,
        }
    }
    name = endpoint["EndpointName"]
    update(account, name, config, deployment, keep_count=True)
    wait_until_in_service(account, name, config)


def update(account: Account, name: str, config: str, deployment: Answer, keep_count: bool) -> None:
    perform(
        account.clock,
        account.sagemaker.update_endpoint,
        EndpointName=name,
        EndpointConfigName=config,
        DeploymentConfig=deployment,
        # Otherwise the number of instances is the configuration's.
        RetainAllVariantProperties=keep_count,
    )


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


def wait_until_baking(account: Account, name: str, config: str) -> Answer | None:
    """Wait until the new instances of an update get the requests, and print the status meanwhile.

    Returns the endpoint's description then, or that of the endpoint after an update that has ended;
    None if the endpoint is gone. For a minute, AWS may show the one before the update.
    """
    clock = account.clock
    start = clock.monotonic()
    next_report = start
    while True:
        endpoint = find_endpoint(account, name)
        if endpoint is None or is_baking(endpoint, config):
            return endpoint
        now = clock.monotonic()
        is_new = endpoint["EndpointConfigName"] == config
        if not is_busy(endpoint) and (is_new or now - start >= LAG_SECONDS):
            return endpoint
        if is_busy(endpoint) and now >= next_report:
            say(describe_wait(name, endpoint["EndpointStatus"], int(now - start)))
            next_report = now + REPORT_SECONDS
        clock.sleep(POLL_SECONDS if is_busy(endpoint) else LAG_POLL_SECONDS)


def is_baking(endpoint: Answer, config: str) -> bool:
    """Return whether new instances with that configuration get the requests, on probation."""
    if pending_config(endpoint) != config:
        return False
    variants = endpoint["PendingDeploymentSummary"].get("ProductionVariants") or [{}]
    statuses = [item["Status"] for item in variants[0].get("VariantStatus", [])]
    return "Baking" in statuses and variants[0].get("CurrentInstanceCount", 0) > 0


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
