"""ECS: the bot's cluster, its task definition, and the service that keeps it running on Fargate.

There is never more than one bot: an update stops the old one before it starts the new one. Telegram
keeps what people write meanwhile. AWS may take the bot's Spot capacity away at any moment; the
service then starts another bot, which finds every chat and job in S3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

from aws.account import TAG, Account
from aws.bot_network import Network, find_security_group
from aws.calls import (
    LAG_SECONDS,
    Answer,
    delete_if_present,
    find,
    find_created,
    is_subset,
    perform,
)
from aws.changes import Change, Changes
from aws.messages import DeployError, find_remedy, say

# The name of the only container, and the first part of its log stream's name
CONTAINER = "bot"
SERVICE_LINKED_ROLE = "AWSServiceRoleForECS"
# In units of 1/1024 CPU, and in MiB: the smallest that Fargate has. The bot needs 64 MiB.
CPU = "256"
MEMORY = "512"
# The bot ends within 10 s of SIGTERM; then ECS kills it.
STOP_SECONDS = 30
# Fargate takes one or two minutes to start a task, and the circuit breaker gives up after three.
START_SECONDS = 900
STOP_WAIT_SECONDS = 300
POLL_SECONDS = 10
REPORT_SECONDS = 60
# DeleteTaskDefinitions takes no more.
DELETED_DEFINITIONS_LIMIT = 10

# What ECS or the bot says while AWS does not know a new role or its policy everywhere
ROLE_UNKNOWN = re.compile(
    r"AccessDenied|not authorized|unable to assume|ResourceInitializationError"
)

# The old bot is stopped before the new one is started: two bots with one token disturb each other.
DEPLOYMENT = {
    "minimumHealthyPercent": 0,
    "maximumPercent": 100,
    "deploymentCircuitBreaker": {"enable": True, "rollback": True},
}
CAPACITY = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]


# ---------------------------------------------------------------- cluster


def find_cluster(account: Account) -> Answer | None:
    """Return the bot's cluster. ECS shows a deleted one for a while, as INACTIVE."""
    answer = account.ecs.describe_clusters(clusters=[account.bot_service], include=["TAGS"])
    for cluster in answer["clusters"]:
        if cluster["status"] != "INACTIVE":
            found: Answer = cluster
            return found
    return None


def ensure_cluster(account: Account) -> Changes:
    """Yield what is missing to have a cluster that can use Fargate's Spot capacity."""
    name = account.bot_service
    # ECS creates its role by itself, but then often fails the first call in a new account.
    if find(account.iam.get_role, RoleName=SERVICE_LINKED_ROLE) is None:
        yield Change(
            f"create {SERVICE_LINKED_ROLE}, the account's role for ECS itself",
            lambda: perform(
                account.clock,
                account.iam.create_service_linked_role,
                AWSServiceName="ecs.amazonaws.com",
            ),
        )
    cluster = find_cluster(account)
    if cluster is None:
        yield Change(
            f"create the cluster {name}",
            lambda: perform(
                account.clock,
                account.ecs.create_cluster,
                clusterName=name,
                capacityProviders=["FARGATE_SPOT"],
                tags=account.lower_case_tag_list,
            ),
        )
    elif "FARGATE_SPOT" not in cluster["capacityProviders"]:
        yield Change(
            f"let the cluster {name} use Spot capacity",
            lambda: perform(
                account.clock,
                account.ecs.put_cluster_capacity_providers,
                cluster=name,
                capacityProviders=["FARGATE_SPOT"],
                defaultCapacityProviderStrategy=[],
            ),
        )


# ---------------------------------------------------------------- task definition


def describe_wanted_task(
    account: Account, image: str, fingerprint: str, environment: dict[str, str]
) -> Answer:
    """Return the arguments of RegisterTaskDefinition, but the tags.

    `image` has a digest. `fingerprint` is that of the token: ECS reads the token only when a task
    starts, so another token has to be another task definition.
    """
    arn = f"arn:{account.partition}:ssm:{account.region}:{account.id}:parameter"
    container = {
        "name": CONTAINER,
        "image": image,
        "essential": True,
        "environment": [{"name": name, "value": environment[name]} for name in sorted(environment)],
        "secrets": [{"name": "TELEGRAM_TOKEN", "valueFrom": f"{arn}{account.token_parameter}"}],
        "dockerLabels": {"token-fingerprint": fingerprint},
        "readonlyRootFilesystem": True,
        "stopTimeout": STOP_SECONDS,
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {
                "awslogs-group": account.bot_log_group,
                "awslogs-region": account.region,
                "awslogs-stream-prefix": CONTAINER,
            },
        },
    }
    return {
        "family": account.bot_service,
        "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc",
        # build.sh builds for it, on every computer.
        "runtimePlatform": {"cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX"},
        "cpu": CPU,
        "memory": MEMORY,
        "taskRoleArn": account.bot_identity_arn,
        "executionRoleArn": account.bot_execution_role_arn,
        "containerDefinitions": [container],
    }


def find_task_definition(account: Account, name: str) -> Answer | None:
    """Return a task definition by its ARN or, by the family's name, the newest."""
    found = find(account.ecs.describe_task_definition, taskDefinition=name)
    if found is None:
        return None
    definition: Answer = found["taskDefinition"]
    return definition


def ensure_task_definition(account: Account, task: Answer) -> Changes:
    """Yield the registration of the task definition, if the newest one differs from it."""
    if is_subset(task, find_task_definition(account, account.bot_service)):
        return
    yield Change(
        f"register what runs the bot, as a task definition {account.bot_service}",
        lambda: perform(
            account.clock,
            account.ecs.register_task_definition,
            **task,
            tags=account.lower_case_tag_list,
        ),
    )


def running_environment(account: Account) -> dict[str, str]:
    """Return the environment of the bot's newest task definition, or nothing if there is none."""
    definition = find_task_definition(account, account.bot_service)
    if definition is None:
        return {}
    variables = definition["containerDefinitions"][0]["environment"]
    return {variable["name"]: variable["value"] for variable in variables}


# ---------------------------------------------------------------- service


def find_service(account: Account) -> Answer | None:
    """Return the bot's service. ECS shows a deleted one for a while, as INACTIVE."""
    answer = find(
        account.ecs.describe_services,
        cluster=account.bot_service,
        services=[account.bot_service],
        include=["TAGS"],
    )
    for service in (answer or {"services": []})["services"]:
        if service["status"] != "INACTIVE":
            found: Answer = service
            return found
    return None


def describe_network(account: Account, network: Network) -> Answer:
    """Return the networkConfiguration of a task, whose security group exists."""
    group = find_created(account.clock, lambda: find_security_group(account))
    if group is None:
        raise DeployError(
            f"The security group {account.bot_service} is missing, or belongs to somebody else: it "
            f"lacks the tag {TAG}={account.prefix}. Rename or delete it, then run up again."
        )
    return {
        "awsvpcConfiguration": {
            "subnets": network.subnets,
            "securityGroups": [group["GroupId"]],
            # Its only way to the internet, without a NAT gateway for $33 a month
            "assignPublicIp": "ENABLED",
        }
    }


def ensure_service(account: Account, task: Answer, network: Network) -> Changes:
    """Yield what is missing to have one bot running by that task definition."""
    name = account.bot_service
    service = find_service(account)
    if service is None or service["status"] == "DRAINING":
        yield Change(f"start the bot as the service {name}", lambda: create(account, network))
        return
    if matches(account, service, task, network) and not has_given_up(service):
        return
    yield Change(f"restart the bot, the service {name}", lambda: update(account, network))


def matches(account: Account, service: Answer, task: Answer, network: Network) -> bool:
    """Return whether the service runs the task definition, in the network, as it should."""
    group = find_security_group(account)
    if group is None:
        return False
    if not is_subset(describe_wanted_service(account, network), service):
        return False
    return is_subset(task, find_task_definition(account, service["taskDefinition"]))


def describe_wanted_service(account: Account, network: Network) -> Answer:
    """Return the arguments that CreateService and UpdateService share, but the task definition."""
    return {
        "desiredCount": 1,
        "capacityProviderStrategy": CAPACITY,
        "deploymentConfiguration": DEPLOYMENT,
        # Rebalancing would start the new bot before it stops the old one.
        "availabilityZoneRebalancing": "DISABLED",
        "networkConfiguration": describe_network(account, network),
    }


def create(account: Account, network: Network) -> None:
    perform(
        account.clock,
        account.ecs.create_service,
        **describe_wanted_service(account, network),
        cluster=account.bot_service,
        serviceName=account.bot_service,
        # The newest of this family
        taskDefinition=account.bot_service,
        propagateTags="SERVICE",
        tags=account.lower_case_tag_list,
    )


def update(account: Account, network: Network) -> None:
    perform(
        account.clock,
        account.ecs.update_service,
        **describe_wanted_service(account, network),
        cluster=account.bot_service,
        service=account.bot_service,
        taskDefinition=account.bot_service,
        forceNewDeployment=True,
    )


# ---------------------------------------------------------------- wait


def primary_deployment(service: Answer) -> Answer:
    """Return the service's newest deployment, or {} while ECS shows none."""
    for deployment in service.get("deployments", []):
        if deployment["status"] == "PRIMARY":
            found: Answer = deployment
            return found
    return {}


def has_given_up(service: Answer) -> bool:
    """Return whether the circuit breaker has ended the deployment: no task is started any more."""
    return primary_deployment(service).get("rolloutState") == "FAILED"


def wait_until_running(account: Account, task: Answer) -> None:
    """Wait until the bot runs by that task definition, and print the state meanwhile.

    Raises DeployError if it does not in the end, with ECS's reasons and the end of the bot's log.
    """
    clock = account.clock
    start = clock.monotonic()
    next_report = start
    while True:
        service = find_service(account)
        now = clock.monotonic()
        if service is not None:
            state = primary_deployment(service).get("rolloutState")
            if state == "COMPLETED" and service["runningCount"] == 1:
                if is_subset(task, find_task_definition(account, service["taskDefinition"])):
                    return
                # For a moment, ECS may show the service as it was.
                if now - start >= LAG_SECONDS:
                    state = "was rolled back to what ran before"
                    raise DeployError(explain_failure(account, service, state))
            if state == "FAILED":
                raise DeployError(explain_failure(account, service, "does not start"))
        if now - start >= START_SECONDS:
            raise DeployError(explain_failure(account, service or {}, "does not run yet"))
        if now >= next_report:
            seconds = int(now - start)
            say(f"{account.bot_service}: starting, {seconds // 60}:{seconds % 60:02}")
            next_report = now + REPORT_SECONDS
        clock.sleep(POLL_SECONDS)


def explain_failure(account: Account, service: Answer, state: str) -> str:
    """Return ECS's reasons, the end of the bot's log, and what to do."""
    reasons = []
    if reason := primary_deployment(service).get("rolloutStateReason"):
        reasons.append(reason)
    reasons += [event["message"] for event in service.get("events", [])[:2]]
    log_lines: list[str] = []
    if stopped := find_last_stop(account):
        reasons.append(describe_stop(stopped))
        log_lines = read_task_log(account, stopped, 10)
    lines = [f"The bot {state}.", *reasons]
    if log_lines:
        lines += ["The end of its log:", *log_lines]
    lines.append(find_remedy(" ".join(reasons)) or "Fix that, then run up again.")
    return "\n  ".join(lines)


def count_starts(service: Answer, since: datetime) -> int:
    """Return how many tasks the service has started since then. ECS keeps its last 100 events."""
    recent = [event for event in service["events"] if event["createdAt"] >= since]
    return sum("has started" in event["message"] for event in recent)


def find_last_stop(account: Account) -> Answer | None:
    """Return the task of the service that stopped last. ECS knows it for about an hour."""
    found = find(
        account.ecs.list_tasks,
        cluster=account.bot_service,
        serviceName=account.bot_service,
        desiredStatus="STOPPED",
    )
    arns = (found or {"taskArns": []})["taskArns"]
    if not arns:
        return None
    # DescribeTasks takes no more.
    tasks = account.ecs.describe_tasks(cluster=account.bot_service, tasks=arns[:100])["tasks"]
    stopped = [task for task in tasks if task.get("stoppedAt")]
    return max(stopped, key=stopped_at, default=None)


def stopped_at(task: Answer) -> datetime:
    time: datetime = task["stoppedAt"]
    return time


def describe_stop(task: Answer) -> str:
    """Return why a task stopped, with the exit code and the reason of its container."""
    container = (task.get("containers") or [{}])[0]
    parts = [task.get("stoppedReason") or "stopped"]
    if "exitCode" in container:
        parts.append(f"exit code {container['exitCode']}")
    if reason := container.get("reason"):
        parts.append(reason)
    return ": ".join(parts)


def read_task_log(account: Account, task: Answer, count: int) -> list[str]:
    """Return the last lines that a task has written, or none if it has no log (yet)."""
    identifier = task["taskArn"].rpartition("/")[2]
    found = find(
        account.logs.get_log_events,
        logGroupName=account.bot_log_group,
        logStreamName=f"{CONTAINER}/{CONTAINER}/{identifier}",
        limit=count,
    )
    events = (found or {"events": []})["events"]
    return [event["message"].rstrip() for event in events]


# ---------------------------------------------------------------- bot --check


def run_check(account: Account, network: Network) -> None:
    """Run `bot --check` as a task of its own, and print what it says.

    It asks Telegram, the bucket and both endpoints with the bot's own token, role and network, and
    does not disturb a bot that runs. Raises DeployError if something is wrong.
    """
    say("checking the bot's token, bucket and endpoints from inside its task, about a minute")
    problem = find_problem(account, network)
    if ROLE_UNKNOWN.search(problem):
        say("once more: AWS may not have known the bot's new role yet")
        problem = find_problem(account, network)
    if problem:
        raise DeployError(f"The bot would not work: its check failed.\n  {problem}")


def find_problem(account: Account, network: Network) -> str:
    """Run the check and print what it says. Return what is wrong and what to do, or ""."""
    task = start_check(account, network)
    stopped = wait_until_stopped(account, task)
    lines = find_created(account.clock, lambda: read_check(account, stopped)) or []
    container = (stopped.get("containers") or [{}])[0]
    if container.get("exitCode") == 0:
        say("\n".join(f"{account.bot_service}: {line}" for line in lines))
        return ""

    reason = describe_stop(stopped)
    remedy = find_remedy(" ".join([reason, *lines])) or "Fix that, then run up again."
    return "\n  ".join([reason, *lines, remedy])


def start_check(account: Account, network: Network) -> Answer:
    """Start the task and return its description. Raises DeployError if ECS has no room for it."""
    answer = perform(
        account.clock,
        account.ecs.run_task,
        cluster=account.bot_service,
        taskDefinition=account.bot_service,
        capacityProviderStrategy=CAPACITY,
        networkConfiguration=describe_network(account, network),
        overrides={"containerOverrides": [{"name": CONTAINER, "command": ["--check"]}]},
        startedBy="deploy.py",
        tags=account.lower_case_tag_list,
    )
    if not answer["tasks"]:
        reason = answer["failures"][0].get("reason", "no reason")
        raise DeployError(
            f"ECS could not start the check of the bot: {reason}. "
            f"{find_remedy(reason) or 'Run up again in some minutes.'}"
        )
    task: Answer = answer["tasks"][0]
    return task


def wait_until_stopped(account: Account, task: Answer) -> Answer:
    """Return the description of the task once it has stopped."""
    clock = account.clock
    deadline = clock.monotonic() + STOP_WAIT_SECONDS
    while clock.monotonic() < deadline:
        clock.sleep(POLL_SECONDS)
        # For a moment, ECS may not show the task.
        tasks = account.ecs.describe_tasks(cluster=account.bot_service, tasks=[task["taskArn"]])
        for described in tasks["tasks"]:
            if described["lastStatus"] == "STOPPED":
                found: Answer = described
                return found
    raise DeployError(
        f"The check of the bot has not ended within {STOP_WAIT_SECONDS // 60} minutes. Run up "
        f"again; the log group {account.bot_log_group} may say more."
    )


def read_check(account: Account, task: Answer) -> list[str] | None:
    """Return what the check has printed, or None if its log is not there (yet)."""
    if "exitCode" not in (task.get("containers") or [{}])[0]:
        # It did not start, so it has no log.
        return []
    return read_task_log(account, task, 20) or None


# ---------------------------------------------------------------- remove


def remove_service(account: Account) -> Changes:
    """Yield the end of the bot, if `up` started it."""
    service = find_service(account)
    if service is None or not account.is_ours(service.get("tags")):
        return
    yield Change(f"stop the bot, the service {account.bot_service}", lambda: stop(account))


def stop(account: Account) -> None:
    """Delete the service and wait until its task has stopped."""
    clock = account.clock
    delete_if_present(
        clock,
        account.ecs.delete_service,
        cluster=account.bot_service,
        service=account.bot_service,
        force=True,
    )
    deadline = clock.monotonic() + STOP_WAIT_SECONDS
    while find_service(account) is not None:
        if clock.monotonic() >= deadline:
            raise DeployError(
                f"The service {account.bot_service} is still there. Run the same command again."
            )
        clock.sleep(POLL_SECONDS)


def remove_cluster(account: Account) -> Changes:
    """Yield the deletion of the cluster, if `up` created it."""
    cluster = find_cluster(account)
    if cluster is None or not account.is_ours(cluster.get("tags")):
        return
    name = account.bot_service
    yield Change(
        f"delete the cluster {name}",
        lambda: delete_if_present(account.clock, account.ecs.delete_cluster, cluster=name),
    )


def remove_task_definitions(account: Account) -> Changes:
    """Yield the deletion of all task definitions of the bot, if `up` registered them."""
    arns = [*list_task_definitions(account, "ACTIVE"), *list_task_definitions(account, "INACTIVE")]
    ours = [arn for arn in arns if is_our_definition(account, arn)]
    if ours:
        yield Change(
            f"delete the task definitions {account.bot_service}",
            lambda: delete_task_definitions(account, ours),
        )


def list_task_definitions(account: Account, status: str) -> list[str]:
    pages = account.ecs.get_paginator("list_task_definitions").paginate(
        familyPrefix=account.bot_service, status=status
    )
    family = f":task-definition/{account.bot_service}:"
    return [arn for page in pages for arn in page["taskDefinitionArns"] if family in arn]


def is_our_definition(account: Account, arn: str) -> bool:
    found = find(account.ecs.describe_task_definition, taskDefinition=arn, include=["TAGS"])
    return found is not None and account.is_ours(found.get("tags"))


def delete_task_definitions(account: Account, arns: Iterable[str]) -> None:
    """Deregister the task definitions, then delete them, as ECS asks for that order."""
    ecs = account.ecs
    names = list(arns)
    for name in names:
        delete_if_present(account.clock, ecs.deregister_task_definition, taskDefinition=name)
    for start in range(0, len(names), DELETED_DEFINITIONS_LIMIT):
        some = names[start : start + DELETED_DEFINITIONS_LIMIT]
        delete_if_present(account.clock, ecs.delete_task_definitions, taskDefinitions=some)
