"""SageMaker endpoint configurations. Like models, they are named after a hash of their contents."""

from collections.abc import Collection
from dataclasses import dataclass

from aws.account import Account
from aws.calls import Answer, delete_if_present, find, perform
from aws.changes import Change, Changes
from aws.endpoint_settings import GPU_INSTANCES, VARIANT, EndpointSettings
from aws.models import find_sagemaker_tags, has_hashed_name, name_after_contents
from aws.scaling import find_scalable_target
from bot import FAILURE_PREFIX, OUTPUT_PREFIX

# How long a container may take to answer /ping: it loads PyTorch and its weights first.
STARTUP_SECONDS = 600
# How long SageMaker looks for an instance, through all instance types
PROVISION_SECONDS = 1800


@dataclass(frozen=True)
class EndpointConfig:
    """An endpoint configuration that is wanted."""

    name: str
    settings: EndpointSettings
    # The arguments of CreateEndpointConfig, without name and tags
    contents: Answer


def describe_wanted_config(
    account: Account, settings: EndpointSettings, model: str
) -> EndpointConfig:
    """Return the configuration of an asynchronous endpoint that runs the SageMaker model."""
    variant: Answer = {
        "VariantName": VARIANT,
        "ModelName": model,
        # SageMaker takes no 0 here. The scaling sets the real number, so that another minimum needs
        # no other configuration.
        "InitialInstanceCount": 1,
        "ContainerStartupHealthCheckTimeoutInSeconds": STARTUP_SECONDS,
    }
    if settings.fallback_types:
        variant["InstancePools"] = [
            {"InstanceType": instance_type, "Priority": priority}
            for priority, instance_type in enumerate(settings.instance_types, 1)
        ]
        variant["VariantInstanceProvisionTimeoutInSeconds"] = PROVISION_SECONDS
    else:
        variant["InstanceType"] = settings.instance_type
    if settings.instance_type.startswith(GPU_INSTANCES):
        # The driver of this AMI must be as new as the image's CUDA.
        variant["InferenceAmiVersion"] = settings.ami

    asynchronous = {
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": settings.concurrency},
        "OutputConfig": {
            "S3OutputPath": f"s3://{account.bucket}/{OUTPUT_PREFIX}",
            "S3FailurePath": f"s3://{account.bucket}/{FAILURE_PREFIX}",
        },
    }
    contents = {"ProductionVariants": [variant], "AsyncInferenceConfig": asynchronous}
    return EndpointConfig(name_after_contents(settings.name, contents), settings, contents)


def instance_types_of(variant: Answer) -> list[str]:
    """Return the instance types of a production variant, the one that is tried first in front."""
    pools = variant.get("InstancePools")
    if not pools:
        return [variant["InstanceType"]] if variant.get("InstanceType") else []
    ordered = sorted(pools, key=lambda pool: pool["Priority"])
    return [pool["InstanceType"] for pool in ordered]


def find_instance_types(account: Account, config: str) -> list[str]:
    """Return the instance types of an endpoint configuration, none if it does not exist."""
    found = find_config(account, config)
    if found is None:
        return []
    return instance_types_of(found["ProductionVariants"][0])


def read_settings(account: Account, model: str, endpoint: Answer) -> EndpointSettings:
    """Return an endpoint's settings, as far as AWS tells them: no concurrency and no AMI."""
    name = endpoint["EndpointName"]
    types = find_instance_types(account, endpoint["EndpointConfigName"])
    target = find_scalable_target(account, name) or {"MinCapacity": 0, "MaxCapacity": 2}
    first, *others = types or [""]
    return EndpointSettings(
        model=model,
        name=name,
        instance_type=first,
        min_instances=target["MinCapacity"],
        max_instances=target["MaxCapacity"],
        concurrency=1,
        ami="",
        fallback_types=tuple(others),
    )


def find_config(account: Account, name: str) -> Answer | None:
    return find(account.sagemaker.describe_endpoint_config, EndpointConfigName=name)


def ensure_config(account: Account, config: EndpointConfig) -> Changes:
    """Yield the creation of the endpoint configuration, if it does not exist."""
    if find_config(account, config.name) is not None:
        return
    settings = config.settings
    yield Change(
        f"create the endpoint configuration {config.name} "
        f"({' or '.join(settings.instance_types)}, concurrency {settings.concurrency})",
        lambda: perform(
            account.clock,
            account.sagemaker.create_endpoint_config,
            EndpointConfigName=config.name,
            **config.contents,
            Tags=account.tag_list,
        ),
    )


def remove_configs(account: Account, endpoint: str, keep: Collection[str] = ()) -> Changes:
    """Yield the deletion of each config that `up` created for the endpoint, except `keep`."""
    paginator = account.sagemaker.get_paginator("list_endpoint_configs")
    pages = paginator.paginate(NameContains=f"{endpoint}-")
    found = [item for page in pages for item in page["EndpointConfigs"]]
    for item in found:
        name = item["EndpointConfigName"]
        if name in keep or not has_hashed_name(endpoint, name):
            continue
        if account.is_ours(find_sagemaker_tags(account, item["EndpointConfigArn"])):
            yield removal(account, name)


def removal(account: Account, name: str) -> Change:
    sagemaker = account.sagemaker
    return Change(
        f"delete the endpoint configuration {name}",
        lambda: delete_if_present(
            account.clock, sagemaker.delete_endpoint_config, EndpointConfigName=name
        ),
    )
