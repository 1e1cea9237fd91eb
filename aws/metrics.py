"""Reading CloudWatch's metrics of an endpoint."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from aws.account import Account
from aws.endpoint_settings import VARIANT

# What the endpoint does, and what its instances do
ENDPOINT_NAMESPACE = "AWS/SageMaker"
INSTANCE_NAMESPACE = "/aws/sagemaker/Endpoints"
# An instance writes one sample of this metric a minute: their number tells how many there were.
INSTANCE_METRIC = "CPUUtilization"


def describe_dimensions(
    endpoint: str, variant: str = VARIANT, instance_type: str = ""
) -> list[dict[str, str]]:
    """Return the dimensions of a metric. Those of the queue have no variant ("").

    Where an endpoint has several instance types, each metric also exists for each type.
    """
    dimensions = [{"Name": "EndpointName", "Value": endpoint}]
    if variant:
        dimensions.append({"Name": "VariantName", "Value": variant})
    if instance_type:
        dimensions.append({"Name": "InstanceType", "Value": instance_type})
    return dimensions


def read_metric(
    account: Account,
    endpoint: str,
    metric: str,
    statistic: str,
    back: timedelta,
    period: int = 60,
    variant: str = "",
    namespace: str = ENDPOINT_NAMESPACE,
    instance_type: str = "",
) -> list[tuple[datetime, float]]:
    """Return the times and values of a metric, the oldest first.

    `period` is in seconds. CloudWatch keeps minutes for 15 days and hours for 455.
    """
    now = datetime.now(timezone.utc)
    points = account.cloudwatch.get_metric_statistics(
        Namespace=namespace,
        MetricName=metric,
        Dimensions=describe_dimensions(endpoint, variant, instance_type),
        StartTime=now - back,
        EndTime=now,
        Period=period,
        Statistics=[statistic],
    )["Datapoints"]
    return sorted((point["Timestamp"], point[statistic]) for point in points)
