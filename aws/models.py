"""SageMaker models.

A model cannot be changed once it exists. So its name ends in a hash of its contents: a model with
the right name has the right contents, and a new image makes a new model.
"""

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass

from aws.account import Account
from aws.calls import Answer, delete_if_present, find, perform
from aws.changes import Change, Changes
from aws.registry import Image
from bot import MODELS_PREFIX


@dataclass(frozen=True)
class Model:
    """A model that is wanted."""

    name: str
    image: Image
    # The arguments of CreateModel, without name and tags
    contents: Answer


def describe_wanted_model(account: Account, model: str, image: Image) -> Model:
    """Return the SageMaker model that the endpoint of "nst" or "cyclegan" needs for the image."""
    environment = {"AWS_DEFAULT_REGION": account.region}
    if model == "cyclegan":
        # Painters that are put there later reach the running endpoint.
        environment["MODELS_URL"] = f"s3://{account.bucket}/{MODELS_PREFIX}"
    contents = {
        "PrimaryContainer": {"Image": image.uri, "Environment": environment},
        "ExecutionRoleArn": account.execution_role_arn,
    }
    name = name_after_contents(account.endpoint_name(model), contents)
    return Model(name, image, contents)


def name_after_contents(endpoint: str, contents: Answer) -> str:
    """Return a name such as stylebot-nst-0123456789."""
    text = json.dumps(contents, sort_keys=True)
    return f"{endpoint}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def has_hashed_name(endpoint: str, name: str) -> bool:
    """Return whether `name_after_contents` could have made the name for that endpoint."""
    return bool(re.fullmatch(rf"{re.escape(endpoint)}-[0-9a-f]{{10}}", name))


def find_model(account: Account, name: str) -> Answer | None:
    return find(account.sagemaker.describe_model, ModelName=name)


def ensure_model(account: Account, model: Model) -> Changes:
    """Yield the creation of the model, if it does not exist."""
    if find_model(account, model.name) is not None:
        return
    yield Change(
        f"create the model {model.name} of the image {model.image.short_name}",
        lambda: perform(
            account.clock,
            account.sagemaker.create_model,
            ModelName=model.name,
            **model.contents,
            Tags=account.tag_list,
        ),
    )


def remove_models(account: Account, endpoint: str, keep: Collection[str] = ()) -> Changes:
    """Yield the deletion of each model that `up` created for the endpoint, except `keep`."""
    pages = account.sagemaker.get_paginator("list_models").paginate(NameContains=f"{endpoint}-")
    found = [item for page in pages for item in page["Models"]]
    for item in found:
        name = item["ModelName"]
        if name in keep or not has_hashed_name(endpoint, name):
            continue
        if account.is_ours(find_sagemaker_tags(account, item["ModelArn"])):
            yield removal(account, name)


def removal(account: Account, name: str) -> Change:
    return Change(
        f"delete the model {name}",
        lambda: delete_if_present(account.clock, account.sagemaker.delete_model, ModelName=name),
    )


def find_sagemaker_tags(account: Account, arn: str) -> list[dict[str, str]]:
    """Return the tags of any SageMaker resource; none if it is gone."""
    found = find(account.sagemaker.list_tags, ResourceArn=arn)
    if found is None:
        return []
    tags: list[dict[str, str]] = found["Tags"]
    return tags
