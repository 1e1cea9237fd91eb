"""The command status: each endpoint, the trainings that are running, and the painters."""

from datetime import datetime, timedelta, timezone

from aws.account import Account
from aws.bucket import find_bucket
from aws.calls import Answer
from aws.endpoints import find_endpoint
from aws.logs import last_errors
from aws.messages import output
from aws.painters import list_painters
from aws.registry import find_image_details
from aws.scaling import find_scalable_target
from aws.trainings import describe_state, list_running_jobs, read_progress
from bot import MODELS

BACKLOG_MINUTES = 10


def status(account: Account) -> int:
    """Print the state of both endpoints, trainings and painters. Return the exit code."""
    for model in MODELS:
        output("\n  ".join(describe_status(account, model)))
    if find_bucket(account) is not None:
        output("\n  ".join(["trainings:", *describe_trainings(account)]))
        output("\n  ".join(["painters:", *describe_painters(account)]))
    return 0


def describe_status(account: Account, model: str) -> list[str]:
    """Return the lines about the endpoint of one model."""
    name = account.endpoint_name(model)
    endpoint = find_endpoint(account, name)
    if endpoint is None:
        return [f"{name}: does not exist. ./deploy.py up creates it."]

    sagemaker = account.sagemaker
    config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    variant = config["ProductionVariants"][0]
    sagemaker_model = sagemaker.describe_model(ModelName=variant["ModelName"])

    lines = [
        f"{name}: {endpoint['EndpointStatus']}, {describe_instances(endpoint)} "
        f"({describe_limits(account, name)}) of {variant['InstanceType']}"
    ]
    if reason := endpoint.get("FailureReason"):
        lines.append(f"reason: {reason}")
    lines.append(f"backlog: {describe_backlog(account, name)}")
    uri = sagemaker_model["PrimaryContainer"]["Image"]
    lines.append(f"image: {describe_image(account, model, uri)}")

    errors = last_errors(account, name)
    if not errors:
        return [*lines, "last errors: none in the log of the last 24 hours"]
    return [*lines, "last errors:", *errors]


def describe_instances(endpoint: Answer) -> str:
    """Return, for example, "1 instance", "1 instance, soon 2" or "0 instances, asleep"."""
    variants = endpoint.get("ProductionVariants") or [{}]
    current = variants[0].get("CurrentInstanceCount", 0)
    desired = variants[0].get("DesiredInstanceCount", 0)

    text = f"{current} instances"
    if current == 1:
        text = "1 instance"
    if current != desired:
        return f"{text}, soon {desired}"
    if current == 0:
        return f"{text}, asleep"
    return text


def describe_limits(account: Account, endpoint: str) -> str:
    target = find_scalable_target(account, endpoint)
    if target is None:
        return "no scaling"
    return f"{target['MinCapacity']} to {target['MaxCapacity']}"


def describe_backlog(account: Account, endpoint: str) -> str:
    now = datetime.now(timezone.utc)
    points = account.cloudwatch.get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName="ApproximateBacklogSize",
        Dimensions=[{"Name": "EndpointName", "Value": endpoint}],
        StartTime=now - timedelta(minutes=BACKLOG_MINUTES),
        EndTime=now,
        Period=60,
        Statistics=["Maximum"],
    )["Datapoints"]
    if not points:
        return f"no data in the last {BACKLOG_MINUTES} minutes"
    newest = max(points, key=lambda point: point["Timestamp"])
    return f"{newest['Maximum']:.0f} pictures"


def describe_image(account: Account, model: str, uri: str) -> str:
    """Return the image's tags, age and digest."""
    digest = uri.partition("@")[2]
    short_digest = digest[:19]
    image = find_image_details(account, model, digest)
    if image is None:
        return f"{short_digest}, which is no longer in ECR: ./build.sh --push, then ./deploy.py up"

    tags = ", ".join(image.get("imageTags", ["without a tag"]))
    age = datetime.now(timezone.utc) - image["imagePushedAt"]
    pushed = "today"
    if age.days:
        pushed = f"{age.days} days ago"
    return f"{tags}, pushed {pushed}, {short_digest}"


def describe_trainings(account: Account) -> list[str]:
    """Return a line for each training that is running."""
    lines = []
    for job in list_running_jobs(account):
        state = describe_state(job, read_progress(account, job))
        lines.append(f"{job['TrainingJobName']}: {state}")
    return lines or ["none is running"]


def describe_painters(account: Account) -> list[str]:
    """Return a line for each painter in the bucket."""
    lines = []
    for painter in list_painters(account):
        megabytes = painter.bytes / 1e6
        lines.append(
            f"{painter.name}: {megabytes:.1f} MB, of {painter.modified:%Y-%m-%d %H:%M} UTC"
        )
    return lines or ["none but those of the image"]
