"""Trainings that are running: watched until their painter can be chosen, or stopped."""

from __future__ import annotations

from datetime import timedelta

from aws import painters, trainings
from aws.account import Account
from aws.calls import Answer
from aws.changes import apply
from aws.cost import describe_training_cost
from aws.messages import DeployError, find_remedy, say
from aws.models import find_sagemaker_tags

# As a shell reports a program that Ctrl-C has ended
INTERRUPTED = 130
# Progress is printed again after this time.
REPORT_SECONDS = 60.0
# SageMaker's and S3's clocks differ by less.
CLOCK_DIFFERENCE = timedelta(seconds=60)
# The trainer says at its start which device it uses.
FIRST_LOG_LINES = 50
# What a job of this status did not achieve, and what to do
STOP_REASONS = {
    "MaxRuntimeExceeded": (
        "it took longer than its time limit. Run the same command again: it goes on from its last "
        "checkpoint."
    ),
    "MaxWaitTimeExceeded": (
        "AWS had no Spot instance for it for too long. Run the same command again with --no-spot "
        "or another --instance-type: it goes on from its last checkpoint."
    ),
    "Stopped": (
        "somebody stopped it. Run the same command again: it goes on from its last checkpoint."
    ),
}


def follow(account: Account, name: str) -> int:
    """Print the job's progress until it has ended, then bring its painter into the catalog.

    Returns the exit code. Raises DeployError if the training did not succeed.
    """
    require_job(account, name)
    try:
        job = wait_until_ended(account, name)
    except KeyboardInterrupt:
        say(f"\n{explain_how_to_follow(account, name)}")
        return INTERRUPTED

    if job["TrainingJobStatus"] != "Completed":
        raise DeployError(explain_end(account, job))
    painter = trainings.painter_of(job)
    say(describe_training_cost(job))
    if not is_trained_by(account, painter, job):
        raise DeployError(
            f"{name} is completed, but there is no painter of it in s3://{account.bucket}/"
            f"{painters.painter_key(painter)}: somebody deleted or replaced it. Its files are in "
            f"{job['ModelArtifacts']['S3ModelArtifacts']}."
        )
    return publish(account, painter)


def publish(account: Account, painter: str) -> int:
    """Bring the painter into the catalog, from which the bot learns the styles."""
    model = painters.find_served_model(account)
    if model is None:
        say(
            f"The painter {painter} is in s3://{account.bucket}/{painters.painter_key(painter)}. "
            f"There is no endpoint {account.endpoint_name('cyclegan')}: ./deploy.py up creates it."
        )
        return 0
    apply(painters.ensure_catalog(account, model))
    say(f"{painter} can paint: the bot offers it within a minute.")
    return 0


def stop(account: Account, name: str) -> int:
    """Stop a training job, and return the exit code."""
    job = require_job(account, name)
    if job["TrainingJobStatus"] not in trainings.RUNNING:
        say(f"{name} is not running: {job['TrainingJobStatus']}.")
        return 0
    apply([trainings.stopping(account, name)])
    say("It is stopped. The same `./deploy.py train` goes on from its last checkpoint.")
    return 0


def require_job(account: Account, name: str) -> Answer:
    """Return the job's description. Raises DeployError if it is none of this deployment's."""
    job = None
    if name.startswith(trainings.name_prefix(account)):
        job = trainings.find_training_job(account, name)
    if job is None or not account.is_ours(find_sagemaker_tags(account, job["TrainingJobArn"])):
        raise DeployError(
            f"{account.prefix} has no training {name} in {account.region}. `./deploy.py status` "
            "lists those that are running."
        )
    return job


def command(account: Account, option: str, name: str) -> str:
    """Return a command line for the same deployment."""
    return f"./deploy.py train --region {account.region} --prefix {account.prefix} {option} {name}"


def explain_how_to_follow(account: Account, name: str) -> str:
    return (
        f"{name} goes on without this program. To follow it, which offers the painter in the bot "
        "when it is done, or to stop it:\n"
        f"  {command(account, '--follow', name)}\n"
        f"  {command(account, '--stop', name)}"
    )


def is_trained_by(account: Account, name: str, job: Answer) -> bool:
    """Return whether the painter in the bucket was put there by the job, which has ended."""
    painter = painters.find_painter(account, name)
    if painter is None or job["TrainingJobStatus"] != "Completed":
        return False
    started = painters.whole_second(job["CreationTime"])
    ended = job.get("TrainingEndTime") or job["LastModifiedTime"]
    return bool(started - CLOCK_DIFFERENCE <= painter.modified <= ended + CLOCK_DIFFERENCE)


# ---------------------------------------------------------------- progress


def wait_until_ended(account: Account, name: str) -> Answer:
    """Print the job's status and progress until it has ended. Return its description then."""
    clock = account.clock
    start = clock.monotonic()
    next_report = start
    last_status = ""
    is_device_known = False
    while True:
        job = trainings.find_training_job(account, name)
        if job is None:
            raise DeployError(f"The training {name} was deleted meanwhile.")
        if job["TrainingJobStatus"] not in trainings.RUNNING:
            return job

        status = trainings.status_of(job)
        now = clock.monotonic()
        if status != last_status or now >= next_report:
            progress = trainings.read_progress(account, job)
            state = trainings.describe_state(job, progress)
            say(f"{name}: {state}, {describe_minutes(now - start)}")
            next_report = now + REPORT_SECONDS
            last_status = status
            if status == "Training" and not is_device_known:
                is_device_known = warn_about_device(account, name)
        clock.sleep(trainings.POLL_SECONDS)


def describe_minutes(seconds: float) -> str:
    """Return minutes and seconds, such as "12:05"."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def warn_about_device(account: Account, name: str) -> bool:
    """Print the trainer's warning that it cannot use the GPU, if there is one.

    Return whether the trainer has said already which device it uses.
    """
    for line in trainings.read_log(account, name, from_start=True, count=FIRST_LOG_LINES):
        if '"event": "training"' not in line:
            continue
        if '"warning"' in line:
            say(
                f"The trainer does not use the GPU: {line}\n"
                f"To stop it: {command(account, '--stop', name)}"
            )
        return True
    return False


def explain_end(account: Account, job: Answer) -> str:
    """Return why a job gave no painter, the end of its log, what to do, and what it cost."""
    name = job["TrainingJobName"]
    status = trainings.status_of(job)
    if job["TrainingJobStatus"] != "Failed":
        reason = STOP_REASONS.get(status, STOP_REASONS["Stopped"])
        return f"{name} gave no painter: {reason}\n  {describe_training_cost(job)}"

    reason = job.get("FailureReason") or "SageMaker gives no reason."
    log_lines = trainings.read_log(account, name)
    if not log_lines:
        log_lines = ["(empty: the container did not start)"]
    remedy = find_remedy(reason) or "Fix that, then run the same command again."
    lines = [f"{name} failed: {reason}", "The end of its log:", *log_lines]
    lines += [remedy, describe_training_cost(job)]
    return "\n  ".join(lines)
