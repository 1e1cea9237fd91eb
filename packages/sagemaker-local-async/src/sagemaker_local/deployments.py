"""Deployments: from an endpoint configuration and its models to variants that answer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sagemaker_local.endpoint import AsyncSettings, Variant
from sagemaker_local.instances import InstanceError, create_instance
from sagemaker_local.notifications import NotificationSettings
from sagemaker_local.resources import Deployment
from sagemaker_local.s3 import S3Client, split_s3_url

DEFAULT_STARTUP_SECONDS = 480
POLL_SECONDS = 0.5


def create_variants(
    endpoint: str, deployment: Deployment, s3: S3Client, owner: str
) -> list[Variant]:
    """Return the variants of a deployment, whose instances are not started."""
    variants = []
    for wanted in deployment.config["ProductionVariants"]:
        name = wanted["VariantName"]
        container = deployment.containers[wanted["ModelName"]]
        instance = create_instance(f"{endpoint}-{name}", container, s3, owner)
        variants.append(Variant(name, instance, wanted.get("InitialVariantWeight", 1.0)))
    return variants


def startup_seconds(deployment: Deployment) -> float:
    """Return how long the slowest variant may take until it is healthy."""
    name = "ContainerStartupHealthCheckTimeoutInSeconds"
    variants = deployment.config["ProductionVariants"]
    return float(max(variant.get(name, DEFAULT_STARTUP_SECONDS) for variant in variants))


def start_variants(variants: Sequence[Variant], seconds: float) -> str:
    """Start the instances and wait until all are healthy. Return "", or why they are not."""
    for variant in variants:
        try:
            variant.start()
        except InstanceError as error:
            return str(error)
    deadline = time.monotonic() + seconds
    for variant in variants:
        if problem := wait_until_healthy(variant, deadline):
            return problem
    return ""


def wait_until_healthy(variant: Variant, deadline: float) -> str:
    """Return "" once the variant is healthy, and in service; or a FailureReason."""
    while True:
        problem = variant.instance.container.find_ping_problem()
        if not problem:
            variant.in_service = True
            variant.problem = ""
            return ""
        if variant.instance.has_exited():
            return failure_reason(variant, "the container has ended")
        if time.monotonic() > deadline:
            return failure_reason(variant, problem)
        time.sleep(POLL_SECONDS)


def failure_reason(variant: Variant, problem: str) -> str:
    """Return SageMaker's words for a container that does not come up, and the end of its log."""
    reason = (
        f"The primary container for production variant {variant.name} did not pass the ping health "
        f"check: {problem}."
    )
    # FailureReason has at most 1024 characters, and the last lines tell most.
    last_lines = variant.instance.last_lines()[-700:]
    if not last_lines:
        return reason
    return f"{reason} The last lines of its log:\n{last_lines}"


def stop_variants(variants: Sequence[Variant]) -> None:
    for variant in variants:
        variant.stop()


# ------------------------------------------------------------ asynchronous inference


def async_settings(
    config: Mapping[str, Any], default_output: str, idle_seconds: float
) -> AsyncSettings:
    """Return what the arguments of CreateEndpointConfig say of asynchronous inference."""
    asynchronous = config["AsyncInferenceConfig"]
    output = asynchronous["OutputConfig"]
    output_path = output.get("S3OutputPath", default_output).rstrip("/")
    failure_path = output.get("S3FailurePath") or failure_path_beside(output_path)
    client = asynchronous.get("ClientConfig", {})
    notification = output.get("NotificationConfig", {})
    return AsyncSettings(
        output_path=output_path,
        failure_path=failure_path.rstrip("/"),
        workers=client.get("MaxConcurrentInvocationsPerInstance", 1),
        idle_seconds=idle_seconds,
        notifications=NotificationSettings(
            notification.get("SuccessTopic", ""),
            notification.get("ErrorTopic", ""),
            tuple(notification.get("IncludeInferenceResponseIn", ())),
        ),
    )


def failure_path_beside(output_path: str) -> str:
    """Return the output path with "failure" in the place of its last part.

    Of a whole bucket it is the folder "failure".
    """
    bucket, prefix = split_s3_url(output_path)
    parent, _, last = prefix.rstrip("/").rpartition("/")
    parts = ["s3:/", bucket, parent, "failure"]
    if not last:
        parts = ["s3:/", bucket, "failure"]
    return "/".join(part for part in parts if part)
