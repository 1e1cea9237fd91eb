"""The command cost: what the endpoints and the trainings of the last days have cost, roughly."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, datetime, timedelta, timezone

from aws.account import Account
from aws.configs import find_config, instance_types_of
from aws.cost import PRICES, PRICES_DATE, TRAINING_PRICES
from aws.endpoint_settings import VARIANT
from aws.endpoints import find_endpoint
from aws.messages import output
from aws.metrics import ENDPOINT_NAMESPACE, INSTANCE_METRIC, INSTANCE_NAMESPACE, read_metric
from aws.trainings import list_jobs_since
from bot import MODELS

HOUR_SECONDS = 3600


def cost(account: Account, days: int) -> int:
    """Print what the last days, today among them, have cost. Return the exit code."""
    today = datetime.now(timezone.utc).date()
    first = today - timedelta(days=days - 1)
    output(
        f"Estimate for {days} days up to now (UTC), by the prices of {PRICES_DATE} in us-east-1; "
        "the bill is AWS's."
    )
    total = 0.0
    for model in MODELS:
        total += report_endpoint(account, model, first)
    total += report_trainings(account, first)
    output(f"together: ${total:.2f}")
    output(
        "Not in it: images in ECR, the bot's own home, logs, alarms and S3, some dollars a month; "
        "tax; other regions' prices."
    )
    return 0


def report_endpoint(account: Account, model: str, first: date) -> float:
    """Print the days of one endpoint since `first`, and return their dollars."""
    name = account.endpoint_name(model)
    instance_type = find_instance_type(account, name)
    price = PRICES.get(instance_type)
    hours = read_instance_hours(account, name, first)
    pictures = read_days(account, name, first, "InvocationsProcessed", "Sum")

    if instance_type == "?":
        output(f"{name}, which does not exist; the type of its instances is not known:")
    else:
        output(f"{name}, on {instance_type}{describe_price(price)}:")
    for day in sorted({*hours, *pictures}):
        output(f"  {day:%Y-%m-%d}  {describe_use(hours[day], pictures[day], price)}")
    if not hours and not pictures:
        output("  no instance was on")
        return 0.0
    all_hours = sum(hours.values())
    output(f"  together    {describe_use(all_hours, sum(pictures.values()), price)}")
    return all_hours * (price or 0.0)


def find_instance_type(account: Account, name: str) -> str:
    """Return the endpoint's instance type, or "?" if it does not exist any more.

    Of several types it is the one that is tried first.
    """
    endpoint = find_endpoint(account, name)
    if endpoint is None:
        return "?"
    config = find_config(account, endpoint["EndpointConfigName"]) or {"ProductionVariants": [{}]}
    return next(iter(instance_types_of(config["ProductionVariants"][0])), "?")


def describe_price(price: float | None) -> str:
    if price is None:
        return ", whose price is not known here (see aws.amazon.com/sagemaker/pricing)"
    return f" at ${price:.3f} an hour"


def describe_use(hours: float, pictures: float, price: float | None) -> str:
    """Return, for example, "2.5 hours, $1.84, 40 pictures, $0.046 each"."""
    parts = [f"{hours:.1f} hours"]
    if price is not None:
        parts.append(f"${hours * price:.2f}")
    parts.append(f"{pictures:.0f} pictures")
    if price is not None and pictures:
        parts.append(f"${hours * price / pictures:.3f} each")
    return ", ".join(parts)


def read_instance_hours(account: Account, endpoint: str, first: date) -> defaultdict[date, float]:
    """Return the hours of all instances together, by the day.

    Each instance writes one sample of its metrics a minute.
    """
    minutes = read_days(
        account, endpoint, first, INSTANCE_METRIC, "SampleCount", INSTANCE_NAMESPACE
    )
    hours: defaultdict[date, float] = defaultdict(float)
    for day, count in minutes.items():
        hours[day] = count / 60
    return hours


def read_days(
    account: Account,
    endpoint: str,
    first: date,
    metric: str,
    statistic: str,
    namespace: str = ENDPOINT_NAMESPACE,
) -> defaultdict[date, float]:
    """Return the sums of a metric by the day (UTC), of days on which there is one."""
    midnight = datetime(first.year, first.month, first.day, tzinfo=timezone.utc)
    back = datetime.now(timezone.utc) - midnight
    points = read_metric(
        account, endpoint, metric, statistic, back, HOUR_SECONDS, VARIANT, namespace
    )
    days: defaultdict[date, float] = defaultdict(float)
    for time, value in points:
        days[time.astimezone(timezone.utc).date()] += value
    return days


def report_trainings(account: Account, first: date) -> float:
    """Print what the trainings since `first` have cost, and return it."""
    midnight = datetime(first.year, first.month, first.day, tzinfo=timezone.utc)
    jobs = list_jobs_since(account, midnight)
    if not jobs:
        return 0.0
    dollars = 0.0
    unknown = 0
    for job in jobs:
        price = TRAINING_PRICES.get(job["ResourceConfig"]["InstanceType"])
        if price is None:
            unknown += 1
            continue
        # Of one that runs, SageMaker tells no billed time yet.
        dollars += price * job.get("BillableTimeInSeconds", 0) / HOUR_SECONDS
    text = f"trainings: {len(jobs)}, ${dollars:.2f}"
    if unknown:
        text += f", and {unknown} on instances whose price is not known here"
    output(text)
    return dollars
