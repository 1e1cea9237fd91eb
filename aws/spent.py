"""The command cost: what the endpoints and the trainings of the last days have cost, roughly.

An endpoint may have several instance types. CloudWatch tells the hours of each type; those of which
it tells no type have cost something between the cheapest and the dearest.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date, datetime, timedelta, timezone
from typing import NamedTuple

from aws.account import Account
from aws.configs import find_instance_types
from aws.cost import PRICES, PRICES_DATE, TRAINING_PRICES
from aws.endpoint_settings import VARIANT
from aws.endpoints import find_endpoint
from aws.history import read_history
from aws.messages import output
from aws.metrics import ENDPOINT_NAMESPACE, INSTANCE_METRIC, INSTANCE_NAMESPACE, read_metric
from aws.trainings import list_jobs_since
from bot import MODELS

HOUR_SECONDS = 3600
# Stands for the type of an instance of which CloudWatch tells none
UNKNOWN = ""
# The hours of instances by their type
Hours = dict[str, float]


class Dollars(NamedTuple):
    """A sum that is known, then both are the same, or the least and the most that it can be."""

    least: float = 0.0
    most: float = 0.0

    def plus(self, other: Dollars) -> Dollars:
        return Dollars(self.least + other.least, self.most + other.most)

    def describe(self, digits: int = 2) -> str:
        """Return, for example, "$1.47" or "$1.47 to $2.82"."""
        least = f"${self.least:.{digits}f}"
        most = f"${self.most:.{digits}f}"
        if least == most:
            return least
        return f"{least} to {most}"


def cost(account: Account, days: int) -> int:
    """Print what the last days, today among them, have cost. Return the exit code."""
    today = datetime.now(timezone.utc).date()
    first = today - timedelta(days=days - 1)
    output(
        f"Estimate for {days} days up to now (UTC), by the prices of {PRICES_DATE} in us-east-1; "
        "the bill is AWS's."
    )
    total = Dollars()
    for model in MODELS:
        total = total.plus(report_endpoint(account, model, first))
    trainings = report_trainings(account, first)
    total = total.plus(Dollars(trainings, trainings))
    output(f"together: {total.describe()}")
    output(
        "Not in it: images in ECR, the bot's own home, logs, alarms and S3, some dollars a month; "
        "tax; other regions' prices."
    )
    return 0


def report_endpoint(account: Account, model: str, first: date) -> Dollars:
    """Print the days of one endpoint since `first`, and return their dollars."""
    name = account.endpoint_name(model)
    types = find_types(account, name, first)
    hours = read_hours(account, name, first, types)
    pictures = read_days(account, name, first, "InvocationsProcessed", "Sum")

    if types:
        output(f"{name}, on {' or '.join(describe_type(kind) for kind in types)}:")
    else:
        output(f"{name}, which does not exist; the type of its instances is not known:")
    if not hours and not pictures:
        output("  no instance was on")
        return Dollars()

    all_hours: defaultdict[str, float] = defaultdict(float)
    for day in sorted({*hours, *pictures}):
        output(f"  {day:%Y-%m-%d}  {describe_use(hours[day], pictures[day], types)}")
        for kind, count in hours[day].items():
            all_hours[kind] += count
    output(f"  together    {describe_use(all_hours, sum(pictures.values()), types)}")
    return price_hours(all_hours, types) or Dollars()


def find_types(account: Account, name: str, first: date) -> list[str]:
    """Return the instance types that the endpoint may have had since `first`.

    They are those of what serves now, of each release since then, and of the one before.
    """
    types = []
    endpoint = find_endpoint(account, name)
    if endpoint is not None:
        types += find_instance_types(account, endpoint["EndpointConfigName"])
    midnight = midnight_of(first).timestamp()
    for release in reversed(read_history(account, name).releases):
        types += release.instance_types
        if release.started < midnight:
            break
    # In their order, each once
    return list(dict.fromkeys(types))


def describe_type(instance_type: str) -> str:
    price = PRICES.get(instance_type)
    if price is None:
        return (
            f"{instance_type}, whose price is not known here (see aws.amazon.com/sagemaker/pricing)"
        )
    return f"{instance_type} at ${price:.3f} an hour"


def describe_use(hours: Hours, pictures: float, types: list[str]) -> str:
    """Return, for example, "2.5 hours, $1.84, 40 pictures, $0.046 each"."""
    known = sorted(kind for kind in hours if kind != UNKNOWN)
    parts = [f"{sum(hours.values()):.1f} hours"]
    if len(types) > 1 and known:
        parts[0] += f" ({', '.join(f'{hours[kind]:.1f} on {kind}' for kind in known)})"
    dollars = price_hours(hours, types)
    if dollars is not None:
        parts.append(dollars.describe())
    parts.append(f"{pictures:.0f} pictures")
    if dollars is not None and pictures:
        each = Dollars(dollars.least / pictures, dollars.most / pictures)
        parts.append(f"{each.describe(digits=3)} each")
    return ", ".join(parts)


def price_hours(hours: Hours, types: list[str]) -> Dollars | None:
    """Return what the hours have cost, or None if a price is not known here.

    `types` are those among which the hours of an unknown type are.
    """
    dollars = Dollars()
    for kind, count in hours.items():
        possible = [kind]
        if kind == UNKNOWN:
            possible = types
        prices = [PRICES[name] for name in possible if name in PRICES]
        if not prices or len(prices) < len(possible):
            return None
        dollars = dollars.plus(Dollars(count * min(prices), count * max(prices)))
    return dollars


# ---------------------------------------------------------------- CloudWatch


def read_hours(
    account: Account, endpoint: str, first: date, types: list[str]
) -> defaultdict[date, Hours]:
    """Return the hours of all instances together, by the day and the type.

    Each instance writes one sample of its metrics a minute. Those of an endpoint with several types
    exist with and without the type.
    """
    hours: defaultdict[date, Hours] = defaultdict(dict)
    for kind in types:
        for day, count in read_samples(account, endpoint, first, kind).items():
            hours[day][kind] = count / 60
    for day, count in read_samples(account, endpoint, first, UNKNOWN).items():
        rest = count / 60 - sum(hours[day].values())
        if rest > 0:
            hours[day][UNKNOWN] = rest
    return hours


def read_samples(
    account: Account, endpoint: str, first: date, instance_type: str
) -> defaultdict[date, float]:
    return read_days(
        account,
        endpoint,
        first,
        INSTANCE_METRIC,
        "SampleCount",
        INSTANCE_NAMESPACE,
        instance_type,
    )


def read_days(
    account: Account,
    endpoint: str,
    first: date,
    metric: str,
    statistic: str,
    namespace: str = ENDPOINT_NAMESPACE,
    instance_type: str = "",
) -> defaultdict[date, float]:
    """Return the sums of a metric by the day (UTC), of days on which there is one."""
    points = read_metric(
        account,
        endpoint,
        metric,
        statistic,
        datetime.now(timezone.utc) - midnight_of(first),
        HOUR_SECONDS,
        VARIANT,
        namespace,
        instance_type,
    )
    days: defaultdict[date, float] = defaultdict(float)
    for time, value in points:
        days[time.astimezone(timezone.utc).date()] += value
    return days


def midnight_of(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=timezone.utc)


# ---------------------------------------------------------------- trainings


def report_trainings(account: Account, first: date) -> float:
    """Print what the trainings since `first` have cost, and return it."""
    jobs = list_jobs_since(account, midnight_of(first))
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
