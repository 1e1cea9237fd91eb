"""The command train: a painter of your own, trained by a SageMaker training job.

The job's name ends in a fingerprint of what it trains: the painter's name, the minutes and every
file. So the same command, run again after it was killed, finds its job instead of starting another.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from botocore.exceptions import ClientError

from aws import painters, training_files, trainings
from aws.account import Account
from aws.bucket import find_bucket
from aws.calls import Answer, find_created, perform
from aws.changes import Change, apply
from aws.cost import estimate_training
from aws.follow import command, explain_how_to_follow, follow, is_trained_by
from aws.identity import find_role
from aws.messages import DeployError, say
from aws.registry import find_image_details
from aws.training_files import InputFile
from bot import CATALOG_KEY

DEFAULT_MINUTES = 20.0
MINUTES_RANGE = (1.0, 20160.0)
NAME_PATTERN = "[a-z0-9][a-z0-9_-]{0,31}"
MAX_ATTEMPTS = 99


@dataclass(frozen=True)
class TrainingRequest:
    """What the user asks for."""

    name: str
    pictures: list[Path]
    paintings: Path | None = None
    photos: Path | None = None
    # A checkpoint to begin with
    start: Path | None = None
    minutes: float = DEFAULT_MINUTES
    # None: that of the template
    instance_type: str | None = None
    spot: bool = True
    replace: bool = False
    wait: bool = True


def train(account: Account, request: TrainingRequest) -> int:
    """Run the command train and return its exit code.

    Raises DeployError if something is wrong with the request, before anything is uploaded or
    started, and if the training fails.
    """
    files = read_inputs(request)
    template = require_template(account)
    instance_type = request.instance_type
    if instance_type is None:
        instance_type = template["arguments"]["ResourceConfig"]["InstanceType"]
    check_instance_type(account, instance_type)

    fingerprint = training_files.find_fingerprint(request.name, request.minutes, files)
    name, job = find_attempt(account, request.name, fingerprint)
    if job is None:
        check_name_is_free(account, request)
        # All attempts share it, so that a new one goes on from the last one's checkpoints.
        folder = trainings.job_folder(trainings.job_name(account, request.name, fingerprint, 1))
        arguments = trainings.describe_job(
            account,
            template,
            name,
            folder,
            request.name,
            request.minutes,
            channels=sorted({file.key.partition("/")[0] for file in files}),
            instance_type=instance_type,
            spot=request.spot,
        )
        longest = arguments["StoppingCondition"]["MaxRuntimeInSeconds"]
        say(estimate_training(instance_type, request.minutes, request.spot, longest))
        training_files.upload(account, folder, files)
        apply([start_job(account, arguments)])
    else:
        say(f"{name}, which was started before, is for the same: no other is started.")

    if not request.wait:
        say(explain_how_to_follow(account, name))
        return 0
    return follow(account, name)


# ---------------------------------------------------------------- checks


def read_inputs(request: TrainingRequest) -> list[InputFile]:
    """Return the files of all channels. Raises DeployError for whatever the user got wrong."""
    if not re.fullmatch(NAME_PATTERN, request.name):
        raise DeployError(
            f"{request.name!r} is no name for a painter: use up to 32 small letters, digits, _ "
            "and -, such as klimt."
        )
    smallest, largest = MINUTES_RANGE
    if not smallest <= request.minutes <= largest:
        raise DeployError(f"--minutes must be from {smallest:g} to {largest:g}.")
    if bool(request.pictures) == bool(request.paintings):
        raise DeployError(
            "Give one or more pictures of the style, or a folder with --paintings: "
            "./deploy.py train painting.jpg --name klimt"
        )

    files = training_files.read_style_pictures(request.pictures)
    if request.paintings:
        files += training_files.read_folder(request.paintings, "paintings", "--paintings")
    if request.photos:
        files += training_files.read_folder(request.photos, "photos", "--photos")
    if request.start:
        files += training_files.read_checkpoint(request.start)
    training_files.check_size(files)
    return files


def require_template(account: Account) -> Answer:
    """Return the template, whose role and image exist. Raises DeployError otherwise."""
    template = None
    if find_bucket(account) is not None:
        template = trainings.read_template(account)
    if template is None or find_role(account, account.execution_role) is None:
        raise DeployError(
            f"{account.prefix} is not set up for trainings in {account.region}. "
            "Run this first: ./deploy.py up"
        )
    image = template["arguments"]["AlgorithmSpecification"]["TrainingImage"]
    if find_image_details(account, "cyclegan", image.partition("@")[2]) is None:
        raise DeployError(
            f"The image {image} is no longer in ECR. "
            "Run this first: ./build.sh --push && ./deploy.py up"
        )
    return template


def check_instance_type(account: Account, instance_type: str) -> None:
    """Raise DeployError if SageMaker has no such type for trainings, as far as boto3 knows."""
    shape = account.sagemaker.meta.service_model.shape_for("TrainingInstanceType")
    if instance_type in shape.enum:
        return
    similar = difflib.get_close_matches(instance_type, shape.enum, 3)
    similar = similar or [trainings.DEFAULT_INSTANCE_TYPE]
    raise DeployError(
        f"SageMaker trains on no {instance_type}. Choose another --instance-type, such as "
        f"{' or '.join(similar)}."
    )


def find_attempt(account: Account, painter: str, fingerprint: str) -> tuple[str, Answer | None]:
    """Return the job that trains this, or has trained the painter that is in the bucket.

    If there is none, return the name for a new one, and None: SageMaker takes no name twice.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        name = trainings.job_name(account, painter, fingerprint, attempt)
        job = trainings.find_training_job(account, name)
        if job is None:
            return name, None
        if job["TrainingJobStatus"] in trainings.RUNNING or is_trained_by(account, painter, job):
            return name, job
    raise DeployError(
        f"{MAX_ATTEMPTS} jobs have trained the same already. Change something, such as --minutes."
    )


def check_name_is_free(account: Account, request: TrainingRequest) -> None:
    """Raise DeployError if the painter's name is taken, also by a job that is running."""
    name = request.name
    painter = painters.find_painter(account, name)
    if painter is None and name in painters.read_catalog(account):
        raise DeployError(
            f"{name} is a style of the image itself, which hides a painter of that name. Choose "
            f"another --name. (If it was a painter that somebody deleted: delete {CATALOG_KEY} "
            "too, then run ./deploy.py up.)"
        )
    if painter is not None and not request.replace:
        raise DeployError(
            f"There is a painter {name} already, of {painter.modified:%Y-%m-%d %H:%M} UTC. Choose "
            "another --name, or replace it with --replace."
        )
    for job in trainings.list_running_jobs(account):
        if trainings.painter_of(job) == name:
            raise DeployError(
                f"{job['TrainingJobName']} trains a painter {name} from something else now. "
                f"Choose another --name, or stop it:\n  "
                f"{command(account, '--stop', job['TrainingJobName'])}"
            )


# ---------------------------------------------------------------- start


def start_job(account: Account, arguments: Answer) -> Change:
    resources = arguments["ResourceConfig"]
    kind = "on demand"
    if arguments["EnableManagedSpotTraining"]:
        kind = "by Spot"
    return Change(
        f"start the training {arguments['TrainingJobName']} on an {resources['InstanceType']}, "
        f"{kind}",
        lambda: create_job(account, arguments),
    )


def create_job(account: Account, arguments: Answer) -> None:
    """Create the job. Raises DeployError, naming the quota, if the account may not run it."""
    try:
        # A job of that name is for the same: the same command runs twice, or an answer was lost.
        perform(account.clock, account.sagemaker.create_training_job, **arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceLimitExceeded":
            raise
        raise DeployError(explain_quota(error, arguments)) from error
    name = arguments["TrainingJobName"]
    find_created(account.clock, lambda: trainings.find_training_job(account, name))


def explain_quota(error: ClientError, arguments: Answer) -> str:
    instance_type = arguments["ResourceConfig"]["InstanceType"]
    quota = f"{instance_type} for training job usage"
    other = "choose another --instance-type"
    if arguments["EnableManagedSpotTraining"]:
        quota = f"{instance_type} for spot training job usage"
        other += ", or try --no-spot, which has a quota of its own"
    return (
        f"{error.response['Error'].get('Message', error)}\nRequest a higher quota under Service "
        f'Quotas > Amazon SageMaker > "{quota}" (1 is enough), or {other}. Nothing was started.'
    )
