"""An estimate of what a deployment costs, with its date and every assumption."""

from datetime import date
from typing import Any

from aws.endpoint_settings import EndpointSettings
from aws.registry import Image

# US dollars an hour in us-east-1, on demand, as AWS published them at that date.
PRICES_DATE = "October 2025"
PRICES = {
    "ml.g4dn.xlarge": 0.736,
    "ml.g4dn.2xlarge": 0.94,
    "ml.g5.xlarge": 1.408,
    "ml.g5.2xlarge": 1.515,
    "ml.g6.xlarge": 1.127,
    "ml.g6.2xlarge": 1.222,
    "ml.c5.4xlarge": 0.816,
    "ml.m5.4xlarge": 0.922,
}
# Types that cost as much for training jobs as for endpoints
TRAINING_TYPES = (
    "ml.g4dn.xlarge",
    "ml.g4dn.2xlarge",
    "ml.g5.xlarge",
    "ml.g5.2xlarge",
    "ml.g6.xlarge",
    "ml.g6.2xlarge",
    "ml.c5.4xlarge",
)
TRAINING_PRICES = {name: PRICES[name] for name in TRAINING_TYPES}
# Billed beside the training: loading image and inputs, saving
TRAINING_OVERHEAD_MINUTES = 5
# US dollars for a gigabyte of images in ECR in a month
GIGABYTE_MONTH = 0.10
HOURS_A_MONTH = 730
# US dollars an hour of the bot's task, 0.25 vCPU and 0.5 GB, on Fargate Spot; and of its address
TASK_SPOT_HOUR = 0.0041
PUBLIC_ADDRESS_HOUR = 0.005

# Assumed seconds for a picture, copying included, on an ml.g4dn.xlarge
PICTURE_SECONDS = {"nst": 60, "cyclegan": 3}
# Assumed minutes from zero instances to the first picture, and from the last picture to zero
START_MINUTES = 8
STOP_MINUTES = 30
# What an image takes in ECR, where it is not pushed yet
TYPICAL_IMAGE_GIGABYTES = 2.7


def estimate_cost(
    settings: list[EndpointSettings], images: list[Image], today: date | None = None
) -> str:
    """Return the estimate as lines of text."""
    today = today or date.today()
    storage = sum(image.gigabytes for image in images) * GIGABYTE_MONTH
    lines = [
        f"Estimate of {today:%Y-%m-%d}, with AWS's prices in us-east-1 of {PRICES_DATE} "
        "(other regions differ):",
        f"  at zero instances: ${storage:.2f} a month for the images in ECR, and cents for alarms, "
        "logs and bucket",
    ]
    lines += [estimate_endpoint(endpoint) for endpoint in settings]
    lines += [
        f"  assumed: {START_MINUTES} minutes to start an instance and {STOP_MINUTES} to stop it, "
        "both paid;",
        "  pictures of the size that the bot asks for; their seconds were not measured on these "
        "instances;",
        "  no free tier, no tax",
    ]
    return "\n".join(lines)


def estimate_endpoint(endpoint: EndpointSettings) -> str:
    price = PRICES.get(endpoint.instance_type)
    if price is None:
        return (
            f"  {endpoint.name}: the price of {endpoint.instance_type} is not known here; "
            "see aws.amazon.com/sagemaker/pricing"
        )

    seconds = PICTURE_SECONDS[endpoint.model]
    busy_price = price * seconds / 3600
    single_price = price * (START_MINUTES + STOP_MINUTES + seconds / 60) / 60
    always_on = ""
    if endpoint.min_instances:
        monthly_price = price * endpoint.min_instances * HOURS_A_MONTH
        always_on = f", ${monthly_price:.0f} a month always on"
    return (
        f"  {endpoint.name}: ${price:.3f} an hour and instance{always_on}"
        f"{describe_fallbacks(endpoint)}; "
        f"${busy_price:.4f} a picture of {seconds} s in a busy hour, "
        f"${single_price:.2f} a single one"
    )


def describe_fallbacks(endpoint: EndpointSettings) -> str:
    """Return the hourly prices of what is taken where the first instance type has no capacity."""
    parts = []
    for instance_type in endpoint.fallback_types:
        price = PRICES.get(instance_type)
        parts.append(f"{f'${price:.3f}' if price else 'an unknown price'} on an {instance_type}")
    if not parts:
        return ""
    return f" ({', '.join(parts)}, where AWS has no {endpoint.instance_type})"


def estimate_bot() -> str:
    """Return what the bot costs on Fargate, as a line of text."""
    task = TASK_SPOT_HOUR * HOURS_A_MONTH
    address = PUBLIC_ADDRESS_HOUR * HOURS_A_MONTH
    return (
        f"  the bot on Fargate: ${task + address:.2f} a month, ${task:.2f} for its Spot capacity "
        f"and ${address:.2f} for its public IPv4 address"
    )


def describe_daily_cost(instance_type: str, count: int) -> str:
    """Return, for example, "$17.66 a day (ml.g4dn.xlarge)"."""
    price = PRICES.get(instance_type)
    if price is None:
        return f"an unknown sum a day ({instance_type})"
    times = f"{count} x " if count > 1 else ""
    return f"${price * count * 24:.2f} a day ({times}{instance_type})"


# ---------------------------------------------------------------- trainings


def estimate_training(instance_type: str, minutes: float, spot: bool, longest_seconds: int) -> str:
    """Return what a training will cost, as lines of text.

    `longest_seconds` is the time after which SageMaker stops the job.
    """
    price = TRAINING_PRICES.get(instance_type)
    if price is None:
        return (
            f"The price of {instance_type} is not known here; see aws.amazon.com/sagemaker/pricing."
            f" SageMaker stops the training after {longest_seconds / 60:.0f} minutes at the latest."
        )

    paid_minutes = minutes + TRAINING_OVERHEAD_MINUTES
    usual = price * paid_minutes / 60
    largest = price * longest_seconds / 3600
    lines = [
        f"Estimate: ${usual:.2f} on demand, for {minutes:g} minutes of training and about "
        f"{TRAINING_OVERHEAD_MINUTES} to load and save, on an {instance_type} at ${price:.3f} an "
        f"hour (us-east-1, {PRICES_DATE}; other regions differ).",
        f"  SageMaker stops the job after {longest_seconds / 60:.0f} minutes: it costs at most "
        f"${largest:.2f}.",
    ]
    if spot:
        lines.append("  With Spot you pay less: its prices vary, and these are the most.")
    return "\n".join(lines)


def describe_training_cost(job: dict[str, Any]) -> str:
    """Return what a training job that has ended has cost, by SageMaker's description of it."""
    billable = job.get("BillableTimeInSeconds")
    trained = job.get("TrainingTimeInSeconds")
    if billable is None or trained is None:
        return "SageMaker tells no time: nothing is billed for a training that did not start."

    # SageMaker tells the discount of Spot as less time at the price on demand.
    text = f"It ran for {trained / 60:.0f} minutes, of which {billable / 60:.0f} are billed"
    if job.get("EnableManagedSpotTraining") and trained:
        text += f": {1 - billable / trained:.0%} saved by Spot"

    price = TRAINING_PRICES.get(job["ResourceConfig"]["InstanceType"])
    if price is None:
        return f"{text}."
    return f"{text}. Cost: ${price * billable / 3600:.2f}, by the prices of {PRICES_DATE}."
