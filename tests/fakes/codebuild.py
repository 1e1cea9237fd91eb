"""CodeBuild, in the place of moto's, whose builds succeed at once and do nothing.

A build goes a step further each time that somebody looks: it writes a line of its log, and in the
end pushes the images. The calls refuse what CodeBuild refuses, in its words.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

import boto3
from moto.core.exceptions import ServiceException
from moto.iam.models import iam_backends

Json = Any  # whatever moto and boto3 take and return

ACCOUNT = "123456789012"
LINES = ["Building stylebot-nst", "Pushing stylebot-nst", "Pushing stylebot-bot"]


class CodeBuildError(ServiceException):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)


@dataclass
class State:
    projects: dict[str, Json] = field(default_factory=dict)
    # The newest last
    builds: list[Json] = field(default_factory=list)
    # The names of the files in the source of the last build, and its variables
    files: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    # What a test may set: why every build fails, and what pushes the images of a tag
    failure: str = ""
    push: Callable[[str], None] = field(default=lambda tag: None)


state = State()


def clear() -> None:
    global state
    state = State()


def create_project(asked: Json) -> Json:
    name = asked["name"]
    if name in state.projects:
        raise CodeBuildError("ResourceAlreadyExistsException", f"Project already exists: {name}")
    role = asked["serviceRole"].rpartition("/")[2]
    if role not in [found.name for found in iam_backends[ACCOUNT]["aws"].get_roles()]:
        message = f"CodeBuild is not authorized to perform: sts:AssumeRole on {role}"
        raise CodeBuildError("InvalidInputException", message)
    state.projects[name] = {**asked, "queuedTimeoutInMinutes": 480}
    return {"project": state.projects[name]}


def update_project(asked: Json) -> Json:
    state.projects[asked["name"]] |= asked
    return {"project": state.projects[asked["name"]]}


def batch_get_projects(asked: Json) -> Json:
    found = [state.projects[name] for name in asked["names"] if name in state.projects]
    return {"projects": found}


def delete_project(asked: Json) -> Json:
    state.projects.pop(asked["name"], None)
    return {}


def start_build(asked: Json) -> Json:
    for build in state.builds:
        if build["token"] == asked["idempotencyToken"]:
            return {"build": shown(build)}
    project = state.projects[asked["projectName"]]
    assert project["environment"]["privilegedMode"], "Docker needs it"
    bucket, _, key = asked["sourceLocationOverride"].partition("/")
    source = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    state.files = zipfile.ZipFile(io.BytesIO(source)).namelist()
    state.variables = {
        item["name"]: item["value"] for item in asked["environmentVariablesOverride"]
    }
    identifier = uuid4().hex
    build = {
        "id": f"{asked['projectName']}:{identifier}",
        "projectName": asked["projectName"],
        "buildStatus": "IN_PROGRESS",
        "environment": {
            **project["environment"],
            "environmentVariables": asked["environmentVariablesOverride"],
        },
        "logs": {"groupName": project["logsConfig"]["cloudWatchLogs"]["groupName"]},
        "phases": [],
        "stream": identifier,
        "token": asked["idempotencyToken"],
        "to_come": list(LINES),
    }
    state.builds.append(build)
    return {"build": shown(build)}


def stop_build(asked: Json) -> Json:
    for build in state.builds:
        if build["id"] == asked["id"]:
            build["buildStatus"] = "STOPPED"
            return {"build": shown(build)}
    raise CodeBuildError("ResourceNotFoundException", f"Build not found: {asked['id']}")


def shown(build: Json) -> Json:
    hidden = ("stream", "token", "to_come")
    return {key: value for key, value in build.items() if key not in hidden}


def list_builds_for_project(asked: Json) -> Json:
    name = asked["projectName"]
    ids = [build["id"] for build in state.builds if build["projectName"] == name]
    return {"ids": ids[::-1]}


def batch_get_builds(asked: Json) -> Json:
    found = [build for build in state.builds if build["id"] in asked["ids"]]
    for build in found:
        advance(build)
    return {"builds": [shown(build) for build in found]}


def advance(build: Json) -> None:
    if build["buildStatus"] != "IN_PROGRESS":
        return
    logs = boto3.client("logs")
    stream = {"logGroupName": build["logs"]["groupName"], "logStreamName": build["stream"]}
    if "streamName" not in build["logs"]:
        logs.create_log_stream(**stream)
        build["logs"]["streamName"] = build["stream"]
        return
    if build["to_come"]:
        time = int(datetime.now(timezone.utc).timestamp() * 1000)
        event = {"timestamp": time, "message": build["to_come"].pop(0) + "\n"}
        logs.put_log_events(**stream, logEvents=[event])
        return
    if state.failure:
        build["buildStatus"] = "FAILED"
        context = {"statusCode": "COMMAND_EXECUTION_ERROR", "message": state.failure}
        build["phases"].append({"phaseType": "BUILD", "contexts": [context]})
        return
    state.push(state.variables["TAG"])
    build["buildStatus"] = "SUCCEEDED"


OPERATIONS = (
    create_project,
    update_project,
    batch_get_projects,
    delete_project,
    start_build,
    stop_build,
    list_builds_for_project,
    batch_get_builds,
)
