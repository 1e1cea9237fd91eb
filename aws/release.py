"""Releases: an endpoint gets another configuration, and keeps it only if it paints.

The order, for an endpoint that exists:

1. The release is recorded, with the configuration to go back to (aws/history.py).
2. UpdateEndpoint starts new instances beside the old ones, one if there is none now. When they are
   healthy, all requests go to them, and SageMaker watches two alarms for ten minutes: the bake.
3. Within the bake, test pictures are sent. So the new instances paint them; each answer also says
   when its server was started.
4. If a picture fails, the alarm `...-release` is set. SageMaker then returns to the old instances,
   which are still there. If the bake is over already, another update goes back.
5. If they are painted, the release is recorded as proven. Only then is what is older deleted,
   except the last good release before it.

`up`, killed at any moment, goes on when it is run again: a configuration that serves without a
record of its proof has to paint, or is taken back.
"""

from __future__ import annotations

from functools import partial

from botocore.exceptions import BotoCoreError, ClientError

from aws.account import Account
from aws.alarms import set_release_alarm
from aws.calls import Answer
from aws.changes import Change, Changes, apply
from aws.configs import find_config, find_instance_types
from aws.endpoint_settings import EndpointSettings
from aws.endpoints import (
    BROKEN,
    create_endpoint,
    delete_endpoint,
    explain_failure,
    find_endpoint,
    is_baking,
    is_busy,
    is_in_service,
    pending_config,
    return_to,
    start_update,
    uses_other_instance_type,
    wait_until_baking,
    wait_until_in_service,
    wait_until_settled,
    waiting,
)
from aws.history import (
    FAILED,
    GONE_BACK,
    PROVEN,
    RUNNING,
    History,
    Release,
    begin,
    change_history,
    describe_release,
    finish,
    read_history,
)
from aws.invocations import ANSWER_SECONDS
from aws.messages import DeployError, explain_error, say
from aws.scaling import remove_scaling
from aws.sleep import ensure_scaling_or_delete
from aws.smoke import paint_proof

# Each test picture has so long, that both are there within the bake (endpoints.BAKE_SECONDS).
PICTURE_SECONDS = 270


def ensure_release(account: Account, settings: EndpointSettings, config: str) -> Changes:
    """Yield what is missing to have the endpoint serve that configuration, proven, and scale.

    Running a change raises DeployError if the endpoint does not come into service, or does not
    paint. If it served another configuration before, it does so again then.
    """
    name = settings.name
    endpoint = find_endpoint(account, name)
    if endpoint and is_busy(endpoint) and pending_config(endpoint) != config:
        # A run that was interrupted, or somebody else, may have left it so.
        yield waiting(account, endpoint)
        endpoint = find_endpoint(account, name)

    if endpoint and endpoint["EndpointStatus"] in BROKEN:
        yield Change(
            f"delete the endpoint {name}, which is {endpoint['EndpointStatus']}",
            lambda: delete_endpoint(account, name),
        )
        endpoint = None

    if endpoint is None:
        yield Change(f"create the endpoint {name}", lambda: create(account, name, config))
        yield from ensure_scaling_or_delete(account, settings)
        yield proving(account, settings, config)
        return

    if endpoint["EndpointConfigName"] == config and not pending_config(endpoint):
        yield from ensure_scaling_or_delete(account, settings)
        if not read_history(account, name).is_proven(config):
            yield proving(account, settings, config)
        return

    if pending_config(endpoint) != config:
        if uses_other_instance_type(account, endpoint, settings):
            # SageMaker refuses to change the instance type of a variant that scales.
            yield from remove_scaling(account, name)
        yield Change(
            f"update the endpoint {name} to {config}, without downtime",
            partial(begin_update, account, settings, config),
        )
    yield proving(account, settings, config)
    yield from ensure_scaling_or_delete(account, settings)


def create(account: Account, name: str, config: str) -> None:
    begin(account, name, describe_release(account, config))
    try:
        create_endpoint(account, name, config)
    except ClientError:
        finish(account, name, config, FAILED, "the endpoint was not created")
        raise


def begin_update(account: Account, settings: EndpointSettings, config: str) -> None:
    """Record the release with the configuration to go back to, and start the update."""
    name = settings.name
    endpoint = find_endpoint(account, name)
    if endpoint is None:
        raise DeployError(f"The endpoint {name} was deleted meanwhile. Run up again.")
    previous = find_previous(account, endpoint, config)
    begin(account, name, describe_release(account, config, previous))
    start_or_restore_scaling(account, settings, endpoint, config)


def start_or_restore_scaling(
    account: Account, settings: EndpointSettings, endpoint: Answer, config: str
) -> None:
    """Start the update. If AWS refuses it, record that, and let the endpoint scale again."""
    try:
        set_release_alarm(account, settings.name, "OK", "A release begins.")
        start_update(account, endpoint, config)
    except (BotoCoreError, ClientError):
        finish(account, settings.name, config, FAILED, "the update did not start")
        restore_scaling(account, settings)
        raise


def find_previous(account: Account, endpoint: Answer, config: str) -> str:
    """Return the configuration to go back to, "" if there is none that has worked.

    What serves without any record was put there before releases were recorded: it counts as good,
    and gets a record.
    """
    name = endpoint["EndpointName"]
    serving = endpoint["EndpointConfigName"]
    history = read_history(account, name)
    if history.is_proven(serving):
        return str(serving)
    if history.find(serving) is None and is_in_service(endpoint):
        record_as_proven(account, name, serving)
        return str(serving)
    good = history.last_good(besides=config)
    if good is None or find_config(account, good.config) is None:
        return ""
    return good.config


def record_as_proven(account: Account, name: str, config: str) -> None:
    release = describe_release(account, config)
    release.state = PROVEN

    def add(history: History) -> None:
        if history.find(config) is None:
            history.releases.append(release)

    change_history(account, name, add)


# ---------------------------------------------------------------- the proof


def proving(account: Account, settings: EndpointSettings, config: str) -> Change:
    return Change(
        f"paint test pictures through {settings.name}, and go back if that fails",
        lambda: prove(account, settings, config),
    )


def prove(account: Account, settings: EndpointSettings, config: str) -> None:
    """Paint the test pictures and record the proof. Goes back and raises DeployError if it fails.

    Other errors, such as a network that is down here, say nothing about the release: it stays as it
    is, without a proof, and the next `up` goes on.
    """
    name = settings.name
    record = read_history(account, name).find(config)
    if record is None:
        record = describe_release(account, config)
        begin(account, name, record)

    try:
        paint_through_new_instances(account, settings, config)
    except DeployError as error:
        go_back(account, settings, record, str(error))
        raise
    except (BotoCoreError, ClientError):
        say(f"The release of {config} is not proven: run up again, and it goes on.")
        restore_scaling_if_settled(account, settings)
        raise
    finish(account, name, config, PROVEN)


def paint_through_new_instances(account: Account, settings: EndpointSettings, config: str) -> None:
    """Wait until the new instances serve, let them paint, and wait until the update has ended.

    Raises DeployError if a picture fails, or the endpoint does not serve that configuration then.
    """
    name = settings.name
    endpoint = wait_until_baking(account, name, config)
    if endpoint is not None and is_baking(endpoint, config):
        say(f"{name}: the new instances have taken over, on probation")
        started = endpoint["PendingDeploymentSummary"].get("StartTime")
        started_after = started.timestamp() if started else 0.0
        paint_proof(account, name, settings.model, PICTURE_SECONDS, started_after)
        wait_until_in_service(account, name, config)
        return

    wait_until_in_service(account, name, config)
    # There are no other instances any more; one may have to be started.
    paint_proof(account, name, settings.model, ANSWER_SECONDS)


# ---------------------------------------------------------------- the way back


def go_back(account: Account, settings: EndpointSettings, release: Release, reason: str) -> None:
    """Return to the configuration before the release, and record why. Say what serves now.

    Raises DeployError if the endpoint cannot be brought back.
    """
    name = settings.name
    short_reason = reason.partition("\n")[0]
    say(f"{name}: THE RELEASE OF {release.config} FAILED: {short_reason}")
    try:
        endpoint = leave_bake(account, name, release.config, short_reason)
        serving = "" if endpoint is None else endpoint["EndpointConfigName"]
        if endpoint is None or not release.previous:
            finish(account, name, release.config, FAILED, short_reason)
            say(f"{name}: there is no earlier release to go back to.")
            return
        if serving not in (release.config, release.previous):
            finish(account, name, release.config, FAILED, "somebody else's release came first")
            say(f"{name} serves {serving}, which somebody else has released.")
            return
        if serving == release.config:
            update_back(account, endpoint, release.previous)
        finish(account, name, release.config, GONE_BACK, short_reason)
        say(f"{name}: went back to {release.previous}, which serves as before.")
    finally:
        restore_scaling_if_settled(account, settings)


def leave_bake(account: Account, name: str, config: str, reason: str) -> Answer | None:
    """Set the alarm if the release is on probation. Return the endpoint, when it is settled."""
    endpoint = find_endpoint(account, name)
    if endpoint is not None and pending_config(endpoint) == config:
        set_release_alarm(account, name, "ALARM", reason)
    return wait_until_settled(account, name)


def update_back(account: Account, endpoint: Answer, config: str) -> None:
    name = endpoint["EndpointName"]
    if find_instance_types(account, endpoint["EndpointConfigName"]) != find_instance_types(
        account, config
    ):
        apply(remove_scaling(account, name))
    say(f"{name}: updating back to {config}")
    return_to(account, endpoint, config)


def restore_scaling_if_settled(account: Account, settings: EndpointSettings) -> None:
    endpoint = find_endpoint(account, settings.name)
    if endpoint is not None and is_in_service(endpoint):
        restore_scaling(account, settings)


def restore_scaling(account: Account, settings: EndpointSettings) -> None:
    """Let the endpoint scale again, so that its instances stop, while another error is raised."""
    try:
        apply(ensure_scaling_or_delete(account, settings))
    except (BotoCoreError, ClientError) as error:
        say(f"The scaling of {settings.name} was not set: {explain_error(error)}")


# ---------------------------------------------------------------- by hand


def end_pending_release(account: Account, settings: EndpointSettings) -> bool:
    """End a release that is under way, as its failure would. Return whether there was one."""
    name = settings.name
    endpoint = find_endpoint(account, name)
    config = pending_config(endpoint)
    if not config or endpoint is None:
        return False
    release = read_history(account, name).find(config)
    if release is None:
        release = describe_release(account, config, previous=endpoint["EndpointConfigName"])
    if release.state != RUNNING:
        # It is on its way back to this one already.
        return False
    go_back(account, settings, release, "rolled back by hand")
    return True


def return_by_hand(account: Account, settings: EndpointSettings, good: Release) -> None:
    """Release an earlier configuration again, and record that what serves was taken back."""
    name = settings.name
    endpoint = find_endpoint(account, name)
    if endpoint is None or not is_in_service(endpoint):
        raise DeployError(explain_failure(account, name, endpoint or {"EndpointStatus": "gone"}))
    serving = endpoint["EndpointConfigName"]
    if find_instance_types(account, serving) != find_instance_types(account, good.config):
        apply(remove_scaling(account, name))
    finish(account, name, serving, GONE_BACK, "rolled back by hand")
    # Not back again if it fails: the person who runs this has taken back what serves now.
    begin(account, name, describe_release(account, good.config))
    start_or_restore_scaling(account, settings, endpoint, good.config)
    prove(account, settings, good.config)
    restore_scaling(account, settings)
