"""SageMaker training jobs: their template, and how they are found, started, watched and stopped.

The template, models/training.json in the bucket, holds the arguments of CreateTrainingJob that do
not depend on the painter. `up` writes it; the bot and the command train complete it. It names the
image that the endpoint runs, so that the endpoint can load what was trained.
"""

from __future__ import annotations

import json
import re
from datetime import datetime

from aws.account import Account
from aws.calls import Answer, delete_if_present, find
from aws.changes import Change, Changes
from aws.models import find_sagemaker_tags
from aws.registry import Image
from bot import TRAINING_PREFIX, TRAINING_TEMPLATE_KEY, training_arguments

TEMPLATE_VERSION = 1
DEFAULT_INSTANCE_TYPE = "ml.g4dn.xlarge"
# The longest training that the template allows; the command train sets limits of its own.
TEMPLATE_MINUTES = 60.0
# Beside the training itself: loading, previews, saving, and what is repeated after an interruption
MARGIN_SECONDS = 1800
# How long a job may wait for Spot instances, all its interruptions together
SPOT_WAIT_SECONDS = 6 * 3600
VOLUME_GIGABYTES = 30
# The trainer's log lines are JSON objects.
METRICS = [{"Name": "loss", "Regex": r'"loss": ([0-9.eE+-]+)'}]

# All training jobs of an account share this log group, which SageMaker creates.
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
RUNNING = ("InProgress", "Stopping")
MAX_NAME_LENGTH = 63
STOP_SECONDS = 600
POLL_SECONDS = 15.0


# ---------------------------------------------------------------- the template


def name_prefix(account: Account) -> str:
    """Return what the name of each training job begins with, as the policies want it."""
    return f"{account.prefix}-train-"


def describe_template(account: Account, image: Image, instance_type: str) -> Answer:
    """Return the wanted contents of the template."""
    arguments: Answer = {
        "AlgorithmSpecification": {
            "TrainingImage": image.uri,
            "TrainingInputMode": "File",
            "MetricDefinitions": METRICS,
        },
        "Environment": {"AWS_DEFAULT_REGION": account.region},
        "RoleArn": account.execution_role_arn,
        "ResourceConfig": {
            "InstanceType": instance_type,
            "InstanceCount": 1,
            "VolumeSizeInGB": VOLUME_GIGABYTES,
        },
        "Tags": account.tag_list,
        **describe_limits(TEMPLATE_MINUTES, spot=True),
    }
    return {
        "version": TEMPLATE_VERSION,
        "name_prefix": name_prefix(account),
        "arguments": arguments,
    }


def describe_limits(minutes: float, spot: bool) -> Answer:
    """Return the arguments of CreateTrainingJob that limit a training of so many minutes."""
    longest_run = round(minutes * 60) + MARGIN_SECONDS
    condition = {"MaxRuntimeInSeconds": longest_run}
    if spot:
        # Running and waiting together. SageMaker refuses it for a job without Spot.
        condition["MaxWaitTimeInSeconds"] = longest_run + SPOT_WAIT_SECONDS
    return {"StoppingCondition": condition, "EnableManagedSpotTraining": spot}


def read_template(account: Account) -> Answer | None:
    """Return the template in the bucket; None if there is none that this version understands."""
    found = find(account.s3.get_object, Bucket=account.bucket, Key=TRAINING_TEMPLATE_KEY)
    if found is None:
        return None
    try:
        template: Answer = json.loads(found["Body"].read())
    except ValueError:
        return None
    if not isinstance(template, dict) or template.get("version") != TEMPLATE_VERSION:
        return None
    return template


def ensure_template(account: Account, image: Image, instance_type: str) -> Changes:
    """Yield the writing of the template, if the one in the bucket is another."""
    wanted = describe_template(account, image, instance_type)
    if read_template(account) == wanted:
        return
    body = json.dumps(wanted, indent=2).encode()
    yield Change(
        f"write {TRAINING_TEMPLATE_KEY}, with which painters are trained on an {instance_type}",
        lambda: account.s3.put_object(
            Bucket=account.bucket,
            Key=TRAINING_TEMPLATE_KEY,
            Body=body,
            ContentType="application/json",
        ),
    )


def remove_template(account: Account) -> Changes:
    """Yield the deletion of the template: without the role that it names, nobody can train."""
    if find(account.s3.head_object, Bucket=account.bucket, Key=TRAINING_TEMPLATE_KEY) is None:
        return
    yield Change(
        f"delete {TRAINING_TEMPLATE_KEY}",
        lambda: account.s3.delete_object(Bucket=account.bucket, Key=TRAINING_TEMPLATE_KEY),
    )


# ---------------------------------------------------------------- find


def find_training_job(account: Account, name: str) -> Answer | None:
    return find(account.sagemaker.describe_training_job, TrainingJobName=name)


def list_running_jobs(account: Account) -> list[Answer]:
    """Return the descriptions of this deployment's training jobs that are running."""
    return list_jobs(account, StatusEquals="InProgress")


def list_jobs_since(account: Account, start: datetime) -> list[Answer]:
    """Return the descriptions of this deployment's training jobs that were created since then."""
    return list_jobs(account, CreationTimeAfter=start)


def list_jobs(account: Account, **filters: object) -> list[Answer]:
    """Return the descriptions of this deployment's training jobs that the filters let through."""
    prefix = name_prefix(account)
    pages = account.sagemaker.get_paginator("list_training_jobs").paginate(
        NameContains=prefix, **filters
    )
    jobs = []
    for item in (item for page in pages for item in page["TrainingJobSummaries"]):
        name = item["TrainingJobName"]
        if not name.startswith(prefix):
            continue
        if not account.is_ours(find_sagemaker_tags(account, item["TrainingJobArn"])):
            continue
        if job := find_training_job(account, name):
            jobs.append(job)
    return jobs


def painter_of(job: Answer) -> str:
    """Return the name of the painter that the job trains."""
    return str(job.get("HyperParameters", {}).get("name", "?"))


def status_of(job: Answer) -> str:
    """Return the job's secondary status, which says more, such as "Downloading"."""
    return str(job.get("SecondaryStatus") or job["TrainingJobStatus"])


def read_progress(account: Account, job: Answer) -> Answer | None:
    """Return what the trainer wrote about its progress; None if it did not yet."""
    url = job.get("HyperParameters", {}).get("progress_url", "")
    match = re.fullmatch(r"s3://([^/]+)/(.+)", url)
    if match is None:
        return None
    found = find(account.s3.get_object, Bucket=match[1], Key=match[2])
    if found is None:
        return None
    try:
        progress: Answer = json.loads(found["Body"].read())
    except ValueError:
        return None
    return progress


def describe_state(job: Answer, progress: Answer | None) -> str:
    """Return the job's status with SageMaker's words about it, or with the trainer's progress."""
    status = status_of(job)
    if status == "Training" and progress is not None:
        return f"{status}, {describe_progress(progress)}"
    if status == "Interrupted":
        return f"{status}: AWS took the Spot instance back. It goes on from the last checkpoint"
    transitions = job.get("SecondaryStatusTransitions") or [{}]
    message = transitions[-1].get("StatusMessage", "")
    if not message:
        return str(status)
    return f"{status}: {message.rstrip('.')}"


def describe_progress(progress: Answer) -> str:
    """Return, for example, "step 400 of 2000, loss 1.234, 12 minutes left"."""
    text = f"step {progress.get('step', 0)} of {progress.get('steps', '?')}"
    if isinstance(progress.get("loss"), float | int):
        text += f", loss {progress['loss']:.4g}"
    left = progress.get("seconds_left")
    if isinstance(left, float | int):
        text += f", {describe_seconds(left)} left"
    return text


def describe_seconds(seconds: float) -> str:
    """Return "45 s" or "12 minutes"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes"


# ---------------------------------------------------------------- names and arguments


def job_name(account: Account, painter: str, fingerprint: str, attempt: int) -> str:
    """Return the name of the nth job that trains this: PREFIX-train-PAINTER-FINGERPRINT[-n].

    A long painter's name is cut, as SageMaker allows 63 characters; it allows no underscores.
    """
    ending = f"-{fingerprint}"
    if attempt > 1:
        ending += f"-{attempt}"
    prefix = name_prefix(account)
    # The same for each attempt, up to the 99th
    length = MAX_NAME_LENGTH - len(prefix) - len(f"-{fingerprint}-99")
    return prefix + painter.replace("_", "-")[:length] + ending


def job_folder(name: str) -> str:
    """Return the folder in the bucket that belongs to a training job, with a slash at its end."""
    return f"{TRAINING_PREFIX}{name}/"


def describe_job(
    account: Account,
    template: Answer,
    name: str,
    folder: str,
    painter: str,
    minutes: float,
    channels: list[str],
    instance_type: str,
    spot: bool,
) -> Answer:
    """Return the arguments of CreateTrainingJob.

    `folder` has the inputs, a folder for each channel, and gets checkpoints and progress.
    """
    arguments: Answer = template["arguments"]
    own = training_arguments(account.bucket, name, folder, painter, channels)
    return {
        **arguments,
        **describe_limits(minutes, spot),
        **own,
        "HyperParameters": {**own["HyperParameters"], "minutes": f"{minutes:g}"},
        "ResourceConfig": {**arguments["ResourceConfig"], "InstanceType": instance_type},
    }


# ---------------------------------------------------------------- log


def read_log(account: Account, name: str, from_start: bool = False, count: int = 10) -> list[str]:
    """Return the first or the last lines that the job's last instance wrote.

    The log group is not ours: it is missing until the account's first training.
    """
    logs = account.logs
    found = find(logs.describe_log_streams, logGroupName=LOG_GROUP, logStreamNamePrefix=f"{name}/")
    if not found or not found["logStreams"]:
        return []
    newest = max(found["logStreams"], key=lambda stream: stream.get("creationTime", 0))
    events = logs.get_log_events(
        logGroupName=LOG_GROUP,
        logStreamName=newest["logStreamName"],
        startFromHead=from_start,
        limit=count,
    )["events"]
    return [event["message"].rstrip() for event in events]


# ---------------------------------------------------------------- stop


def remove_trainings(account: Account) -> Changes:
    """Yield the end of each training job that is running."""
    for job in list_running_jobs(account):
        yield stopping(account, job["TrainingJobName"])


def stopping(account: Account, name: str) -> Change:
    return Change(f"stop the training {name}", lambda: stop_training_job(account, name))


def stop_training_job(account: Account, name: str) -> None:
    """Stop the job, and wait until it has ended: it saves its checkpoints first."""
    job = find_training_job(account, name)
    if job is None:
        return
    if job["TrainingJobStatus"] == "InProgress":
        delete_if_present(account.clock, account.sagemaker.stop_training_job, TrainingJobName=name)
    deadline = account.clock.monotonic() + STOP_SECONDS
    while account.clock.monotonic() < deadline:
        job = find_training_job(account, name)
        if job is None or job["TrainingJobStatus"] not in RUNNING:
            return
        account.clock.sleep(POLL_SECONDS)
