"""The CloudWatch dashboard: what the endpoints do, how they are, and what they cost."""

import json
from typing import Any

from aws import alarms
from aws.account import Account
from aws.calls import Answer, delete_if_present, find, perform
from aws.changes import Change, Changes
from aws.cost import PRICES, PRICES_DATE
from aws.endpoint_settings import VARIANT, EndpointSettings
from aws.metrics import ENDPOINT_NAMESPACE, INSTANCE_METRIC, INSTANCE_NAMESPACE
from bot import ALARM_KINDS

# Widgets stand in a grid of 24 columns.
WIDTH = 12
HEIGHT = 6
HOUR = 3600
ERRORS = {"Invocation5XXErrors": "the model", "Invocation4XXErrors": "the picture"}
# A line of a widget: a metric or an expression, as the body of a dashboard has it
Metric = list[Any]


def find_dashboard(account: Account) -> Answer | None:
    return find(account.cloudwatch.get_dashboard, DashboardName=account.dashboard)


def ensure_dashboard(account: Account, settings: list[EndpointSettings]) -> Changes:
    """Yield the creation or the update of the dashboard."""
    wanted = describe_dashboard(account, settings)
    found = find_dashboard(account)
    if found is not None and json.loads(found["DashboardBody"]) == wanted:
        return
    # CloudWatch takes tags only when it creates a dashboard.
    tags = {} if found is not None else {"Tags": account.tag_list}
    yield Change(
        f"set the dashboard {account.dashboard}",
        lambda: perform(
            account.clock,
            account.cloudwatch.put_dashboard,
            DashboardName=account.dashboard,
            DashboardBody=json.dumps(wanted),
            **tags,
        ),
    )


def remove_dashboard(account: Account) -> Changes:
    """Yield the deletion of the dashboard, if `up` created it."""
    if find_dashboard(account) is None:
        return
    arn = f"arn:{account.partition}:cloudwatch::{account.id}:dashboard/{account.dashboard}"
    tags = account.cloudwatch.list_tags_for_resource(ResourceARN=arn)["Tags"]
    if not account.is_ours(tags):
        return
    yield Change(
        f"delete the dashboard {account.dashboard}",
        lambda: delete_if_present(
            account.clock,
            account.cloudwatch.delete_dashboards,
            DashboardNames=[account.dashboard],
        ),
    )


def describe_url(account: Account) -> str:
    """Return the address of the dashboard in AWS's console."""
    return (
        f"{account.console}/cloudwatch/home?region={account.region}"
        f"#dashboards/dashboard/{account.dashboard}"
    )


# ---------------------------------------------------------------- the body


def describe_dashboard(account: Account, settings: list[EndpointSettings]) -> dict[str, Any]:
    """Return the body of the dashboard."""
    requests: list[Metric] = []
    seconds: list[Metric] = []
    backlog: list[Metric] = []
    instances: list[Metric] = []
    errors: list[Metric] = []
    for number, endpoint in enumerate(settings):
        name = endpoint.name
        requests.append(variant_metric(name, "InvocationsProcessed", label=name, stat="Sum"))
        seconds.append([{"expression": f"t{number} / 1000", "id": f"s{number}", "label": name}])
        seconds.append(
            variant_metric(
                name, "TotalProcessingTime", id=f"t{number}", visible=False, stat="Average"
            )
        )
        backlog.append(queue_metric(name, "ApproximateBacklogSize", label=f"{name}: pictures"))
        backlog.append(
            queue_metric(
                name,
                "ApproximateAgeOfOldestRequest",
                label=f"{name}: seconds of the oldest",
                yAxis="right",
            )
        )
        instances.append(instance_metric(name, label=name, period=60))
        for metric, label in ERRORS.items():
            errors.append(variant_metric(name, metric, label=f"{name}: {label}", stat="Sum"))

    graphs = [
        ("Requests", requests),
        ("Seconds for a picture", seconds),
        ("Waiting", backlog),
        ("Instances", instances),
        ("Errors: of the model, and pictures that it cannot read", errors),
        (f"Dollars an hour, by the prices of {PRICES_DATE} in us-east-1", dollars(settings)),
    ]
    widgets = [describe_alarms(account, settings)]
    for number, (title, metrics) in enumerate(graphs):
        x = WIDTH * (number % 2)
        y = 2 + HEIGHT * (number // 2)
        widgets.append(describe_graph(account, title, metrics, x, y))
    return {"widgets": widgets}


def describe_graph(
    account: Account, title: str, metrics: list[Metric], x: int, y: int
) -> dict[str, Any]:
    return {
        "type": "metric",
        "x": x,
        "y": y,
        "width": WIDTH,
        "height": HEIGHT,
        "properties": {
            "title": title,
            "region": account.region,
            "view": "timeSeries",
            "period": 300,
            "metrics": metrics,
        },
    }


def describe_alarms(account: Account, settings: list[EndpointSettings]) -> dict[str, Any]:
    names = [alarms.silent_alarm_name(account)]
    for endpoint in settings:
        names += [f"{endpoint.name}-{kind}" for kind in ALARM_KINDS]
    arn = f"arn:{account.partition}:cloudwatch:{account.region}:{account.id}:alarm"
    return {
        "type": "alarm",
        "x": 0,
        "y": 0,
        "width": 2 * WIDTH,
        "height": 2,
        "properties": {
            "title": f"{account.prefix}, as ./deploy.py up has made it",
            "alarms": [f"{arn}:{name}" for name in names],
        },
    }


def dollars(settings: list[EndpointSettings]) -> list[Metric]:
    """Return what the instances of each hour cost. Types without a known price are left out."""
    metrics: list[Metric] = []
    for number, endpoint in enumerate(settings):
        terms = []
        for place, instance_type in enumerate(endpoint.instance_types):
            if instance_type not in PRICES:
                continue
            metric = f"m{number}_{place}"
            # Of a type that was not in use there are no samples.
            terms.append(f"FILL({metric}, 0) / 60 * {PRICES[instance_type]}")
            kind = instance_type if endpoint.fallback_types else ""
            line = instance_metric(endpoint.name, kind, id=metric, visible=False, period=HOUR)
            metrics.append(line)
        if terms:
            expression = " + ".join(terms)
            metrics.append([{"expression": expression, "id": f"d{number}", "label": endpoint.name}])
    return metrics


def variant_metric(endpoint: str, metric: str, **options: object) -> Metric:
    """Return a metric of the endpoint's only variant."""
    dimensions = ["EndpointName", endpoint, "VariantName", VARIANT]
    return [ENDPOINT_NAMESPACE, metric, *dimensions, options]


def queue_metric(endpoint: str, metric: str, **options: object) -> Metric:
    return [ENDPOINT_NAMESPACE, metric, "EndpointName", endpoint, {"stat": "Maximum", **options}]


def instance_metric(endpoint: str, instance_type: str = "", **options: object) -> Metric:
    """Return how many samples the instances have written, one a minute each.

    They are those of all instances or, of an endpoint with several types, of one type.
    """
    dimensions = ["EndpointName", endpoint, "VariantName", VARIANT]
    if instance_type:
        dimensions += ["InstanceType", instance_type]
    return [INSTANCE_NAMESPACE, INSTANCE_METRIC, *dimensions, {"stat": "SampleCount", **options}]
