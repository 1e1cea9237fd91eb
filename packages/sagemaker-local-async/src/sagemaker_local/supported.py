"""What the calls of the control plane may ask for: the members that have an effect here.

Some have none, because there are no instances and no roles on one machine: InstanceType,
InitialVariantWeight of a single variant, VolumeSizeInGB, ExecutionRoleArn and such. They are kept,
and the calls of Describe... return them. Every other member is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sagemaker_local.errors import not_supported

# None: the member with everything in it. A list has the members of its items.
Supported = Mapping[str, Any]

CONTAINER: Supported = {
    "ContainerHostname": None,
    "Image": None,
    "Mode": None,
    "ModelDataUrl": None,
    "ModelDataSource": {
        "S3DataSource": {"S3Uri": None, "S3DataType": None, "CompressionType": None}
    },
    "Environment": None,
}

VARIANT: Supported = {
    "VariantName": None,
    "ModelName": None,
    "InitialInstanceCount": None,
    "InstanceType": None,
    "InitialVariantWeight": None,
    "VolumeSizeInGB": None,
    "ModelDataDownloadTimeoutInSeconds": None,
    "ContainerStartupHealthCheckTimeoutInSeconds": None,
    "InferenceAmiVersion": None,
}

ASYNC: Supported = {
    "ClientConfig": {"MaxConcurrentInvocationsPerInstance": None},
    "OutputConfig": {
        "S3OutputPath": None,
        "S3FailurePath": None,
        "NotificationConfig": {
            "SuccessTopic": None,
            "ErrorTopic": None,
            "IncludeInferenceResponseIn": None,
        },
    },
}

SUPPORTED: Mapping[str, Supported] = {
    "CreateModel": {
        "ModelName": None,
        "PrimaryContainer": CONTAINER,
        "Containers": CONTAINER,
        "ExecutionRoleArn": None,
        "Tags": None,
        "EnableNetworkIsolation": None,
    },
    "CreateEndpointConfig": {
        "EndpointConfigName": None,
        "ProductionVariants": VARIANT,
        "AsyncInferenceConfig": ASYNC,
        "ExecutionRoleArn": None,
        "Tags": None,
        "EnableNetworkIsolation": None,
    },
    "CreateEndpoint": {"EndpointName": None, "EndpointConfigName": None, "Tags": None},
    "UpdateEndpoint": {
        "EndpointName": None,
        "EndpointConfigName": None,
        "RetainAllVariantProperties": None,
    },
}


def check_supported(operation: str, arguments: Mapping[str, Any]) -> None:
    """Raise ApiError for a member that this program does not use, by its path."""
    if operation in SUPPORTED:
        check_members("", arguments, SUPPORTED[operation])


def check_members(path: str, value: Any, supported: Supported | None) -> None:  # noqa: ANN401
    if supported is None:
        return
    if isinstance(value, list):
        for number, item in enumerate(value, start=1):
            check_members(f"{path}.{number}", item, supported)
        return
    for name, item in value.items():
        inner = f"{path}.{name}".lstrip(".")
        if name not in supported:
            raise not_supported(inner)
        check_members(inner, item, supported[name])
