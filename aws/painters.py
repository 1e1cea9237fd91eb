"""The painters in the bucket, which were trained later, and the catalog of all styles.

A painter is one object, models/style_NAME.pth. Running endpoints load it when they are asked for
it. The bot learns which styles there are from models/catalog.json, which the endpoint of cyclegan
writes when it is asked to.
"""

import json
import time
from dataclasses import dataclass
from datetime import datetime

from aws.account import Account
from aws.calls import Answer, find
from aws.changes import Change, Changes
from aws.configs import find_config
from aws.endpoints import find_endpoint
from aws.history import history_key
from aws.invocations import send_request
from aws.messages import say
from aws.models import find_model
from bot import ASYNC_PREFIX, CATALOG_KEY, MODELS_PREFIX

# What the name of a painter's object begins and ends with
START = f"{MODELS_PREFIX}style_"
SUFFIX = ".pth"


@dataclass(frozen=True)
class Painter:
    """A checkpoint in the bucket."""

    name: str
    bytes: int
    # When it was put there, in whole seconds
    modified: datetime


def painter_key(name: str) -> str:
    return f"{START}{name}{SUFFIX}"


def list_painters(account: Account) -> list[Painter]:
    """Return the painters in the bucket, by name. The bucket must exist."""
    paginator = account.s3.get_paginator("list_objects_v2")
    painters = []
    for page in paginator.paginate(Bucket=account.bucket, Prefix=START):
        for item in page.get("Contents", []):
            key = item["Key"]
            if key.endswith(SUFFIX):
                name = key.removeprefix(START).removesuffix(SUFFIX)
                painters.append(Painter(name, item["Size"], whole_second(item["LastModified"])))
    return painters


def find_painter(account: Account, name: str) -> Painter | None:
    found = find(account.s3.head_object, Bucket=account.bucket, Key=painter_key(name))
    if found is None:
        return None
    return Painter(name, found["ContentLength"], whole_second(found["LastModified"]))


def whole_second(moment: datetime) -> datetime:
    """Return the moment as S3 tells it. SageMaker tells milliseconds too."""
    return moment.replace(microsecond=0)


# ---------------------------------------------------------------- the catalog


def ensure_catalog(account: Account, model: str) -> Changes:
    """Yield the request for a new catalog, if the one in the bucket may lack a style.

    `model` is the name of the SageMaker model that the endpoint of cyclegan runs.
    Running the change raises DeployError if the endpoint writes no catalog.
    """
    if is_up_to_date(account, model):
        return
    endpoint = account.endpoint_name("cyclegan")
    yield Change(
        f"let {endpoint} write the catalog of its styles", lambda: write_catalog(account, endpoint)
    )


def is_up_to_date(account: Account, model: str) -> bool:
    """Return whether the catalog is younger than model and release, and than each painter."""
    catalog = find(account.s3.head_object, Bucket=account.bucket, Key=CATALOG_KEY)
    sagemaker_model = find_model(account, model)
    if catalog is None or sagemaker_model is None:
        return False

    written = whole_second(catalog["LastModified"])
    if whole_second(sagemaker_model["CreationTime"]) > written:
        return False
    # A release may return to an older model.
    key = history_key(account.endpoint_name("cyclegan"))
    history = find(account.s3.head_object, Bucket=account.bucket, Key=key)
    if history is not None and whole_second(history["LastModified"]) > written:
        return False
    return all(painter.modified <= written for painter in list_painters(account))


def write_catalog(account: Account, endpoint: str) -> None:
    """Ask the endpoint for the catalog. Raises DeployError if it does not write one."""
    start = account.clock.monotonic()
    folder = f"{ASYNC_PREFIX}catalog/{time.time_ns()}"
    request = {"catalog_url": f"s3://{account.bucket}/{CATALOG_KEY}"}
    send_request(account, endpoint, folder, request, "the catalog of its styles")
    seconds = account.clock.monotonic() - start
    say(f"{endpoint}: wrote the catalog of its styles in {seconds:.0f} s")


def read_catalog(account: Account) -> list[str]:
    """Return the names of the styles in the catalog; none without a catalog."""
    found = find(account.s3.get_object, Bucket=account.bucket, Key=CATALOG_KEY)
    if found is None:
        return []
    catalog: Answer = json.loads(found["Body"].read())
    return [style["name"] for style in catalog["styles"]]


def find_served_model(account: Account) -> str | None:
    """Return the SageMaker model of cyclegan's endpoint, or None if there is no such endpoint."""
    endpoint = find_endpoint(account, account.endpoint_name("cyclegan"))
    if endpoint is None:
        return None
    config = find_config(account, endpoint["EndpointConfigName"])
    if config is None:
        return None
    name: str = config["ProductionVariants"][0]["ModelName"]
    return name
