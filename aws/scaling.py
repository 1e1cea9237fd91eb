"""Application Auto Scaling: from zero instances, with the backlog, and back to zero."""

from functools import partial

from aws.account import Account
from aws.alarms import ensure_wake_alarm, remove_wake_alarm
from aws.calls import Answer, delete_if_present, is_subset, perform
from aws.changes import Change, Changes
from aws.endpoint_settings import VARIANT, EndpointSettings
from aws.metrics import ENDPOINT_NAMESPACE, describe_dimensions
from bot import INVOCATION_SECONDS

NAMESPACE = "sagemaker"
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
# One more instance for every five requests that wait.
BACKLOG_PER_INSTANCE = 5.0
# Between two scale-ins: it counts from the last one. The first one comes when the backlog has been
# small for 15 minutes, which is how long AWS's own alarm looks back.
SCALE_IN_COOLDOWN = INVOCATION_SECONDS + 60
SCALE_OUT_COOLDOWN = 300


def resource_id(endpoint: str) -> str:
    return f"endpoint/{endpoint}/variant/{VARIANT}"


def scalable_target(endpoint: str) -> dict[str, str]:
    """Return the three arguments that name an endpoint to Application Auto Scaling."""
    return {
        "ServiceNamespace": NAMESPACE,
        "ResourceId": resource_id(endpoint),
        "ScalableDimension": DIMENSION,
    }


def backlog_policy_name(endpoint: str) -> str:
    return f"{endpoint}-follow"


def wake_policy_name(endpoint: str) -> str:
    return f"{endpoint}-wake"


def find_scalable_target(account: Account, endpoint: str) -> Answer | None:
    """Return the registration of the endpoint, with its MinCapacity and MaxCapacity."""
    found = account.scaling.describe_scalable_targets(
        ServiceNamespace=NAMESPACE,
        ResourceIds=[resource_id(endpoint)],
        ScalableDimension=DIMENSION,
    )
    targets: list[Answer] = found["ScalableTargets"]
    if not targets:
        return None
    return targets[0]


def find_wake_policy(account: Account, endpoint: str) -> Answer | None:
    return find_policies(account, endpoint).get(wake_policy_name(endpoint))


def find_policies(account: Account, endpoint: str) -> dict[str, Answer]:
    """Return the endpoint's scaling policies by name."""
    found = account.scaling.describe_scaling_policies(**scalable_target(endpoint))
    return {policy["PolicyName"]: policy for policy in found["ScalingPolicies"]}


def can_sleep(account: Account, endpoint: str) -> bool:
    """Return whether the endpoint scales: something stops an instance that has no work."""
    if find_scalable_target(account, endpoint) is None:
        return False
    return backlog_policy_name(endpoint) in find_policies(account, endpoint)


# ---------------------------------------------------------------- ensure


def ensure_scaling(account: Account, settings: EndpointSettings) -> Changes:
    """Yield what is missing to have the endpoint scale between its limits."""
    yield from ensure_scalable_target(account, settings)
    yield from ensure_backlog_policy(account, settings.name)
    if settings.min_instances > 0:
        yield from remove_wake_alarm(account, settings.name)
        yield from remove_wake_policy(account, settings.name)
        return

    # The backlog policy divides by the number of instances, so it sees no backlog while there are
    # none. Another policy, run by an alarm, starts the first instance.
    yield from ensure_wake_policy(account, settings.name)
    yield from ensure_wake_alarm(
        account, settings.name, partial(find_wake_policy, account, settings.name)
    )


def ensure_scalable_target(account: Account, settings: EndpointSettings) -> Changes:
    limits = {"MinCapacity": settings.min_instances, "MaxCapacity": settings.max_instances}
    if is_subset(limits, find_scalable_target(account, settings.name)):
        return
    yield Change(
        f"scale {settings.name} from {settings.min_instances} to {settings.max_instances} "
        "instances",
        lambda: perform(
            account.clock,
            account.scaling.register_scalable_target,
            **scalable_target(settings.name),
            **limits,
        ),
    )


def ensure_backlog_policy(account: Account, endpoint: str) -> Changes:
    """Yield what is missing to have the policy that follows the backlog."""
    wanted = {
        "CustomizedMetricSpecification": {
            "Namespace": ENDPOINT_NAMESPACE,
            "MetricName": "ApproximateBacklogSizePerInstance",
            "Dimensions": describe_dimensions(endpoint, variant=""),
            "Statistic": "Average",
        },
        "TargetValue": BACKLOG_PER_INSTANCE,
        "ScaleInCooldown": SCALE_IN_COOLDOWN,
        "ScaleOutCooldown": SCALE_OUT_COOLDOWN,
    }
    name = backlog_policy_name(endpoint)
    policy = find_policies(account, endpoint).get(name, {})
    if is_subset(wanted, policy.get("TargetTrackingScalingPolicyConfiguration")):
        return
    yield Change(
        f"set the scaling policy {name}",
        lambda: perform(
            account.clock,
            account.scaling.put_scaling_policy,
            **scalable_target(endpoint),
            PolicyName=name,
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration=wanted,
        ),
    )


def ensure_wake_policy(account: Account, endpoint: str) -> Changes:
    """Yield what is missing to have the policy that starts one instance."""
    wanted = {
        "AdjustmentType": "ChangeInCapacity",
        "MetricAggregationType": "Average",
        "Cooldown": SCALE_OUT_COOLDOWN,
        "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
    }
    name = wake_policy_name(endpoint)
    policy = find_policies(account, endpoint).get(name, {})
    if is_subset(wanted, policy.get("StepScalingPolicyConfiguration")):
        return
    yield Change(
        f"set the scaling policy {name}",
        lambda: perform(
            account.clock,
            account.scaling.put_scaling_policy,
            **scalable_target(endpoint),
            PolicyName=name,
            PolicyType="StepScaling",
            StepScalingPolicyConfiguration=wanted,
        ),
    )


# ---------------------------------------------------------------- remove


def remove_wake_policy(account: Account, endpoint: str) -> Changes:
    """Yield the deletion of the policy that an endpoint without sleep does not need."""
    name = wake_policy_name(endpoint)
    if name not in find_policies(account, endpoint):
        return
    yield Change(
        f"delete the scaling policy {name}", lambda: delete_policy(account, endpoint, name)
    )


def remove_scaling(account: Account, endpoint: str) -> Changes:
    """Yield the end of the endpoint's scaling, if it scales."""
    if find_scalable_target(account, endpoint) is None and not find_policies(account, endpoint):
        return
    yield Change(f"stop scaling {endpoint}", lambda: delete_scaling(account, endpoint))


def delete_scaling(account: Account, endpoint: str) -> None:
    """Delete the policies, then the registration: AWS does not list a policy without it."""
    for name in find_policies(account, endpoint):
        delete_policy(account, endpoint, name)
    delete_if_present(
        account.clock, account.scaling.deregister_scalable_target, **scalable_target(endpoint)
    )


def delete_policy(account: Account, endpoint: str, name: str) -> None:
    delete_if_present(
        account.clock,
        account.scaling.delete_scaling_policy,
        **scalable_target(endpoint),
        PolicyName=name,
    )
