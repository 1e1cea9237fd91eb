"""ECS, in the place of moto's, whose services run nothing and whose tasks never end.

A service starts one task at a time and shows each step to the next call that describes it, as time
passes while somebody looks. It stops the old task before it starts the new one, and its circuit
breaker gives up after some tasks that do not start. A task with the command `--check` ends by
itself. The calls refuse what ECS refuses, in its words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

import boto3
from moto.core.exceptions import ServiceException
from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends
from moto.ssm.models import ssm_backends

Json = Any  # whatever moto and boto3 take and return

ACCOUNT = "123456789012"
REGION = "eu-west-1"
ARN = f"arn:aws:ecs:{REGION}:{ACCOUNT}"
SERVICE_LINKED_ROLE = "AWSServiceRoleForECS"
CIRCUIT_BREAKER_TASKS = 3
CHECK_LINES = ["TELEGRAM_TOKEN: ok", "BUCKET: ok", "NST_ENDPOINT: ok", "CYCLEGAN_ENDPOINT: ok"]


class EcsError(ServiceException):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)


@dataclass
class Behaviour:
    """What a test may set."""

    # Why no task of a service starts
    start_failure: str = ""
    # What `--check` prints, and its exit code
    check_lines: list[str] = field(default_factory=lambda: list(CHECK_LINES))
    check_exit_code: int = 0
    # Why the task of the check does not start
    check_failure: str = ""
    # How many checks are started before AWS knows the bot's new roles everywhere
    checks_without_role: int = 0
    # How many times a task that stops is described before it has stopped
    descriptions_until_stopped: int = 2


@dataclass
class State:
    """Everything in the account's ECS. The names are those of the API."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    clusters: dict[str, Json] = field(default_factory=dict)
    # By family, the oldest first; a deleted one stays as None
    definitions: dict[str, list[Json]] = field(default_factory=dict)
    services: dict[str, Json] = field(default_factory=dict)
    tasks: list[Json] = field(default_factory=list)
    # How many tasks of the bot ran at a time, at most
    most_running: int = 0


state = State()


def clear() -> None:
    global state
    state = State()


def now() -> datetime:
    return datetime.now(timezone.utc)


def refuse(message: str, code: str = "InvalidParameterException") -> EcsError:
    return EcsError(code, message)


# ---------------------------------------------------------------- clusters


def find_cluster(name: str) -> Json:
    cluster = state.clusters.get(name)
    if cluster is None or cluster["status"] == "INACTIVE":
        raise refuse("Cluster not found.", "ClusterNotFoundException")
    return cluster


def require_linked_role() -> None:
    if SERVICE_LINKED_ROLE not in [role.name for role in iam_backends[ACCOUNT]["aws"].get_roles()]:
        raise refuse(
            "Unable to assume the service linked role. Please verify that the ECS service linked "
            "role exists."
        )


def create_cluster(asked: Json) -> Json:
    require_linked_role()
    name = asked["clusterName"]
    existing = state.clusters.get(name)
    if existing is None or existing["status"] == "INACTIVE":
        state.clusters[name] = {
            "clusterArn": f"{ARN}:cluster/{name}",
            "clusterName": name,
            "status": "ACTIVE",
            "capacityProviders": asked.get("capacityProviders", []),
            "tags": asked.get("tags", []),
        }
    return {"cluster": state.clusters[name]}


def describe_clusters(asked: Json) -> Json:
    found = [state.clusters[name] for name in asked["clusters"] if name in state.clusters]
    missing = [name for name in asked["clusters"] if name not in state.clusters]
    failures = [{"arn": f"{ARN}:cluster/{name}", "reason": "MISSING"} for name in missing]
    return {"clusters": found, "failures": failures}


def put_cluster_capacity_providers(asked: Json) -> Json:
    cluster = find_cluster(asked["cluster"])
    cluster["capacityProviders"] = asked["capacityProviders"]
    return {"cluster": cluster}


def delete_cluster(asked: Json) -> Json:
    cluster = find_cluster(asked["cluster"])
    if any(service["status"] != "INACTIVE" for service in state.services.values()):
        raise refuse("The Cluster contains services.", "ClusterContainsServicesException")
    if any(task["lastStatus"] != "STOPPED" for task in state.tasks):
        advance_tasks()
        raise refuse("The Cluster contains tasks.", "ClusterContainsTasksException")
    cluster["status"] = "INACTIVE"
    return {"cluster": cluster}


# ---------------------------------------------------------------- task definitions


def register_task_definition(asked: Json) -> Json:
    if "FARGATE" in asked.get("requiresCompatibilities", []):
        if asked.get("networkMode") != "awsvpc":
            raise refuse("Fargate only supports network mode 'awsvpc'.", "ClientException")
        if (asked.get("cpu"), asked.get("memory")) != ("256", "512"):
            raise refuse("No Fargate configuration exists for given values.", "ClientException")
        if not asked.get("executionRoleArn"):
            raise refuse(
                "Fargate requires task definition to have execution role ARN to support log driver "
                "awslogs.",
                "ClientException",
            )
    family = asked["family"]
    revisions = state.definitions.setdefault(family, [])
    definition = {key: value for key, value in asked.items() if key != "tags"}
    for container in definition["containerDefinitions"]:
        # What ECS adds
        container |= {"cpu": 0, "portMappings": [], "mountPoints": [], "volumesFrom": []}
    definition |= {
        "taskDefinitionArn": f"{ARN}:task-definition/{family}:{len(revisions) + 1}",
        "revision": len(revisions) + 1,
        "status": "ACTIVE",
        "compatibilities": ["EC2", "FARGATE"],
    }
    definition["tags"] = asked.get("tags", [])
    revisions.append(definition)
    return {"taskDefinition": definition, "tags": definition["tags"]}


def find_definition(name: str) -> Json:
    """Return a task definition by its ARN or, by the family's name, the newest that is active."""
    family, _, revision = name.rpartition("/")[2].partition(":")
    found = [item for item in state.definitions.get(family, []) if item is not None]
    if revision:
        found = [item for item in found if item["revision"] == int(revision)]
    else:
        found = [item for item in found if item["status"] == "ACTIVE"]
    if not found:
        raise refuse("Unable to describe task definition.", "ClientException")
    return found[-1]


def describe_task_definition(asked: Json) -> Json:
    definition = find_definition(asked["taskDefinition"])
    return {"taskDefinition": definition, "tags": definition["tags"]}


def list_task_definitions(asked: Json) -> Json:
    found = state.definitions.get(asked["familyPrefix"], [])
    arns = [
        item["taskDefinitionArn"] for item in found if item and item["status"] == asked["status"]
    ]
    return {"taskDefinitionArns": arns}


def deregister_task_definition(asked: Json) -> Json:
    definition = find_definition(asked["taskDefinition"])
    definition["status"] = "INACTIVE"
    return {"taskDefinition": definition}


def delete_task_definitions(asked: Json) -> Json:
    names = asked["taskDefinitions"]
    if len(names) > 10:
        raise refuse("Size of TaskDefinition references list cannot exceed 10")
    deleted = []
    failures = []
    for name in names:
        definition = find_definition(name)
        if definition["status"] == "ACTIVE":
            failures.append({"arn": name, "reason": "The specified task definition is ACTIVE."})
            continue
        state.definitions[definition["family"]][definition["revision"] - 1] = None
        deleted.append({**definition, "status": "DELETE_IN_PROGRESS"})
    return {"taskDefinitions": deleted, "failures": failures}


# ---------------------------------------------------------------- tasks


def require_room(asked: Json) -> None:
    """Refuse what a task cannot start with."""
    cluster = find_cluster(asked["cluster"])
    for provider in asked["capacityProviderStrategy"]:
        if provider["capacityProvider"] not in cluster["capacityProviders"]:
            raise refuse("The specified capacity provider was not found.")
    network = asked["networkConfiguration"]["awsvpcConfiguration"]
    backend = ec2_backends[ACCOUNT][REGION]
    if len(network["subnets"]) > 16:
        raise refuse("subnets can have at most 16 items.")
    backend.describe_subnets(subnet_ids=network["subnets"])
    backend.describe_security_groups(group_ids=network["securityGroups"])


def start_task(definition: Json, group: str, tags: Json) -> Json:
    task = {
        "taskArn": f"{ARN}:task/stylebot-bot/{uuid4().hex}",
        "taskDefinitionArn": definition["taskDefinitionArn"],
        "clusterArn": f"{ARN}:cluster/stylebot-bot",
        "group": group,
        "desiredStatus": "RUNNING",
        "lastStatus": "PROVISIONING",
        "containers": [{"name": definition["containerDefinitions"][0]["name"]}],
        "tags": tags,
    }
    task["descriptions_left"] = 1
    state.tasks.append(task)
    return task


def find_problem(task: Json, failure: str) -> str:
    """Return why the task cannot start, or ""."""
    definition = find_definition(task["taskDefinitionArn"])
    secret = definition["containerDefinitions"][0]["secrets"][0]["valueFrom"]
    name = secret.partition(":parameter")[2]
    if ssm_backends[ACCOUNT][REGION].get_parameter(name) is None:
        return "ResourceInitializationError: unable to pull secrets: invalid ssm parameters"
    return failure


def advance_tasks() -> None:
    """Let each task go a step further."""
    for task in state.tasks:
        task["descriptions_left"] -= 1
        if task["descriptions_left"] > 0:
            continue
        if task["lastStatus"] == "DEPROVISIONING":
            task["lastStatus"] = "STOPPED"
            task["stoppedAt"] = now()
        elif task["lastStatus"] == "PROVISIONING":
            is_check = task["group"].startswith("family:")
            behaviour = state.behaviour
            failure = behaviour.check_failure if is_check else behaviour.start_failure
            if is_check and behaviour.checks_without_role > 0:
                behaviour.checks_without_role -= 1
                failure = "ResourceInitializationError: unable to pull secrets or registry auth"
            if problem := find_problem(task, failure):
                stop_task(task, problem)
            elif is_check:
                end_check(task)
            else:
                task["lastStatus"] = "RUNNING"
    state.most_running = max(state.most_running, len(running_bots()))


def running_bots() -> list[Json]:
    """Return the tasks of services that run."""
    return [
        task
        for task in state.tasks
        if task["group"].startswith("service:") and task["lastStatus"] == "RUNNING"
    ]


def stop_task(task: Json, reason: str, exit_code: int | None = None) -> None:
    task["desiredStatus"] = "STOPPED"
    task["lastStatus"] = "DEPROVISIONING"
    task["stoppedReason"] = reason
    task["descriptions_left"] = state.behaviour.descriptions_until_stopped
    if exit_code is not None:
        task["containers"][0]["exitCode"] = exit_code


def end_check(task: Json) -> None:
    definition = find_definition(task["taskDefinitionArn"])
    options = definition["containerDefinitions"][0]["logConfiguration"]["options"]
    stream = f"{options['awslogs-stream-prefix']}/bot/{task['taskArn'].rpartition('/')[2]}"
    logs = boto3.client("logs", region_name=REGION)
    logs.create_log_stream(logGroupName=options["awslogs-group"], logStreamName=stream)
    time = int(now().timestamp() * 1000)
    events = [{"timestamp": time, "message": line} for line in state.behaviour.check_lines]
    logs.put_log_events(
        logGroupName=options["awslogs-group"], logStreamName=stream, logEvents=events
    )
    stop_task(task, "Essential container in task exited", state.behaviour.check_exit_code)


def run_task(asked: Json) -> Json:
    require_room(asked)
    definition = find_definition(asked["taskDefinition"])
    assert asked["overrides"]["containerOverrides"][0]["command"] == ["--check"]
    task = start_task(definition, f"family:{definition['family']}", asked.get("tags", []))
    return {"tasks": [without_count(task)], "failures": []}


def describe_tasks(asked: Json) -> Json:
    find_cluster(asked["cluster"])
    advance_tasks()
    found = [task for task in state.tasks if task["taskArn"] in asked["tasks"]]
    return {"tasks": [without_count(task) for task in found], "failures": []}


def list_tasks(asked: Json) -> Json:
    find_cluster(asked["cluster"])
    service = find_service(asked["serviceName"])
    status = asked.get("desiredStatus", "RUNNING")
    found = [task for task in tasks_of(service) if task["desiredStatus"] == status]
    return {"taskArns": [task["taskArn"] for task in found]}


def without_count(task: Json) -> Json:
    return {key: value for key, value in task.items() if key != "descriptions_left"}


# ---------------------------------------------------------------- services


def find_service(name: str) -> Json:
    service = state.services.get(name)
    if service is None or service["status"] == "INACTIVE":
        raise refuse("Service not found.", "ServiceNotFoundException")
    return service


def check_service(asked: Json) -> None:
    require_linked_role()
    require_room(asked)
    largest = asked["deploymentConfiguration"]["maximumPercent"]
    if asked.get("availabilityZoneRebalancing", "ENABLED") == "ENABLED" and largest <= 100:
        raise refuse("maximumPercent must be over 100 with availability zone rebalancing.")


def create_service(asked: Json) -> Json:
    name = asked["serviceName"]
    existing = state.services.get(name)
    if existing and existing["status"] == "DRAINING":
        advance_service(existing)
        raise refuse("Unable to Start a service that is still Draining.")
    if existing and existing["status"] == "ACTIVE":
        raise refuse("Creation of service was not idempotent.")
    check_service(asked)
    service = {
        "serviceName": name,
        "serviceArn": f"{ARN}:service/{name}/{name}",
        "status": "ACTIVE",
        "runningCount": 0,
        "pendingCount": 0,
        "events": [],
        "deployments": [],
        "tags": asked.get("tags", []),
    }
    state.services[name] = service
    deploy(service, asked)
    return {"service": service}


def update_service(asked: Json) -> Json:
    service = find_service(asked["service"])
    check_service(asked)
    deploy(service, asked)
    return {"service": service}


SERVICE_MEMBERS = (
    "desiredCount",
    "capacityProviderStrategy",
    "deploymentConfiguration",
    "networkConfiguration",
    "availabilityZoneRebalancing",
)


def deploy(service: Json, asked: Json) -> None:
    """Begin a deployment of what is asked for."""
    definition = find_definition(asked["taskDefinition"])
    service |= {name: asked[name] for name in SERVICE_MEMBERS}
    # What ECS adds
    service["deploymentConfiguration"]["strategy"] = "ROLLING"
    previous = service.get("taskDefinition")
    arn = definition["taskDefinitionArn"]
    service["taskDefinition"] = arn
    deployment = {
        "id": f"ecs-svc/{uuid4().hex}",
        "status": "PRIMARY",
        "taskDefinition": arn,
        "rolloutState": "IN_PROGRESS",
        # Of earlier deployments of the same task definition
        "failedTasks": count_failed(service, arn),
        "previous": previous,
    }
    service["deployments"] = [deployment]


def tasks_of(service: Json) -> Iterator[Json]:
    for task in state.tasks:
        if task["group"] == f"service:{service['serviceName']}":
            yield task


def advance_service(service: Json) -> None:
    """Let the service go a step further: it stops what is old before it starts what is new."""
    advance_tasks()
    present = [task for task in tasks_of(service) if task["lastStatus"] != "STOPPED"]
    if service["status"] == "DRAINING":
        for task in present:
            if task["desiredStatus"] == "RUNNING":
                stop_task(task, "Service deleted")
        if not present:
            service["status"] = "INACTIVE"
        return

    [deployment] = service["deployments"]
    definition = service["taskDefinition"]
    for task in present:
        if task["taskDefinitionArn"] != definition and task["desiredStatus"] == "RUNNING":
            stop_task(task, "Scaling activity initiated by deployment", 0)
    running = [task for task in present if task["lastStatus"] == "RUNNING"]
    service["runningCount"] = len(running)
    if running and running[0]["taskDefinitionArn"] == definition:
        deployment["rolloutState"] = "COMPLETED"
        return
    if present or deployment["rolloutState"] == "FAILED" or not service["desiredCount"]:
        return
    if count_failed(service, definition) - deployment["failedTasks"] >= CIRCUIT_BREAKER_TASKS:
        give_up(service, deployment)
        return
    group = f"service:{service['serviceName']}"
    start_task(find_definition(definition), group, service["tags"])
    message = f"(service {service['serviceName']}) has started 1 tasks."
    service["events"].insert(0, {"id": uuid4().hex, "createdAt": now(), "message": message})


def count_failed(service: Json, definition: str) -> int:
    """Return how many tasks of a task definition have stopped before they ran."""
    count = 0
    for task in tasks_of(service):
        has_ended = task["lastStatus"] == "STOPPED" and "exitCode" not in task["containers"][0]
        if has_ended and task["taskDefinitionArn"] == definition:
            count += 1
    return count


def give_up(service: Json, deployment: Json) -> None:
    """End the deployment as the circuit breaker does: with what ran before, if there is any."""
    message = "tasks failed to start."
    service["events"].insert(0, {"id": uuid4().hex, "createdAt": now(), "message": message})
    deployment["rolloutState"] = "FAILED"
    deployment["rolloutStateReason"] = "ECS deployment circuit breaker: tasks failed to start."
    if deployment["previous"] and deployment["previous"] != deployment["taskDefinition"]:
        state.behaviour.start_failure = ""
        service["taskDefinition"] = deployment["previous"]
        deployment |= {
            "taskDefinition": deployment["previous"],
            "rolloutState": "IN_PROGRESS",
            "rolloutStateReason": "ECS deployment circuit breaker: rolling back.",
            "previous": None,
            "failedTasks": count_failed(service, deployment["previous"]),
        }


def describe_services(asked: Json) -> Json:
    find_cluster(asked["cluster"])
    found = []
    for name in asked["services"]:
        if name in state.services:
            advance_service(state.services[name])
            found.append(state.services[name])
    return {"services": [without_previous(service) for service in found], "failures": []}


def without_previous(service: Json) -> Json:
    deployments = []
    for deployment in service["deployments"]:
        deployments.append({key: item for key, item in deployment.items() if key != "previous"})
    return {**service, "deployments": deployments}


def delete_service(asked: Json) -> Json:
    service = find_service(asked["service"])
    if service["desiredCount"] and not asked.get("force"):
        raise refuse("The service cannot be stopped while it is scaled above 0.")
    service["status"] = "DRAINING"
    return {"service": without_previous(service)}


# ---------------------------------------------------------------- moto


OPERATIONS = (
    create_cluster,
    describe_clusters,
    put_cluster_capacity_providers,
    delete_cluster,
    register_task_definition,
    describe_task_definition,
    list_task_definitions,
    deregister_task_definition,
    delete_task_definitions,
    run_task,
    describe_tasks,
    list_tasks,
    create_service,
    update_service,
    describe_services,
    delete_service,
)


def snapshot() -> dict[str, Json]:
    """Return what there is, as a person would compare it: without what is deleted or has ended."""
    found: dict[str, Json] = {}
    for cluster in state.clusters.values():
        if cluster["status"] == "ACTIVE":
            found[f"cluster {cluster['clusterName']}"] = cluster
    for service in state.services.values():
        if service["status"] != "INACTIVE":
            definition = find_definition(service["taskDefinition"])
            contents = {
                key: value
                for key, value in definition.items()
                if key not in ("taskDefinitionArn", "revision")
            }
            kept = {name: service[name] for name in (*SERVICE_MEMBERS, "status", "tags")}
            found[f"service {service['serviceName']}"] = [kept, contents]
    for family, definitions in state.definitions.items():
        if any(definitions):
            found[f"task definitions {family}"] = "present"
    return found
