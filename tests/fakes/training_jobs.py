"""SageMaker's training jobs, and what our image does in one: moto's are completed at once.

A job takes its time: each description of it is a step on its way through the secondary statuses.
While it trains it writes progress.json and a checkpoint, then the painter and model.tar.gz.
CreateTrainingJob refuses what SageMaker refuses, in SageMaker's words.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from typing import Any, Protocol

import boto3
from moto.core.responses import ActionResult
from moto.iam.models import iam_backends
from moto.s3.models import s3_backends
from moto.sagemaker.exceptions import ResourceInUseException, SagemakerClientError, ValidationError
from moto.sagemaker.models import SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse

Json = Any  # whatever moto and boto3 take and return

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
# How many times a job is described before it goes on to the next status
DESCRIPTIONS_PER_STATUS = 2
DESCRIPTIONS_OF_TRAINING = 8
STEPS = 400
STOP_STATUSES = ("MaxRuntimeExceeded", "MaxWaitTimeExceeded")
# What the job is said to have taken. Spot's discount is told as less billed time.
TRAINING_SECONDS = 1500
SPOT_DISCOUNT = 0.7
MESSAGES = {
    "Starting": "Launching requested ML instances",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Interrupted": "Spot capacity was interrupted",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopping": "Stopping the training job",
    "Stopped": "Training job stopped",
}


class Storage(Protocol):
    def read(self, url: str) -> bytes: ...

    def write(self, url: str, data: bytes) -> None: ...


@dataclass
class Behaviour:
    """What a test may set."""

    # By a quota's name, such as "ml.g4dn.xlarge for spot training job usage"; others have room
    quotas: dict[str, int] = field(default_factory=dict)
    # Why every job will fail, and what its log has then
    failure_reason: str = ""
    log: list[str] = field(default_factory=list)
    # How often AWS takes the Spot instance back
    interruptions: int = 0
    # With which of STOP_STATUSES SageMaker stops every job; "" for none
    stop_status: str = ""
    # A completed job leaves no painter
    loses_painter: bool = False


@dataclass
class TrainingJob:
    """One job. moto reads `arn` and `tags`."""

    name: str
    arn: str
    tags: list[dict[str, str]]
    # The arguments of CreateTrainingJob, without name and tags
    arguments: Json
    # The secondary statuses that are still to come
    to_come: list[str]
    failure_reason: str = ""
    status: str = "InProgress"
    secondary: str = "Starting"
    descriptions_left: int = DESCRIPTIONS_PER_STATUS
    step: int = 0
    created: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    ended: datetime | None = None
    transitions: list[Json] = field(default_factory=list)


behaviour = Behaviour()


def clear() -> None:
    """Forget what a test has set. The jobs themselves are in moto's backend."""
    global behaviour
    behaviour = Behaviour()


# ---------------------------------------------------------------- create


class LimitExceededError(SagemakerClientError):
    code = "ResourceLimitExceeded"


@cache
def instance_types() -> list[str]:
    shape = boto3.client("sagemaker").meta.service_model.shape_for("TrainingInstanceType")
    types: list[str] = shape.enum
    return types


def check(backend: SageMakerModelBackend, asked: Json) -> None:
    """Raise the error that SageMaker raises for these arguments."""
    name = asked["TrainingJobName"]
    pattern = "[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
    if not re.fullmatch(pattern, name):
        raise ValidationError(
            f"1 validation error detected: Value '{name}' at 'trainingJobName' failed to satisfy "
            f"constraint: Member must satisfy regular expression pattern: {pattern}"
        )
    resources = asked["ResourceConfig"]
    if resources["InstanceType"] not in instance_types():
        raise ValidationError(
            f"1 validation error detected: Value '{resources['InstanceType']}' at "
            "'resourceConfig.instanceType' failed to satisfy constraint: Member must satisfy enum "
            "value set"
        )
    check_limits(asked)
    check_role(backend, asked["RoleArn"])
    if name in backend.training_jobs:
        raise ResourceInUseException(
            "Training job names must be unique within an AWS account and region, and a training "
            f"job with this name already exists ({backend.training_jobs[name].arn})"
        )
    check_quota(backend, asked)


def check_limits(asked: Json) -> None:
    condition = asked["StoppingCondition"]
    longest_wait = condition.get("MaxWaitTimeInSeconds")
    if not asked.get("EnableManagedSpotTraining"):
        if longest_wait is not None:
            raise ValidationError(
                "MaxWaitTimeInSeconds is only supported when EnableManagedSpotTraining is set to "
                "true"
            )
        return
    if longest_wait is None or longest_wait < condition["MaxRuntimeInSeconds"]:
        raise ValidationError(
            f"Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to "
            f"MaxRuntimeInSeconds: {longest_wait}"
        )


def check_role(backend: SageMakerModelBackend, arn: str) -> None:
    roles = iam_backends[backend.account_id]["aws"].roles.values()
    for role in roles:
        if role.arn == arn and "sagemaker.amazonaws.com" in str(role.assume_role_policy_document):
            return
    raise ValidationError(
        f"Could not assume role {arn}. Please ensure that the role exists and allows principal "
        "'sagemaker.amazonaws.com' to assume the role."
    )


def check_quota(backend: SageMakerModelBackend, asked: Json) -> None:
    kind = "training job usage"
    if asked.get("EnableManagedSpotTraining"):
        kind = "spot training job usage"
    quota = f"{asked['ResourceConfig']['InstanceType']} for {kind}"
    limit = behaviour.quotas.get(quota, 100)
    running = [job for job in all_jobs(backend) if job.status == "InProgress"]
    if len(running) >= limit:
        raise LimitExceededError(
            f"The account-level service limit '{quota}' is {limit} Instances, with current "
            f"utilization of {len(running)} Instances and a request delta of 1 Instances. Please "
            "use AWS Service Quotas to request an increase for this quota."
        )


def create_training_job(self: SageMakerResponse) -> ActionResult:
    backend = self.sagemaker_backend
    asked = json.loads(self.body)
    check(backend, asked)
    name = asked.pop("TrainingJobName")
    job = TrainingJob(
        name=name,
        arn=f"arn:aws:sagemaker:{backend.region_name}:{backend.account_id}:training-job/{name}",
        tags=asked.pop("Tags", []),
        arguments=asked,
        to_come=plan(asked),
        failure_reason=find_failure(backend, asked),
    )
    enter(job, "Starting")
    backend.training_jobs[name] = job  # type: ignore[assignment]
    return ActionResult({"TrainingJobArn": job.arn})


def plan(asked: Json) -> list[str]:
    """Return the secondary statuses that follow "Starting"."""
    if behaviour.stop_status:
        return [behaviour.stop_status]
    statuses = ["Downloading", "Training"]
    if asked.get("EnableManagedSpotTraining"):
        statuses += ["Interrupted", "Starting", "Downloading", "Training"] * behaviour.interruptions
    return [*statuses, "Uploading", "Completed"]


def find_failure(backend: SageMakerModelBackend, asked: Json) -> str:
    """Return why the job will fail; "" if it will not."""
    for channel in asked["InputDataConfig"]:
        url = channel["DataSource"]["S3DataSource"]["S3Uri"]
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        keys = s3_backends[backend.account_id]["aws"].buckets[bucket].keys
        if not any(key.startswith(prefix) for key in keys):
            return (
                "ClientError: Data download failed:Failed to download data. No S3 objects found "
                f"under S3 URL {url}"
            )
    return behaviour.failure_reason


# ---------------------------------------------------------------- the way of a job


def enter(job: TrainingJob, secondary: str) -> None:
    now = datetime.now(timezone.utc)
    if job.transitions:
        job.transitions[-1]["EndTime"] = now
    message = MESSAGES.get(secondary, secondary)
    job.transitions.append({"Status": secondary, "StartTime": now, "StatusMessage": message})
    job.secondary = secondary
    job.descriptions_left = DESCRIPTIONS_PER_STATUS
    if secondary == "Training":
        job.descriptions_left = DESCRIPTIONS_OF_TRAINING


def advance(job: TrainingJob, storage: Storage) -> None:
    """Take the job one step on its way, as time does."""
    if job.ended:
        return
    if job.secondary == "Training":
        work(job, storage)
    job.descriptions_left -= 1
    if job.descriptions_left > 0:
        return
    if job.secondary == "Stopping":
        end(job, "Stopped", "Stopped")
        return

    has_run = job.secondary == "Training"
    if has_run and job.failure_reason:
        end(job, "Failed", "Failed")
        return
    following = job.to_come.pop(0)
    if following == "Completed":
        end(job, "Completed", "Completed")
    elif following in STOP_STATUSES:
        end(job, "Stopped", following)
    else:
        enter(job, following)
    if following == "Training" and behaviour.log:
        write_log(job)
    if following == "Uploading":
        finish(job, storage)


def end(job: TrainingJob, status: str, secondary: str) -> None:
    enter(job, secondary)
    job.status = status
    job.ended = datetime.now(timezone.utc)


def work(job: TrainingJob, storage: Storage) -> None:
    """Do what the trainer does in the meantime."""
    given = job.arguments["HyperParameters"]
    job.step = min(STEPS, job.step + STEPS // DESCRIPTIONS_OF_TRAINING)
    progress = {
        "step": job.step,
        "steps": STEPS,
        "done": job.step / STEPS,
        "loss": 100 / job.step,
        "seconds": 60.0,
        "seconds_left": 3.0 * (STEPS - job.step),
    }
    storage.write(given["progress_url"], json.dumps(progress).encode())
    checkpoint = job.arguments["CheckpointConfig"]["S3Uri"]
    storage.write(f"{checkpoint}.training-{given['name']}/state.pth", b"state")


def finish(job: TrainingJob, storage: Storage) -> None:
    given = job.arguments["HyperParameters"]
    if not behaviour.loses_painter:
        storage.write(f"{given['models_url']}style_{given['name']}.pth", b"PK\x03\x04 painter")
    storage.write(artifacts(job), b"tar")


def artifacts(job: TrainingJob) -> str:
    folder = job.arguments["OutputDataConfig"]["S3OutputPath"].rstrip("/")
    return f"{folder}/{job.name}/output/model.tar.gz"


def write_log(job: TrainingJob) -> None:
    """Write the log that the test wants, as an instance does."""
    logs = boto3.client("logs")
    stream = f"{job.name}/algo-1-{len(job.transitions)}"
    if LOG_GROUP not in [
        group["logGroupName"] for group in logs.describe_log_groups()["logGroups"]
    ]:
        logs.create_log_group(logGroupName=LOG_GROUP)
    logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName=stream)
    # In milliseconds
    now = int(datetime.now(timezone.utc).timestamp() * 1000)
    events = [{"timestamp": now + i, "message": line} for i, line in enumerate(behaviour.log)]
    logs.put_log_events(logGroupName=LOG_GROUP, logStreamName=stream, logEvents=events)


# ---------------------------------------------------------------- describe, list, stop


def all_jobs(backend: SageMakerModelBackend) -> list[TrainingJob]:
    jobs: list[TrainingJob] = list(backend.training_jobs.values())  # type: ignore[arg-type]
    return jobs


def find(backend: SageMakerModelBackend, name: str) -> TrainingJob:
    if name not in backend.training_jobs:
        raise ValidationError("Requested resource not found.")
    job: TrainingJob = backend.training_jobs[name]  # type: ignore[assignment]
    return job


def describe(job: TrainingJob) -> Json:
    answer = {
        **job.arguments,
        "TrainingJobName": job.name,
        "TrainingJobArn": job.arn,
        "TrainingJobStatus": job.status,
        "SecondaryStatus": job.secondary,
        "SecondaryStatusTransitions": job.transitions,
        "ModelArtifacts": {"S3ModelArtifacts": artifacts(job)},
        "CreationTime": job.created,
        "LastModifiedTime": job.ended or job.created,
    }
    if job.status == "Failed":
        answer["FailureReason"] = job.failure_reason
    if job.ended:
        answer["TrainingEndTime"] = job.ended
    if job.ended and job.step:
        answer["TrainingStartTime"] = job.created
        answer["TrainingTimeInSeconds"] = TRAINING_SECONDS
        answer["BillableTimeInSeconds"] = TRAINING_SECONDS
        if job.arguments.get("EnableManagedSpotTraining"):
            answer["BillableTimeInSeconds"] = round(TRAINING_SECONDS * (1 - SPOT_DISCOUNT))
    return answer


def list_training_jobs(self: SageMakerResponse) -> ActionResult:
    asked = json.loads(self.body)
    summaries = []
    for job in all_jobs(self.sagemaker_backend):
        if asked.get("NameContains", "") not in job.name:
            continue
        if asked.get("StatusEquals", job.status) != job.status:
            continue
        names = ("TrainingJobName", "TrainingJobArn", "TrainingJobStatus", "CreationTime")
        described = describe(job)
        summaries.append({name: described[name] for name in names})
    return ActionResult({"TrainingJobSummaries": summaries})


def stop_training_job(self: SageMakerResponse) -> ActionResult:
    job = find(self.sagemaker_backend, json.loads(self.body)["TrainingJobName"])
    if job.status != "InProgress":
        raise ValidationError(
            f"The request was rejected because the training job is in status {job.status}."
        )
    job.status = "Stopping"
    enter(job, "Stopping")
    return ActionResult({})
