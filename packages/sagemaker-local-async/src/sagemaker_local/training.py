"""Training jobs: what is asked for, their states, and one after the other at work.

A job is an object below sagemaker/training/ in S3. It is accepted once that object is written. A
job that had not ended when this program was killed goes on at the next start, from its checkpoints.
"""

from __future__ import annotations

import builtins
import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Annotated, Any, Literal, TypedDict

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from msgspec import Meta

from sagemaker_local.endpoint import PAYLOAD_BYTES
from sagemaker_local.errors import (
    ApiError,
    constraint_error,
    not_supported,
    unavailable,
    validation_error,
)
from sagemaker_local.listing import list_page
from sagemaker_local.names import arn
from sagemaker_local.s3 import (
    S3Client,
    ensure_bucket,
    retry_forever,
    split_s3_url,
    status_of,
)
from sagemaker_local.shapes import check_value, input_shape
from sagemaker_local.stored import UnreadableError, decode, load_objects
from sagemaker_local.trainer import TrainerSettings, Training, TrainingError

TRAINING_PREFIX = "sagemaker/training/"
# A stored job has the arguments of one call, and its transitions.
JOB_BYTES = 2 * PAYLOAD_BYTES

# A trainer has so long after SIGTERM where this program itself has to end.
CLOSE_SECONDS = 8.0
POLL_SECONDS = 0.2

# TrainingJobStatus
IN_PROGRESS = "InProgress"
STOPPING = "Stopping"
STOPPED = "Stopped"
COMPLETED = "Completed"
FAILED = "Failed"
UNFINISHED = (IN_PROGRESS, STOPPING)
# SecondaryStatus, where it is no TrainingJobStatus.
STARTING = "Starting"
DOWNLOADING = "Downloading"
TRAINING = "Training"
UPLOADING = "Uploading"
MAX_RUNTIME_EXCEEDED = "MaxRuntimeExceeded"

STATUS_MESSAGES = {
    STARTING: "Waiting for the training jobs before it",
    DOWNLOADING: "Downloading input data",
    TRAINING: "Training image download completed. Training in progress.",
    STOPPING: "Stopping the training job",
    UPLOADING: "Uploading generated training model",
    COMPLETED: "Training job completed",
    STOPPED: "Training job stopped",
    MAX_RUNTIME_EXCEEDED: "Training job runtime exceeded MaxRuntimeInSeconds",
    FAILED: "Training job failed",
}
# What DescribeTrainingJob repeats of the call that made the job.
REPEATED = (
    "HyperParameters",
    "AlgorithmSpecification",
    "RoleArn",
    "InputDataConfig",
    "OutputDataConfig",
    "ResourceConfig",
    "StoppingCondition",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
    "CheckpointConfig",
    "Environment",
    "RetryStrategy",
)

# The members of a call, which botocore's model of the service describes.
Arguments = dict[str, Any]
# time.time(), up to the year 9999: boto3 reads no later one.
Time = Annotated[float, Meta(ge=0, le=253402300799)]
Status = Annotated[str, Meta(pattern="^(InProgress|Stopping|Stopped|Completed|Failed)$")]

log = logging.getLogger("sagemaker")


class TransitionStart(TypedDict):
    Status: str
    StartTime: Time
    StatusMessage: str


class Transition(TransitionStart, total=False):
    """One of SecondaryStatusTransitions."""

    EndTime: Time


@dataclass
class TrainingJob:
    """A training job, as it is stored. The types are also its schema."""

    # Those of CreateTrainingJob.
    arguments: Arguments
    status: Status = IN_PROGRESS
    transitions: Annotated[list[Transition], Meta(min_length=1)] = field(default_factory=list)
    failure_reason: str = ""
    created: Time = field(default_factory=time.time)
    modified: Time = field(default_factory=time.time)
    # When the trainer was first started, and when the job ended; 0: not yet.
    started: Time = 0.0
    ended: Time = 0.0
    # So long the trainer has run, all starts together.
    training_seconds: Annotated[float, Meta(ge=0, le=10**9)] = 0.0
    has_model: bool = False
    version: Literal[1] = 1

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> TrainingJob:
        """Raises UnreadableError."""
        job = decode(data, cls)
        try:
            check_value("", job.arguments, input_shape("CreateTrainingJob"))
            check_request(job.arguments)
        except ApiError as error:
            raise UnreadableError(str(error)) from None
        return job

    @property
    def name(self) -> str:
        name: str = self.arguments["TrainingJobName"]
        return name

    @property
    def arn(self) -> str:
        return arn("training-job", self.name)

    @property
    def model_url(self) -> str:
        folder: str = self.arguments["OutputDataConfig"]["S3OutputPath"]
        return f"{folder.rstrip('/')}/{self.name}/output/model.tar.gz"

    def set_secondary_status(self, secondary: str) -> None:
        now = time.time()
        self.modified = now
        if self.transitions:
            self.transitions[-1]["EndTime"] = now
        message = STATUS_MESSAGES[secondary]
        self.transitions.append({"Status": secondary, "StartTime": now, "StatusMessage": message})

    def end(self, status: str, secondary: str) -> None:
        self.status = status
        self.set_secondary_status(secondary)
        self.ended = self.modified
        self.transitions[-1]["EndTime"] = self.ended

    def summary(self) -> dict[str, object]:
        """Return the job as ListTrainingJobs tells it."""
        summary: dict[str, object] = {
            "TrainingJobName": self.name,
            "TrainingJobArn": self.arn,
            "CreationTime": self.created,
            "LastModifiedTime": self.modified,
            "TrainingJobStatus": self.status,
            "SecondaryStatus": self.transitions[-1]["Status"],
        }
        if self.ended:
            summary["TrainingEndTime"] = self.ended
        return summary

    def description(self) -> dict[str, object]:
        """Return the job as DescribeTrainingJob tells it."""
        description = self.summary()
        description["SecondaryStatusTransitions"] = self.transitions
        for name in REPEATED:
            if name in self.arguments:
                description[name] = self.arguments[name]
        if self.failure_reason:
            description["FailureReason"] = self.failure_reason
        if self.has_model:
            description["ModelArtifacts"] = {"S3ModelArtifacts": self.model_url}
        if self.started:
            description["TrainingStartTime"] = self.started
            description["TrainingTimeInSeconds"] = round(self.training_seconds)
            description["BillableTimeInSeconds"] = round(self.training_seconds)
        return description


class TrainingJobs:
    """All training jobs, of which one at a time is at work. Used by many threads."""

    def __init__(self, s3: S3Client, bucket: str, settings: TrainerSettings) -> None:
        """`bucket` is where the jobs are stored."""
        self.s3 = s3
        self.bucket = bucket
        self.settings = settings
        self.jobs: dict[str, TrainingJob] = {}  # guarded by changed, as each job in it
        self.closing = False  # guarded by changed
        # The job at work.
        self.current: TrainingJob | None = None  # guarded by changed
        self.training: Training | None = None  # written by the worker
        # Notified when something changes that it guards.
        self.changed = threading.Condition()
        # Held while a job is written, so that an older state never replaces a newer one.
        self.writing = threading.Lock()
        self.worker = threading.Thread(target=self.work, daemon=True)

    def start(self) -> None:
        """Load the jobs, and go on with those that have not ended."""
        retry_forever(lambda: ensure_bucket(self.s3, self.bucket))
        stored = load_objects(self.s3, self.bucket, TRAINING_PREFIX, self.parse_job, JOB_BYTES)
        for job in stored:
            self.jobs[job.name] = job
            if job.status in UNFINISHED:
                log.info("%s: a training of an earlier run goes on", job.name)
        self.settings.folder.mkdir(parents=True, exist_ok=True)
        self.worker.start()

    def close(self) -> None:
        """Let the trainer save and end. Its job goes on at the next start."""
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        self.worker.join(CLOSE_SECONDS + 3)
        if self.training:
            self.training.kill()

    def key(self, name: str) -> str:
        return f"{TRAINING_PREFIX}{name}.json"

    def parse_job(self, key: str, data: bytes) -> TrainingJob:
        """Return the job that is stored at `key`. Raises UnreadableError."""
        job = TrainingJob.from_json(data)
        if key != self.key(job.name):
            raise UnreadableError("its name is not in its key")
        return job

    def write(self, job: TrainingJob) -> None:
        """Store the job as it is now. Raises the errors of S3."""
        with self.writing:
            with self.changed:
                data = job.to_json()
            self.s3.put_object(Bucket=self.bucket, Key=self.key(job.name), Body=data)

    # ---- the calls

    def create(self, arguments: Arguments) -> dict[str, object]:
        """Answer CreateTrainingJob. Raises ApiError."""
        check_request(arguments)
        self.check_inputs(arguments)
        job = TrainingJob(arguments)
        job.set_secondary_status(STARTING)
        with self.changed:
            if job.name in self.jobs:
                raise name_taken(self.jobs[job.name])
            self.jobs[job.name] = job
        try:
            self.write(job)
        except (BotoCoreError, ClientError) as error:
            log.warning("S3: %s; a training job was not accepted", error)
            with self.changed:
                del self.jobs[job.name]
            raise unavailable("The training job cannot be stored. Try again.") from None
        with self.changed:
            self.changed.notify_all()
        return {"TrainingJobArn": job.arn}

    def check_inputs(self, arguments: Arguments) -> None:
        """Raise ApiError where a channel has no objects: SageMaker looks before it accepts."""
        for channel in arguments.get("InputDataConfig", ()):
            url = channel["DataSource"]["S3DataSource"]["S3Uri"]
            bucket, prefix = split_s3_url(url)
            try:
                found = self.s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
            except ClientError as error:
                if status_of(error) >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise unavailable("S3 does not answer. Try again.") from None
                found = {}
            except ParamValidationError:
                found = {}
            except BotoCoreError:
                raise unavailable("S3 does not answer. Try again.") from None
            if not found.get("Contents"):
                raise validation_error(
                    f'No S3 objects found under S3 URL "{url}" given in input data source. '
                    "Please ensure that the bucket exists and that objects exist under that prefix."
                )

    def describe(self, arguments: Arguments) -> dict[str, object]:
        """Answer DescribeTrainingJob. Raises ApiError."""
        with self.changed:
            return self.find(arguments["TrainingJobName"]).description()

    def stop(self, arguments: Arguments) -> dict[str, object]:
        """Answer StopTrainingJob. Raises ApiError."""
        with self.changed:
            job = self.find(arguments["TrainingJobName"])
            if job.status not in UNFINISHED:
                raise validation_error(
                    f"The request was rejected because the training job is in status {job.status}."
                )
            if job is not self.current:
                job.end(STOPPED, STOPPED)
            elif job.status != STOPPING:
                job.status = STOPPING
                job.set_secondary_status(STOPPING)
            self.changed.notify_all()
        try:
            self.write(job)
        except (BotoCoreError, ClientError) as error:
            log.warning("S3: %s; the stop of a training job was not stored", error)
            raise unavailable("The training job cannot be stored. Try again.") from None
        return {}

    def find(self, name: str) -> TrainingJob:
        """Return the job. To be called with `changed` held. Raises ApiError as SageMaker does."""
        if name not in self.jobs:
            # Not ResourceNotFound, though botocore's model has it:
            # https://github.com/aws/aws-sdk/issues/165
            raise validation_error("Requested resource not found.")
        return self.jobs[name]

    def list(self, arguments: Arguments) -> dict[str, object]:
        """Answer ListTrainingJobs. Raises ApiError."""
        with self.changed:
            page, token = list_page(self.jobs.values(), arguments, default_order="Ascending")
            answer: dict[str, object] = {"TrainingJobSummaries": [job.summary() for job in page]}
        if token:
            answer["NextToken"] = token
        return answer

    # ---- the work

    def work(self) -> None:
        while job := self.next_job():
            try:
                self.run(job)
            except Exception:
                # A fault of our own must not stop the worker.
                log.exception("%s", job.name)
                self.fail(job, "InternalServerError: The log of sagemaker_local tells more.")
            with self.changed:
                self.current = None

    def next_job(self) -> TrainingJob | None:
        """Wait for a job that has not ended, and return the oldest. Return None in the end."""
        with self.changed:
            self.changed.wait_for(lambda: self.closing or self.waiting())
            if self.closing:
                return None
            self.current = min(self.waiting(), key=lambda job: job.created)
            return self.current

    def waiting(self) -> builtins.list[TrainingJob]:
        """To be called with `changed` held."""
        return [job for job in self.jobs.values() if job.status in UNFINISHED]

    def run(self, job: TrainingJob) -> None:
        """Run the job to its end, or until this program has to end."""
        training = Training(job.arguments, job.arn, self.s3, self.settings)
        self.training = training
        try:
            if job.status == STOPPING:
                # The program was killed while the trainer was stopping.
                training.end_earlier_run()
                return self.end(job, STOPPED, STOPPED)
            self.set_secondary_status(job, DOWNLOADING)
            training.prepare()
            if job.status == STOPPING:
                return self.end(job, STOPPED, STOPPED)
            self.set_secondary_status(job, TRAINING)
            training.start()
            self.wait(job, training)
            training.kill()
            training.sync_checkpoints()
            if not self.is_interrupted(job):
                self.finish(job, training)
        except TrainingError as error:
            self.fail(job, str(error))
        except OSError as error:
            self.fail(job, f"InternalServerError: {error.strerror}: {error.filename}")
        finally:
            training.kill()
            self.training = None
            training.remove_folder()

    def is_interrupted(self, job: TrainingJob) -> bool:
        """Return whether the job has to go on at the next start."""
        with self.changed:
            return self.closing and job.status == IN_PROGRESS and not has_exceeded(job)

    def wait(self, job: TrainingJob, training: Training) -> None:
        """Wait until the trainer has ended; stop it where that is wanted."""
        with self.changed:
            job.started = job.started or time.time()
        before = job.training_seconds
        started = time.monotonic()
        next_sync = started + self.settings.sync_seconds
        kill_at = 0.0
        while training.exit_code() is None:
            now = time.monotonic()
            with self.changed:
                job.training_seconds = before + now - started
                stop_seconds = self.stop_seconds(job)
            if stop_seconds and not kill_at:
                training.terminate()
                kill_at = now + stop_seconds
            if kill_at and now > kill_at:
                log.warning("%s: the trainer did not end by itself, and is killed", job.name)
                training.kill()
                return
            if now > next_sync:
                training.sync_checkpoints()
                self.try_to_write(job)
                next_sync = time.monotonic() + self.settings.sync_seconds
            with self.changed:
                self.changed.wait(POLL_SECONDS)

    def stop_seconds(self, job: TrainingJob) -> float:
        """Return 0 while the trainer may go on, and afterwards how long it has to save and end.

        To be called with `changed` held.
        """
        if self.closing:
            return CLOSE_SECONDS
        if job.status == STOPPING or has_exceeded(job):
            return self.settings.stop_seconds
        return 0.0

    def finish(self, job: TrainingJob, training: Training) -> None:
        """Store the result of a trainer that has ended, and end the job. Raises TrainingError."""
        assert training.process
        exit_code = training.process.returncode
        stopped = job.status == STOPPING or has_exceeded(job)
        if exit_code and not stopped:
            raise TrainingError(training.failure_reason(exit_code))
        if training.has_model():
            self.set_secondary_status(job, UPLOADING)
            training.upload_model(job.model_url)
            with self.changed:
                job.has_model = True
        if job.status == STOPPING:
            self.end(job, STOPPED, STOPPED)
        elif stopped:
            self.end(job, STOPPED, MAX_RUNTIME_EXCEEDED)
        else:
            self.end(job, COMPLETED, COMPLETED)

    def set_secondary_status(self, job: TrainingJob, secondary: str) -> None:
        with self.changed:
            job.set_secondary_status(secondary)
        retry_forever(lambda: self.write(job))

    def fail(self, job: TrainingJob, reason: str) -> None:
        log.warning("%s: %s", job.name, reason)
        with self.changed:
            job.failure_reason = reason[:1024]
        self.end(job, FAILED, FAILED)

    def end(self, job: TrainingJob, status: str, secondary: str) -> None:
        log.info("%s: %s after %.0f s", job.name, secondary, job.training_seconds)
        with self.changed:
            job.end(status, secondary)
        retry_forever(lambda: self.write(job))

    def try_to_write(self, job: TrainingJob) -> None:
        try:
            self.write(job)
        except (BotoCoreError, ClientError) as error:
            log.warning("S3: %s; trying again", error)


def has_exceeded(job: TrainingJob) -> bool:
    """Return whether the trainer has run for MaxRuntimeInSeconds."""
    limit: int = job.arguments["StoppingCondition"].get("MaxRuntimeInSeconds", 86400)
    return job.training_seconds > limit


# ------------------------------------------------------------ what a call may ask for


def name_taken(job: TrainingJob) -> ApiError:
    message = (
        "Job name must be unique within an AWS account and region, and a job with this name "
        f"already exists ({job.arn})"
    )
    return ApiError(HTTPStatus.BAD_REQUEST, "ResourceInUse", message)


def check_request(arguments: Arguments) -> None:
    """Raise ApiError for what botocore's model allows, but SageMaker or this program does not."""
    for name in ("AlgorithmSpecification", "ResourceConfig", "StoppingCondition"):
        if name not in arguments:
            raise constraint_error("null", name, "not be null")
    algorithm = arguments["AlgorithmSpecification"]
    if "TrainingImage" not in algorithm:
        raise validation_error("AlgorithmSpecification needs TrainingImage.")
    if algorithm["TrainingInputMode"] != "File":
        raise not_supported(f"TrainingInputMode {algorithm['TrainingInputMode']}")
    if arguments["ResourceConfig"].get("InstanceCount", 1) != 1:
        raise not_supported("InstanceCount above 1")

    names = []
    for channel in arguments.get("InputDataConfig", ()):
        names.append(channel["ChannelName"])
        check_channel(channel)
    if len(set(names)) < len(names):
        raise validation_error("Each channel needs a ChannelName of its own.")

    check_location("OutputDataConfig.S3OutputPath", arguments["OutputDataConfig"]["S3OutputPath"])
    if "CheckpointConfig" in arguments:
        check_location("CheckpointConfig.S3Uri", arguments["CheckpointConfig"]["S3Uri"])
    check_spot(arguments)


def check_channel(channel: Mapping[str, Any]) -> None:
    source = channel["DataSource"].get("S3DataSource")
    if not source:
        raise validation_error("A channel needs DataSource.S3DataSource.")
    check_location("S3Uri", source["S3Uri"])
    for name, value, implemented in (
        ("S3DataType", source["S3DataType"], "S3Prefix"),
        ("CompressionType", channel.get("CompressionType", "None"), "None"),
        ("RecordWrapperType", channel.get("RecordWrapperType", "None"), "None"),
        ("InputMode", channel.get("InputMode", "File"), "File"),
    ):
        if value != implemented:
            raise not_supported(f"{name} {value}")


def check_location(name: str, url: str) -> None:
    bucket, _ = split_s3_url(url)
    if not url.startswith("s3://") or not bucket:
        raise constraint_error(url, name, "be a location in S3, such as s3://bucket/prefix")


def check_spot(arguments: Arguments) -> None:
    condition = arguments["StoppingCondition"]
    longest = condition.get("MaxWaitTimeInSeconds")
    is_spot = arguments.get("EnableManagedSpotTraining", False)
    if is_spot and (longest is None or longest < condition.get("MaxRuntimeInSeconds", 86400)):
        raise validation_error(
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to "
            "MaxRuntimeInSeconds"
        )
    if longest and not is_spot:
        raise validation_error(
            "MaxWaitTimeInSeconds above 0 is not allowed without EnableManagedSpotTraining."
        )
