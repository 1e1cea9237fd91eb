"""An AWS account on this machine: moto's server, with additions that make it more like AWS.

moto 5.2.5 lacks, and this adds:
- UpdateEndpoint, blue/green: the new instances start, get the requests, are on probation while the
  alarms are watched, and stay or go. An endpoint at zero instances gets none, unless its number of
  instances is to be the configuration's. Images may be bad (`bad_images`);
- InvokeEndpointAsync that reads the request from S3 and writes picture and answer there;
- a transform job that stylizes its rows;
- training jobs that take their time and train, see training_jobs.py;
- services and tasks of ECS, see ecs.py; builds of CodeBuild, see codebuild.py;
- a catalog of styles, which the endpoint of cyclegan writes when it is asked to;
- statuses that take their time (Creating, Updating, Deleting) and FailureReason;
- SageMaker's errors: the name exists already, the endpoint is being changed, the instance type of a
  scaling target cannot be changed;
- instance types newer than moto (ml.g5, ml.g6), instance pools, which AWS may not know there
  (`unknown_arguments`), and types without capacity (`no_capacity`);
- the permissions boundary of a user;
- e-mail addresses that have to confirm a subscription (`confirmed`);
- the tags and the subscribers of budgets, and their updates;
- metrics that have just the dimensions that were asked for;
- periods of alarms, and widgets of dashboards, that CloudWatch refuses; the tags of dashboards;
- the quotas of SageMaker, and requests for more (`quotas`, `requested_quotas`);
- a model whose image has no manifest of Docker's is refused;
- images and what IAM keeps in the search for tags, which also lists for a while what was deleted
  (`ghosts`);
- answers that are lost after the change was made (`lost_answers`), and new things that AWS does not
  show at once (`lag`);
- conditions in bucket policies. Only aws:SecureTransport occurs here; every call counts as TLS.
"""

import csv
import io
import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, unquote_to_bytes

import boto3
import requests
from botocore.exceptions import ClientError
from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.budgets.models import Budget, budgets_backends
from moto.budgets.responses import BudgetsResponse
from moto.cloudwatch.exceptions import DashboardInvalidInputError, InvalidParameterCombination
from moto.cloudwatch.models import CloudWatchBackend, cloudwatch_backends
from moto.cloudwatch.responses import CloudWatchResponse
from moto.codebuild.responses import CodeBuildResponse
from moto.core.responses import ActionResult
from moto.ecr.models import ecr_backends
from moto.ecs.responses import EC2ContainerServiceResponse
from moto.iam.models import SERVICE_NAME_CONVERSION, iam_backends
from moto.iam.responses import IamResponse
from moto.moto_server import threaded_moto_server
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.resourcegroupstaggingapi.responses import ResourceGroupsTaggingAPIResponse
from moto.s3.models import FakeBucket, s3_backends
from moto.sagemaker.exceptions import (
    ResourceInUseException,
    SagemakerClientError,
    ValidationError,
)
from moto.sagemaker.models import (
    FakeEndpoint,
    FakeEndpointConfig,
    SageMakerModelBackend,
    sagemaker_backends,
)
from moto.sagemaker.responses import SageMakerResponse
from moto.sagemakerruntime.responses import SageMakerRuntimeResponse
from moto.server import ThreadedMotoServer
from moto.servicequotas.responses import ServiceQuotasResponse
from moto.sns.exceptions import SNSInvalidParameter
from moto.sns.models import SNSBackend
from moto.sns.responses import SNSResponse
from PIL import Image

from tests.fakes import codebuild, ecs, training_jobs
from tests.fakes.moto_methods import methods_of
from tests.fakes.sagemaker import Answer, Invocation, Request, work_on

# Whatever moto and boto3 take and return
Json = Any

ACCOUNT = "123456789012"
REGION = "eu-west-1"
BUCKET = f"stylebot-{ACCOUNT}-{REGION}"
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
OCI_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
# How many times an endpoint is described before it has its new status
DESCRIPTIONS_UNTIL_SETTLED = 2
UPDATE_DESCRIPTIONS = 4
BUSY = ("Creating", "Updating", "Deleting")


class ResourceLimitExceeded(SagemakerClientError):  # noqa: N818 - AWS's name
    code = "ResourceLimitExceeded"


DEFAULT_QUOTA = 10
QUOTA_TYPES = ("ml.g4dn.xlarge", "ml.g5.xlarge", "ml.g6.xlarge", "ml.c5.4xlarge")
QUOTA_USAGES = ("endpoint usage", "spot training job usage", "training job usage")
QUOTA_PAGE = 5


@dataclass
class Transition:
    """A change of an endpoint that is under way."""

    # "InService", "Failed" or "Deleted"
    goal: str
    failure_reason: str = ""
    # Of an update: the new configuration, its number of instances, and the alarms that end it
    config: str = ""
    count: int = 0
    alarms: list[str] = field(default_factory=list)
    started: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    descriptions_left: int = DESCRIPTIONS_UNTIL_SETTLED
    # How many descriptions do not show it yet, and what they show: None for no endpoint
    unseen: int = field(default_factory=lambda: lag)
    before: Json = None

    @property
    def is_baking(self) -> bool:
        """Return whether the new instances of an update get the requests, on probation."""
        is_there = self.goal == "InService" and 1 <= self.descriptions_left < UPDATE_DESCRIPTIONS
        return bool(self.config) and is_there


# What a test may set: why an endpoint will fail, and which endpoints only accept requests.
failures: dict[str, str] = {}
asleep: set[str] = set()
# What the containers of an image do, by its digest: "error", "wrong size", "no picture" or
# "silence".
bad_images: dict[str, str] = {}
# Endpoints whose old instances still take requests during an update
old_instances_paint: set[str] = set()
# What happens when an update has come so far that its new instances get the requests, once
at_bake: list[Callable[[], None]] = []
# Instance types of which AWS has none free
no_capacity: set[str] = set()
# Arguments that AWS does not know in this region, such as InstancePools
unknown_arguments: set[str] = set()
# The operations that refuse instance pools: CreateEndpoint, UpdateEndpoint
refusing_pools: set[str] = set()
# Each picture that was made: the endpoint, and the configuration of the instance that made it
painted: list[tuple[str, str]] = []

# What a test sets: quotas by name, such as "ml.g4dn.xlarge for endpoint usage". Others are 10.
quotas: dict[str, float] = {}
# What was requested, by name
requested_quotas: dict[str, float] = {}
# The e-mail addresses whose owners have clicked on the link that confirms a subscription
confirmed: set[str] = set()
# Those whose owners have ended it, which SNS lists for some days
unsubscribed: set[str] = set()
# What the search for tags lists although it was deleted: ARNs, and to how many more calls
ghosts: dict[str, int] = {}
# The operations whose next answer is lost: AWS does what it was asked, and the connection breaks.
lost_answers: set[str] = set()
# To how many calls AWS does not show yet what was created or changed.
lag = 0

transitions: dict[str, Transition] = {}
# When the servers of an endpoint were started, for those that were updated
server_starts: dict[str, float] = {}
failure_reasons: dict[str, str] = {}


# ---------------------------------------------------------------- endpoints

moto_create_endpoint = SageMakerModelBackend.create_endpoint
moto_describe_endpoint = SageMakerModelBackend.describe_endpoint


def refuse_existing(create: Callable[..., Json], kind: str, attribute: str) -> Callable[..., Json]:
    """Return a create method that fails if the name exists, as SageMaker's does."""

    def create_new(self: SageMakerModelBackend, *positional: Json, **arguments: Json) -> Json:
        name = arguments[f"{kind}_name"]
        if name in getattr(self, attribute):
            raise ValidationError(message=f"Cannot create already existing {kind} {name}")
        return create(self, *positional, **arguments)

    return create_new


def refuse_manifests(create: Callable[..., Json]) -> Callable[..., Json]:
    """Return a CreateModel that takes Docker's manifests only, as SageMaker's does."""

    def create_model(self: SageMakerModelBackend, *positional: Json, **arguments: Json) -> Json:
        uri = (arguments.get("primary_container") or {}).get("Image", "")
        for repository in ecr_backends[ACCOUNT][REGION].repositories.values():
            for image in repository.images:
                found = uri.endswith(f"/{repository.name}@{image.get_image_digest()}")
                if found and image.image_manifest_media_type != MANIFEST_TYPE:
                    raise ValidationError(
                        message=f"Unsupported manifest media type {image.image_manifest_media_type}"
                        f" for image {uri}. Ensure that valid manifest media type is used for "
                        "specified image."
                    )
        return create(self, *positional, **arguments)

    return create_model


def start_transition(endpoint: FakeEndpoint, status: str, transition: Transition) -> None:
    endpoint.endpoint_status = status
    transitions[endpoint.endpoint_name] = transition


def succeed_or_fail(name: str, config: FakeEndpointConfig) -> Transition:
    """Return how a creation or an update will end, which the test decides by `failures`."""
    if name in failures:
        return Transition("Failed", failures[name])
    if set(types_of(config)) <= no_capacity:
        return Transition("Failed", "Unable to provision requested ML compute capacity")
    return Transition("InService")


def types_of(config: FakeEndpointConfig) -> list[str]:
    """Return the instance types of a configuration, in the order in which they are tried."""
    variant = config.production_variants[0]
    if "InstancePools" not in variant:
        return [variant["InstanceType"]]
    pools = sorted(variant["InstancePools"], key=lambda pool: pool["Priority"])
    return [pool["InstanceType"] for pool in pools]


def create_endpoint(self: SageMakerModelBackend, **arguments: Json) -> FakeEndpoint:
    config = self.endpoint_configs[arguments["endpoint_config_name"]]
    if arguments["endpoint_name"] not in self.endpoints:
        refuse_pools("CreateEndpoint", config)
        refuse_beyond_quota(self, config, 1)
    create = refuse_existing(moto_create_endpoint, "endpoint", "endpoints")
    endpoint: FakeEndpoint = create(self, **arguments)
    start_transition(endpoint, "Creating", succeed_or_fail(endpoint.endpoint_name, config))
    return endpoint


def refuse_pools(operation: str, config: FakeEndpointConfig) -> None:
    if operation in refusing_pools and len(types_of(config)) > 1:
        raise ValidationError(message="Instance pools are not supported for this endpoint.")


def refuse_beyond_quota(
    backend: SageMakerModelBackend, config: FakeEndpointConfig, count: int
) -> None:
    """Refuse so many more instances, if the account may not run them on any type of the list."""
    for kind in types_of(config):
        running = 0
        for endpoint in backend.endpoints.values():
            own = backend.endpoint_configs[endpoint.endpoint_config_name]
            free = [other for other in types_of(own) if other not in no_capacity]
            if free[:1] == [kind]:
                running += count_of(endpoint)
        limit = quotas.get(f"{kind} for endpoint usage", DEFAULT_QUOTA)
        if running + count > limit:
            raise ResourceLimitExceeded(
                f"The account-level service limit '{kind} for endpoint usage' is {limit} "
                f"Instances, with current utilization of {running} Instances and a request delta "
                f"of {count} Instances."
            )


def describe_endpoint(self: SageMakerModelBackend, endpoint_name: str) -> Json:
    endpoint = self.endpoints.get(endpoint_name)
    transition = transitions.get(endpoint_name)
    if endpoint and transition:
        if transition.unseen > 0:
            transition.unseen -= 1
            if transition.before is None:
                raise ValidationError(message=f'Could not find endpoint "{endpoint_name}".')
            return transition.before
        transition.descriptions_left -= 1
        if transition.is_baking and (alarm := find_tripped_alarm(transition.alarms)):
            transition.goal = "Failed"
            transition.failure_reason = f"The alarm {alarm} has gone off: rolled back."
            transition.descriptions_left = -1
        if transition.descriptions_left < 0:
            end_transition(self, endpoint, transition)

    if endpoint:
        describe_pools(endpoint, self.endpoint_configs.get(endpoint.endpoint_config_name))
    answer = moto_describe_endpoint(self, endpoint_name)
    if endpoint_name in failure_reasons:
        answer["FailureReason"] = failure_reasons[endpoint_name]
    if endpoint and (transition := transitions.get(endpoint_name)) and transition.config:
        answer["PendingDeploymentSummary"] = describe_deployment(transition)
        while transition.is_baking and at_bake:
            at_bake.pop()()
    return answer


def describe_pools(endpoint: FakeEndpoint, config: FakeEndpointConfig | None) -> None:
    """Tell which of several instance types runs: the first one that has capacity."""
    variant = endpoint.production_variants[0]
    variant.pop("InstancePools", None)
    if config is None or len(types_of(config)) < 2:
        return
    free = [kind for kind in types_of(config) if kind not in no_capacity]
    variant["InstancePools"] = [
        {
            "InstanceType": kind,
            "CurrentInstanceCount": count_of(endpoint) if [kind] == free[:1] else 0,
        }
        for kind in types_of(config)
    ]


def describe_deployment(transition: Transition) -> Json:
    """Return DescribeEndpoint's PendingDeploymentSummary."""
    count = transition.count if transition.is_baking else 0
    variant = {
        "VariantName": "AllTraffic",
        "CurrentInstanceCount": count,
        "DesiredInstanceCount": transition.count,
        "VariantStatus": [{"Status": "Baking" if transition.is_baking else "Creating"}],
    }
    return {
        "EndpointConfigName": transition.config,
        "StartTime": transition.started,
        "ProductionVariants": [variant],
    }


def end_transition(
    backend: SageMakerModelBackend, endpoint: FakeEndpoint, transition: Transition
) -> None:
    name = endpoint.endpoint_name
    del transitions[name]
    failure_reasons.pop(name, None)
    if transition.goal == "Deleted":
        del backend.endpoints[name]
        return

    if transition.goal == "Failed":
        failure_reasons[name] = transition.failure_reason
    if not transition.config:
        endpoint.endpoint_status = transition.goal
        return
    # SageMaker rolls a failed update back.
    endpoint.endpoint_status = "InService"
    if transition.goal == "InService":
        endpoint.endpoint_config_name = transition.config
        server_starts[name] = transition.started.timestamp() + 60
        set_count(endpoint, transition.count)


def find_tripped_alarm(names: list[str]) -> str:
    """Return an alarm that ends an update because it has gone off, or is not there; or ""."""
    for name in names:
        alarm = cloudwatch_backends[ACCOUNT][REGION].alarms.get(name)
        if alarm is None or alarm.state_value == "ALARM":
            return name
    return ""


def count_of(endpoint: FakeEndpoint) -> int:
    count: int = endpoint.production_variants[0].get("DesiredInstanceCount", 0)
    return count


def set_count(endpoint: FakeEndpoint, count: int) -> None:
    endpoint.production_variants[0].update(
        {"CurrentInstanceCount": count, "DesiredInstanceCount": count}
    )


def put_to_sleep(*names: str) -> None:
    """Let these endpoints have no instance, as some time after their last picture."""
    for name in names:
        set_count(sagemaker_backends[ACCOUNT][REGION].endpoints[name], 0)


def delete_endpoint(self: SageMakerModelBackend, endpoint_name: str) -> None:
    endpoint = self.endpoints.get(endpoint_name)
    if endpoint is None:
        raise ValidationError(message=f'Could not find endpoint "{endpoint_name}".')
    if endpoint.endpoint_status in BUSY:
        raise ValidationError(message=f"Cannot update in-progress endpoint {endpoint_name}")
    before = moto_describe_endpoint(self, endpoint_name)
    start_transition(endpoint, "Deleting", Transition("Deleted", before=before))


def update_endpoint(self: SageMakerResponse) -> ActionResult:
    backend = self.sagemaker_backend
    asked = json.loads(self.body)
    name = asked["EndpointName"]
    endpoint = backend.endpoints.get(name)
    if endpoint is None:
        raise ValidationError(message=f'Could not find endpoint "{name}".')
    if endpoint.endpoint_status in BUSY:
        raise ValidationError(message=f'Cannot update in-progress endpoint "{endpoint.arn}".')

    old_config = backend.endpoint_configs[endpoint.endpoint_config_name]
    new_config = backend.endpoint_configs[asked["EndpointConfigName"]]
    if types_of(old_config) != types_of(new_config) and is_scaling_target(name):
        raise ValidationError(
            message="Cannot change the instance type of a variant that is a scaling target"
        )
    policy = asked.get("DeploymentConfig", {})
    alarms = policy.get("AutoRollbackConfiguration", {}).get("Alarms", [])
    names = [alarm["AlarmName"] for alarm in alarms]
    if tripped := find_tripped_alarm(names):
        raise ValidationError(message=f"The alarm {tripped} does not exist or has gone off")

    count: int = new_config.production_variants[0]["InitialInstanceCount"]
    if asked.get("RetainAllVariantProperties"):
        count = count_of(endpoint)
    refuse_pools("UpdateEndpoint", new_config)
    refuse_beyond_quota(backend, new_config, count)

    before = moto_describe_endpoint(backend, name)
    transition = succeed_or_fail(name, new_config)
    transition.before = before
    transition.config = new_config.endpoint_config_name
    transition.count = count
    transition.alarms = names
    transition.descriptions_left = UPDATE_DESCRIPTIONS
    start_transition(endpoint, "Updating", transition)
    return ActionResult({"EndpointArn": endpoint.arn})


def is_scaling_target(endpoint: str) -> bool:
    backend = applicationautoscaling_backends[ACCOUNT][REGION]
    for targets in backend.targets.values():
        if any(endpoint in resource for resource in targets):
            return True
    return False


# ---------------------------------------------------------------- requests and transform jobs


class MotoStorage:
    """moto's objects in S3, read and written past HTTP."""

    def read(self, url: str) -> bytes:
        bucket, key = split_url(url)
        found = s3_backends[ACCOUNT]["aws"].get_object(bucket, key)
        assert found is not None, f"{url} does not exist"
        data: bytes = found.value
        return data

    def write(self, url: str, data: bytes) -> None:
        bucket, key = split_url(url)
        s3_backends[ACCOUNT]["aws"].put_object(bucket, key, value=data)


storage = MotoStorage()


def split_url(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def write_catalog(url: str) -> Answer:
    """Write the catalog of the image's own style and the painters beside it, as cyclegan does."""
    start = time.monotonic()
    folder = url.rpartition("/")[0]
    bucket, prefix = split_url(f"{folder}/style_")
    names = ["vintage"]
    for key in s3_backends[ACCOUNT]["aws"].buckets[bucket].keys:
        if key.startswith(prefix):
            names.append(key.removeprefix(prefix).removesuffix(".pth"))

    styles = []
    for name in names:
        thumbnail = f"thumbnails/{name}.jpg"
        storage.write(f"{folder}/{thumbnail}", b"thumbnail")
        styles.append({"name": name, "label": name.title(), "thumbnail": thumbnail})
    storage.write(f"{folder}/catalog.jpg", b"sheet")
    catalog = {"version": 1, "styles": styles, "sheet": "catalog.jpg"}
    storage.write(url, json.dumps(catalog).encode())
    return {"catalog_url": url, "styles": names, "seconds": time.monotonic() - start}


def stylize(request: Request, fault: str = "") -> Answer:
    """Return a container's answer. The result is the content picture, made smaller.

    `fault` is what is wrong with the image, see `bad_images`.
    """
    if fault == "error":
        return {"error": {"code": "internal", "message": "The model is broken."}}
    if "catalog_url" in request:
        return write_catalog(request["catalog_url"])
    content_url = request["content_url"]
    if "broken" in content_url:
        message = "The photograph is not a readable image."
        return {"error": {"code": "image_unreadable", "message": message}}
    if content_url.startswith("s3://") and fault != "no picture":
        data = storage.read(content_url)
        if "size" in request and fault != "wrong size":
            data = shrink(data, request["size"])
        storage.write(request["result_url"], data)
    return {"result_url": request["result_url"], "seconds": 1.5}


def shrink(data: bytes, size: int) -> bytes:
    """Return the picture as a JPEG whose longer side is `size` pixels."""
    picture = Image.open(io.BytesIO(data))
    picture.thumbnail((size, size))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    return buffer.getvalue()


def invoke_endpoint_async(self: SageMakerRuntimeResponse) -> Json:
    name = self.path.split("/")[2]
    backend = sagemaker_backends[ACCOUNT][REGION]
    endpoint = backend.endpoints[name]
    config = backend.endpoint_configs[endpoint.endpoint_config_name]
    folders = config.async_inference_config["OutputConfig"]

    input_url = self.headers["X-Amzn-SageMaker-InputLocation"]
    # The folder of the request is unique.
    request_name = input_url.rsplit("/", 2)[1]
    invocation = Invocation(
        input_url=input_url,
        output_url=f"{folders['S3OutputPath']}{request_name}.out",
        failure_url=f"{folders['S3FailurePath']}{request_name}-error.out",
    )

    served_by, started = find_instance(endpoint)

    def stylize_or_fail(request: Request) -> Answer:
        if name in failures:
            return {"error": {"code": "internal", "message": failures[name]}}
        fault = bad_images.get(digest_of(served_by), "")
        answer = stylize(request, fault)
        painted.append((name, served_by))
        return {**answer, "server_started": started}

    is_silent = bad_images.get(digest_of(served_by)) == "silence"
    if name not in asleep and served_by and not is_silent:
        work_on(invocation, storage, stylize_or_fail)
    return 202, invocation.headers, json.dumps({"InferenceId": "1"})


def find_instance(endpoint: FakeEndpoint) -> tuple[str, float]:
    """Return the configuration of the instance that takes a request, and when it was started.

    An endpoint at zero instances starts one if it scales. Otherwise nobody takes the request: "".
    """
    transition = transitions.get(endpoint.endpoint_name)
    is_old = endpoint.endpoint_name in old_instances_paint
    if transition and transition.is_baking and not is_old:
        served_by = transition.config if transition.count else ""
        return served_by, transition.started.timestamp() + 60
    if not count_of(endpoint) and not transition and is_scaling_target(endpoint.endpoint_name):
        set_count(endpoint, 1)
    served_by = endpoint.endpoint_config_name if count_of(endpoint) else ""
    return served_by, server_starts.get(endpoint.endpoint_name, 0.0)


def digest_of(config: str) -> str:
    """Return the digest of the image that an endpoint configuration runs, "" for none."""
    backend = sagemaker_backends[ACCOUNT][REGION]
    if config not in backend.endpoint_configs:
        return ""
    model = backend.endpoint_configs[config].production_variants[0]["ModelName"]
    image: str = backend._models[model].primary_container["Image"]
    return image.partition("@")[2]


def finish_transform_job(create: Callable[..., Json]) -> Callable[..., Json]:
    """Return a CreateTransformJob that has stylized all rows when it returns."""

    def create_transform_job(self: SageMakerModelBackend, **arguments: Json) -> Json:
        if arguments["transform_job_name"] in self.transform_jobs:
            raise ResourceInUseException(message="Job name must be unique")
        job = create(self, **arguments)
        assert arguments["model_name"] in self._models

        source = arguments["transform_input"]["DataSource"]["S3DataSource"]["S3Uri"]
        content_type = arguments["transform_input"]["ContentType"]
        rows = read_rows(storage.read(source).decode(), content_type)
        assert all(row["result_url"] for row in rows)
        answers = [json.dumps(stylize(row)) + "\n" for row in rows]

        folder = arguments["transform_output"]["S3OutputPath"]
        name = source.rsplit("/", 1)[1]
        # AssembleWith=Line adds another line break.
        storage.write(f"{folder}/{name}.out", "\n".join(answers).encode())
        return job

    return create_transform_job


def read_rows(text: str, content_type: str) -> list[Request]:
    if content_type != "text/csv":
        return [json.loads(line) for line in text.splitlines()]
    names = ("content_url", "style", "result_url")
    return [dict(zip(names, cells, strict=False)) for cells in csv.reader(io.StringIO(text))]


# ---------------------------------------------------------------- training jobs


def describe_training_job(self: SageMakerResponse) -> ActionResult:
    """Describe a job after one more step on its way: time passes while somebody looks."""
    job = training_jobs.find(self.sagemaker_backend, json.loads(self.body)["TrainingJobName"])
    training_jobs.advance(job, storage)
    return ActionResult(training_jobs.describe(job))


# ---------------------------------------------------------------- quotas


def quota_names() -> list[str]:
    """Return the names of all quotas; a quota's code is its place in this list."""
    return [f"{kind} for {usage}" for usage in QUOTA_USAGES for kind in QUOTA_TYPES]


def list_quotas(self: ServiceQuotasResponse) -> str:
    """Answer ListServiceQuotas and ListAWSDefaultServiceQuotas, some at a time."""
    start = int(json.loads(self.body).get("NextToken") or 0)
    page = []
    for number, name in enumerate(quota_names()[start : start + QUOTA_PAGE], start):
        value = quotas.get(name, DEFAULT_QUOTA)
        page.append({"QuotaName": name, "QuotaCode": f"L-{number:08}", "Value": value})
    answer: Json = {"Quotas": page}
    if start + QUOTA_PAGE < len(quota_names()):
        answer["NextToken"] = str(start + QUOTA_PAGE)
    return json.dumps(answer)


def request_quota(self: ServiceQuotasResponse) -> Json:
    asked = json.loads(self.body)
    name = quota_names()[int(asked["QuotaCode"].removeprefix("L-"))]
    if name in requested_quotas:
        error = {"__type": "ResourceAlreadyExistsException", "message": "Only one open request"}
        return 400, {"status": 400}, json.dumps(error)
    requested_quotas[name] = asked["DesiredValue"]
    return json.dumps({"RequestedQuota": {"Status": "PENDING"}})


# ---------------------------------------------------------------- users

moto_create_user = IamResponse.create_user


def create_user(self: IamResponse) -> ActionResult:
    answer = moto_create_user(self)
    limit_user(self)
    return answer


def limit_user(self: IamResponse) -> ActionResult:
    """Keep the permissions boundary that the call names."""
    user: Json = self.backend.get_user(self._get_param("UserName"))
    if boundary := self._get_param("PermissionsBoundary"):
        user.permissions_boundary = {
            "PermissionsBoundaryType": "PermissionsBoundaryPolicy",
            "PermissionsBoundaryArn": boundary,
        }
    return ActionResult({})


# ---------------------------------------------------------------- alarms, addresses, budgets

moto_put_metric_alarm = CloudWatchResponse.put_metric_alarm
moto_subscribe = SNSBackend.subscribe
DAY_SECONDS = 86400


def put_metric_alarm(self: CloudWatchResponse) -> ActionResult:
    """Refuse what CloudWatch refuses: odd periods, long evaluations, topics that are no ARN."""
    period = int(self._get_param("Period") or 60)
    if period not in (10, 20, 30) and period % 60:
        raise InvalidParameterCombination("Period must be 10, 20, 30 or a multiple of 60")
    longest = 7 * DAY_SECONDS if period >= 3600 else DAY_SECONDS
    if period * int(self._get_param("EvaluationPeriods")) > longest:
        raise InvalidParameterCombination(
            f"Metrics cannot be checked across more than {longest // DAY_SECONDS} days "
            "(EvaluationPeriods * Period)"
        )
    for action in self._get_param("AlarmActions", []) + self._get_param("OKActions", []):
        if not action.startswith(("arn:aws:sns:", "arn:aws:autoscaling:")):
            raise InvalidParameterCombination(f"Invalid arn syntax: {action}")
    return moto_put_metric_alarm(self)


moto_get_metric_statistics = CloudWatchBackend.get_metric_statistics


def get_metric_statistics(self: CloudWatchBackend, *query: Json, **options: Json) -> Json:
    """Return the statistics of the metric with just these dimensions; moto's may have more."""
    wanted = {(item["Name"], item["Value"]) for item in options["dimensions"]}
    same = []
    for sample in self.get_all_metrics():
        if {(item.name, item.value) for item in sample.dimensions} == wanted:
            same.append(sample)
    backend: Json = SimpleNamespace(get_all_metrics=lambda: same)
    return moto_get_metric_statistics(backend, *query, **options)


moto_put_dashboard = CloudWatchResponse.put_dashboard


def put_dashboard(self: CloudWatchResponse) -> ActionResult:
    """Refuse widgets that CloudWatch refuses, and keep the tags of a new dashboard."""
    for widget in json.loads(self._get_param("DashboardBody"))["widgets"]:
        if widget["x"] + widget["width"] > 24:
            raise DashboardInvalidInputError("Should be <= 24")
        for line in widget["properties"].get("metrics", []):
            check_metric(line)
    name = self._get_param("DashboardName")
    is_new = self.cloudwatch_backend.get_dashboard(name) is None
    answer = moto_put_dashboard(self)
    dashboard = self.cloudwatch_backend.get_dashboard(name)
    if is_new and dashboard:
        self.cloudwatch_backend.tagger.tag_resource(dashboard.arn, self._get_param("Tags", []))
    return answer


def check_metric(line: Json) -> None:
    """Refuse a line that is no expression, nor a namespace, a name and pairs of dimensions."""
    options = line[-1] if isinstance(line[-1], dict) else {}
    words = line[:-1] if options else line
    is_metric = len(words) >= 2 and len(words) % 2 == 0
    if not is_metric and not (not words and "expression" in options):
        raise DashboardInvalidInputError("Invalid metric field type")
    if not re.fullmatch(r"[a-z]\w*", options.get("id", "a")):
        raise DashboardInvalidInputError("Invalid metric id")


def subscribe(self: SNSBackend, topic_arn: str, endpoint: str, protocol: str) -> Json:
    if protocol == "email" and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", endpoint):
        raise SNSInvalidParameter("Invalid parameter: Email address")
    return moto_subscribe(self, topic_arn, endpoint, protocol)


def list_subscriptions(self: SNSResponse) -> ActionResult:
    """List subscriptions; those that are not confirmed have no ARN."""
    topic = self._get_param("TopicArn")
    shown = []
    for item in self.backend.list_subscriptions_by_topic(topic)[0]:
        arn = item.arn if item.endpoint in confirmed else "PendingConfirmation"
        if item.endpoint in unsubscribed:
            arn = "Deleted"
        shown.append(
            {
                "SubscriptionArn": arn,
                "Protocol": item.protocol,
                "Endpoint": item.endpoint,
                "TopicArn": topic,
            }
        )
    return ActionResult({"Subscriptions": shown})


def find_budget(name: str) -> Budget:
    """Return moto's budget. Raises AWS's error."""
    backend = budgets_backends[ACCOUNT]["aws"]
    backend.describe_budget(ACCOUNT, name)
    return backend.budgets[ACCOUNT][name]


moto_create_budget = BudgetsResponse.create_budget


def create_budget(self: BudgetsResponse) -> str:
    answer = moto_create_budget(self)
    asked = json.loads(self.body)
    budget: Json = find_budget(asked["Budget"]["BudgetName"])
    budget.tags = asked.get("ResourceTags", [])
    return answer


def update_budget(self: BudgetsResponse) -> str:
    wanted = json.loads(self.body)["NewBudget"]
    find_budget(wanted["BudgetName"]).budget.update(wanted)
    return "{}"


def list_budget_tags(self: BudgetsResponse) -> str:
    name = json.loads(self.body)["ResourceARN"].rpartition("/")[2]
    budget: Json = find_budget(name)
    return json.dumps({"ResourceTags": budget.tags})


def find_budget_subscribers(body: str) -> Json:
    """Return the list of subscribers of the notification that a request names."""
    asked = json.loads(body)
    for notification in find_budget(asked["BudgetName"]).notifications:
        if notification.details == asked["Notification"]:
            return notification.subscribers
    return []


def describe_budget_subscribers(self: BudgetsResponse) -> str:
    return json.dumps({"Subscribers": find_budget_subscribers(self.body)})


def create_budget_subscriber(self: BudgetsResponse) -> str:
    find_budget_subscribers(self.body).append(json.loads(self.body)["Subscriber"])
    return "{}"


# ---------------------------------------------------------------- the search for tags

moto_get_resources = ResourceGroupsTaggingAPIResponse.get_resources


def get_resources(self: ResourceGroupsTaggingAPIResponse) -> Json:
    """Add what moto does not search: ECR, and in us-east-1 IAM; and what was deleted just now."""
    answer: Json = moto_get_resources(self)
    found = answer.result["ResourceTagMappingList"]
    [wanted] = self._get_param("TagFilters")
    tag = {"Key": wanted["Key"], "Value": wanted["Values"][0]}
    more = {}
    if self.region == REGION:
        ecr = ecr_backends[ACCOUNT][REGION]
        for repository in ecr.repositories.values():
            tags = ecr.tagger.list_tags_for_resource(repository.arn)["tags"]
            more[repository.arn] = tags
    if self.region == "us-east-1":
        iam = iam_backends[ACCOUNT]["aws"]
        for policy in iam.managed_policies.values():
            more[policy.arn] = policy.get_tags()
        for profile in iam.instance_profiles.values():
            more[profile.arn] = profile.tags
    for arn, tags in more.items():
        if tag in tags:
            found.append({"ResourceARN": arn, "Tags": tags})
    for arn in list(ghosts):
        if ghosts[arn] > 0:
            ghosts[arn] -= 1
            found.append({"ResourceARN": arn, "Tags": [tag]})
    return answer


# ---------------------------------------------------------------- bucket policies


def evaluate_with_tls(get_permission: Callable[..., Json]) -> Callable[..., Json]:
    """Return a get_permission that leaves out the statements about requests without TLS."""
    without_tls = {"Bool": {"aws:SecureTransport": "false"}}

    def get_permission_with_tls(self: FakeBucket, action: str, resource: str) -> Json:
        whole_policy = self.policy
        policy = json.loads(whole_policy or b"{}")
        statements = []
        for statement in policy.get("Statement", []):
            if statement.get("Condition") != without_tls:
                statements.append(statement)

        self.policy = None
        if statements:
            self.policy = json.dumps({**policy, "Statement": statements}).encode()
        try:
            return get_permission(self, action, resource)
        finally:
            self.policy = whole_policy

    return get_permission_with_tls


# ---------------------------------------------------------------- lost answers and lag


@dataclass(frozen=True)
class Lag:
    """What AWS answers while it does not know yet of something new."""

    # The operation that creates it, and its argument that has the name
    operation: str
    name: str
    # The operations that do not know it yet
    ignorant: tuple[str, ...]
    code: str
    message: str


LAGS = (
    Lag(
        "CreateModel", "ModelName", ("DescribeModel", "CreateEndpointConfig"),
        "ValidationException", "Could not find model",
    ),
    Lag(
        "CreateEndpointConfig", "EndpointConfigName",
        ("DescribeEndpointConfig", "CreateEndpoint", "UpdateEndpoint"),
        "ValidationException", "Could not find endpoint configuration",
    ),
    Lag(
        "CreateTrainingJob", "TrainingJobName", ("DescribeTrainingJob",),
        "ValidationException", "Requested resource not found.",
    ),
    Lag(
        "CreateTransformJob", "TransformJobName", ("DescribeTransformJob",),
        "ValidationException", "Could not find requested job with name",
    ),
    Lag(
        "CreateRole", "RoleName", ("GetRole", "PutRolePolicy", "AddRoleToInstanceProfile"),
        "NoSuchEntity", "The role cannot be found.",
    ),
    Lag(
        "CreateUser", "UserName", ("GetUser", "PutUserPolicy"),
        "NoSuchEntity", "The user cannot be found.",
    ),
    Lag(
        "CreateInstanceProfile", "InstanceProfileName",
        ("GetInstanceProfile", "AddRoleToInstanceProfile"),
        "NoSuchEntity", "The instance profile cannot be found.",
    ),
    Lag(
        "CreateLogGroup", "logGroupName", ("PutRetentionPolicy",),
        "ResourceNotFoundException", "The specified log group does not exist.",
    ),
    Lag(
        "CreateRepository", "repositoryName", ("DescribeRepositories", "PutLifecyclePolicy"),
        "RepositoryNotFoundException", "The repository does not exist",
    ),
    Lag(
        "RegisterScalableTarget", "ResourceId", ("PutScalingPolicy",),
        "ObjectNotFoundException", "No scalable target registered",
    ),
    Lag("CreateTopic", "Name", ("Subscribe",), "NotFound", "Topic does not exist"),
    Lag("PutScalingPolicy", "PolicyName", ("DescribeScalingPolicies",), "", ""),
)  # fmt: skip


@dataclass
class Unseen:
    """Something new that AWS does not show to the next calls."""

    lag: Lag
    name: str
    calls_left: int


unseen: list[Unseen] = []


class Wire(DomainDispatcherApplication):
    """The server in front of moto: some answers are lost, and new things are not seen at once."""

    def __call__(self, environ: Json, start_response: Json) -> Json:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        environ["wsgi.input"] = io.BytesIO(body)
        operation = find_operation(environ, body)
        if ignorant := find_lag(operation, body):
            return answer_ignorant(ignorant, environ, start_response)

        answer = super().__call__(environ, start_response)
        for new in LAGS:
            if lag and new.operation == operation:
                unseen.append(Unseen(new, read_argument(body, new.name), lag))
        if operation in lost_answers:
            lost_answers.discard(operation)
            list(answer)
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        return answer


def find_operation(environ: Json, body: bytes) -> str:
    """Return the operation that a request asks for, or "" for most of S3's."""
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return str(target).rpartition(".")[2]
    if "/operation/" in environ["PATH_INFO"]:
        return str(environ["PATH_INFO"]).rpartition("/")[2]
    if action := parse_qs(body.decode(errors="replace")).get("Action"):
        return action[0]
    is_bucket = environ["PATH_INFO"].strip("/") and environ["PATH_INFO"].count("/") == 1
    if environ["REQUEST_METHOD"] == "PUT" and is_bucket and not environ["QUERY_STRING"]:
        return "CreateBucket"
    return ""


def read_argument(body: bytes, name: str) -> str:
    """Return an argument of a request in JSON or in a form."""
    if body.startswith(b"{"):
        return str(json.loads(body)[name])
    return parse_qs(body.decode())[name][0]


def find_lag(operation: str, body: bytes) -> Lag | None:
    """Return what AWS does not know yet of what the request names, and count the request."""
    for new in unseen:
        names_it = new.name.encode() in unquote_to_bytes(body)
        if new.lag.operation == "PutScalingPolicy":
            names_it = True
        if new.calls_left > 0 and operation in new.lag.ignorant and names_it:
            new.calls_left -= 1
            return new.lag
    return None


def answer_ignorant(lag: Lag, environ: Json, start_response: Json) -> list[bytes]:
    status = "400 Bad Request"
    content_type = "application/x-amz-json-1.1"
    answer = json.dumps({"__type": lag.code, "message": lag.message})
    if lag.operation == "PutScalingPolicy":
        # A list without it
        status = "200 OK"
        answer = json.dumps({"ScalingPolicies": []})
    if "HTTP_X_AMZ_TARGET" not in environ:
        content_type = "text/xml"
        error = f"<Error><Code>{lag.code}</Code><Message>{lag.message}</Message></Error>"
        answer = f"<ErrorResponse>{error}</ErrorResponse>"
    start_response(status, [("Content-Type", content_type)])
    return [answer.encode()]


# ---------------------------------------------------------------- the account


def check_variants(self: FakeEndpointConfig, production_variants: list[Json]) -> None:
    """Replace moto's check, whose list of types is older than ml.g5, ml.g6 and instance pools."""
    for variant in production_variants:
        pools = variant.get("InstancePools", [])
        if pools and "InstancePools" in unknown_arguments:
            raise ValidationError(message="Instance pools are not supported in this region.")
        if ("InstanceType" in variant) == bool(pools):
            raise ValidationError(message="Specify either InstanceType or InstancePools.")
        priorities = {pool["Priority"] for pool in pools}
        if not priorities <= {1, 2, 3, 4, 5} or len(priorities) != len(pools):
            raise ValidationError(message="Each pool has its own priority of 1 to 5.")


@contextmanager
def patched_moto() -> Iterator[None]:
    """Make moto behave as this module's docstring says."""
    backend = SageMakerModelBackend
    create_model = refuse_manifests(refuse_existing(backend.create_model, "model", "_models"))
    create_config = refuse_existing(
        backend.create_endpoint_config, "endpoint_config", "endpoint_configs"
    )
    create_transform_job = finish_transform_job(backend.create_transform_job)
    get_permission = evaluate_with_tls(FakeBucket.get_permission)
    with ExitStack() as stack:

        def replace(owner: type, name: str, method: Callable[..., Json]) -> None:
            stack.enter_context(mock.patch.object(owner, name, method, create=True))

        replace(FakeBucket, "get_permission", get_permission)
        stack.enter_context(
            mock.patch.object(threaded_moto_server, "DomainDispatcherApplication", Wire)
        )
        replace(FakeEndpointConfig, "validate_production_variants", check_variants)
        replace(backend, "create_model", create_model)
        replace(backend, "create_endpoint_config", create_config)
        replace(backend, "create_endpoint", create_endpoint)
        replace(backend, "describe_endpoint", describe_endpoint)
        replace(backend, "delete_endpoint", delete_endpoint)
        replace(backend, "create_transform_job", create_transform_job)
        replace(ServiceQuotasResponse, "list_service_quotas", list_quotas)
        replace(ServiceQuotasResponse, "list_aws_default_service_quotas", list_quotas)
        replace(ServiceQuotasResponse, "request_service_quota_increase", request_quota)
        # The name of its service-linked role
        stack.enter_context(mock.patch.dict(SERVICE_NAME_CONVERSION, ecs="ECS"))
        for name, method in methods_of(codebuild.OPERATIONS).items():
            replace(CodeBuildResponse, name, method)
        for name, method in methods_of(ecs.OPERATIONS).items():
            replace(EC2ContainerServiceResponse, name, method)
        replace(IamResponse, "create_user", create_user)
        replace(IamResponse, "put_user_permissions_boundary", limit_user)
        replace(CloudWatchBackend, "get_metric_statistics", get_metric_statistics)
        replace(CloudWatchResponse, "put_metric_alarm", put_metric_alarm)
        replace(CloudWatchResponse, "put_dashboard", put_dashboard)
        replace(ResourceGroupsTaggingAPIResponse, "get_resources", get_resources)
        replace(SNSBackend, "subscribe", subscribe)
        replace(SNSResponse, "list_subscriptions_by_topic", list_subscriptions)
        replace(BudgetsResponse, "create_budget", create_budget)
        replace(BudgetsResponse, "update_budget", update_budget)
        replace(BudgetsResponse, "list_tags_for_resource", list_budget_tags)
        replace(
            BudgetsResponse, "describe_subscribers_for_notification", describe_budget_subscribers
        )
        replace(BudgetsResponse, "create_subscriber", create_budget_subscriber)
        # moto has no UpdateEndpoint.
        replace(SageMakerResponse, "update_endpoint", update_endpoint)
        replace(SageMakerResponse, "create_training_job", training_jobs.create_training_job)
        replace(SageMakerResponse, "describe_training_job", describe_training_job)
        replace(SageMakerResponse, "list_training_jobs", training_jobs.list_training_jobs)
        replace(SageMakerResponse, "stop_training_job", training_jobs.stop_training_job)
        replace(SageMakerRuntimeResponse, "invoke_endpoint_async", invoke_endpoint_async)
        yield


@contextmanager
def account(port: int = 0) -> Iterator[str]:
    """Run the server and yield its URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with patched_moto():
        server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        try:
            yield f"http://{host}:{port}"
        finally:
            server.stop()


def environment(url: str) -> dict[str, str]:
    """Return the environment variables that make boto3 use the account."""
    return {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": url,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def clear(url: str) -> None:
    """Make the account empty."""
    global lag
    lag = 0
    unseen.clear()
    lost_answers.clear()
    confirmed.clear()
    unsubscribed.clear()
    ghosts.clear()
    quotas.clear()
    requested_quotas.clear()
    failures.clear()
    asleep.clear()
    bad_images.clear()
    old_instances_paint.clear()
    at_bake.clear()
    no_capacity.clear()
    unknown_arguments.clear()
    refusing_pools.clear()
    painted.clear()
    transitions.clear()
    server_starts.clear()
    failure_reasons.clear()
    training_jobs.clear()
    ecs.clear()
    codebuild.clear()
    requests.post(f"{url}/moto-api/reset", timeout=10).raise_for_status()


def make_older(key: str, seconds: float) -> None:
    """Let an object of the bucket look as if it was written so many seconds earlier."""
    found = s3_backends[ACCOUNT]["aws"].get_object(BUCKET, key)
    assert found is not None
    found.last_modified -= timedelta(seconds=seconds)


def let_time_pass(seconds: float) -> None:
    """Let the models and the objects of the bucket look so much older than they are."""
    for model in sagemaker_backends[ACCOUNT][REGION]._models.values():
        model.creation_time -= timedelta(seconds=seconds)
    for key in list(s3_backends[ACCOUNT]["aws"].buckets[BUCKET].keys):
        make_older(key, seconds)


def push(
    image: str,
    tag: str,
    content: str = "",
    prefix: str = "stylebot",
    manifest_type: str = MANIFEST_TYPE,
) -> str:
    """Put an image into ECR, as `build.sh --push` does, and return its digest.

    Images with the same `content`, by default the tag, have the same digest.
    """
    config = {"digest": f"sha256:{(content or tag).encode().hex():0>64.64}"}
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": config,
        "layers": [{**config, "size": 1}],
    }
    repository = f"{prefix}-{image}"
    answer = boto3.client("ecr").put_image(
        repositoryName=repository, imageManifest=json.dumps(manifest), imageTag=tag
    )

    # moto knows whole seconds only: keep the images' order apart.
    images = ecr_backends[ACCOUNT][REGION].repositories[repository].images
    images[-1].image_pushed_at -= 100 - len(images)
    digest: str = answer["image"]["imageId"]["imageDigest"]
    return digest


# ---------------------------------------------------------------- snapshots


def snapshot() -> dict[str, Json]:
    """Return everything in the account, without times and random ids, to compare two accounts."""
    iam = boto3.client("iam")
    scaling = boto3.client("application-autoscaling")
    targets = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")
    policies = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")
    found: dict[str, Json] = {
        **snapshot_identities(),
        "profiles": iam.list_instance_profiles()["InstanceProfiles"],
        "managed policies": iam.list_policies(Scope="Local")["Policies"],
        "targets": targets["ScalableTargets"],
        "policies": policies["ScalingPolicies"],
        "repositories": boto3.client("ecr").describe_repositories()["repositories"],
        **snapshot_buckets(),
        **snapshot_sagemaker(),
        **snapshot_alarms(),
        **snapshot_logs(),
        **snapshot_topics(),
        **snapshot_budgets(),
        **snapshot_bot(),
        **ecs.snapshot(),
        **codebuild.state.projects,
    }
    comparable: dict[str, Json] = without_random_parts(found)
    return comparable


def snapshot_identities() -> dict[str, Json]:
    """Return roles and users, but those of AWS itself, which `down` cannot delete."""
    found = boto3.client("iam").get_account_authorization_details(Filter=["Role", "User"])
    roles = [role for role in found["RoleDetailList"] if role["Path"] == "/"]
    return {"roles": roles, "users": found["UserDetailList"]}


def snapshot_bot() -> dict[str, Json]:
    """Return the bot's token and its security group."""
    ssm = boto3.client("ssm")
    found: dict[str, Json] = {}
    for parameter in ssm.describe_parameters()["Parameters"]:
        name = parameter["Name"]
        tags = ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=name)["TagList"]
        value = ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
        described = {key: parameter[key] for key in ("Type", "Description")}
        found[f"parameter {name}"] = [described, value, tags]
    for group in boto3.client("ec2").describe_security_groups()["SecurityGroups"]:
        if group["GroupName"] != "default":
            found[f"security group {group['GroupName']}"] = group
    return found


def snapshot_buckets() -> dict[str, Json]:
    s3 = boto3.client("s3")
    found = {}
    for bucket in s3.list_buckets()["Buckets"]:
        name = bucket["Name"]
        objects = s3.list_objects_v2(Bucket=name).get("Contents", [])
        keys = [item["Key"] for item in objects]
        found[name] = [
            answer_or_error(s3.get_bucket_tagging, Bucket=name),
            answer_or_error(s3.get_bucket_encryption, Bucket=name),
            answer_or_error(s3.get_bucket_lifecycle_configuration, Bucket=name),
            answer_or_error(s3.get_bucket_policy, Bucket=name),
            answer_or_error(s3.get_public_access_block, Bucket=name),
            # What is under async/ expires after a day.
            [key for key in keys if not key.startswith("async/")],
        ]
    return found


def snapshot_sagemaker() -> dict[str, Json]:
    sagemaker = boto3.client("sagemaker")
    found = {}
    for item in sagemaker.list_models(MaxResults=100)["Models"]:
        name = item["ModelName"]
        tags = sagemaker.list_tags(ResourceArn=item["ModelArn"])["Tags"]
        found[f"Model {name}"] = [sagemaker.describe_model(ModelName=name), tags]

    for item in sagemaker.list_endpoint_configs(MaxResults=100)["EndpointConfigs"]:
        name = item["EndpointConfigName"]
        tags = sagemaker.list_tags(ResourceArn=item["EndpointConfigArn"])["Tags"]
        config = sagemaker.describe_endpoint_config(EndpointConfigName=name)
        found[f"EndpointConfig {name}"] = [config, tags]

    for item in sagemaker.list_endpoints(MaxResults=100)["Endpoints"]:
        name = item["EndpointName"]
        tags = sagemaker.list_tags(ResourceArn=item["EndpointArn"])["Tags"]
        found[f"Endpoint {name}"] = [sagemaker.describe_endpoint(EndpointName=name), tags]
    return found


def snapshot_alarms() -> dict[str, Json]:
    cloudwatch = boto3.client("cloudwatch")
    found = {}
    for alarm in cloudwatch.describe_alarms()["MetricAlarms"]:
        arn = alarm["AlarmArn"]
        tags = answer_or_error(cloudwatch.list_tags_for_resource, ResourceARN=arn)
        found[f"alarm {alarm['AlarmName']}"] = [alarm, tags]
    for item in cloudwatch.list_dashboards()["DashboardEntries"]:
        tags = cloudwatch.list_tags_for_resource(ResourceARN=item["DashboardArn"])["Tags"]
        body = cloudwatch.get_dashboard(DashboardName=item["DashboardName"])["DashboardBody"]
        found[f"dashboard {item['DashboardName']}"] = [body, tags]
    return found


def snapshot_logs() -> dict[str, Json]:
    logs = boto3.client("logs")
    found = {}
    for group in logs.describe_log_groups()["logGroups"]:
        tags = logs.list_tags_for_resource(resourceArn=group["logGroupArn"])
        found[f"log {group['logGroupName']}"] = [group, tags]
    return found


def snapshot_topics() -> dict[str, Json]:
    sns = boto3.client("sns")
    found = {}
    for topic in sns.list_topics()["Topics"]:
        arn = topic["TopicArn"]
        subscriptions = sns.list_subscriptions_by_topic(TopicArn=arn)["Subscriptions"]
        found[f"topic {arn}"] = [sns.list_tags_for_resource(ResourceArn=arn)["Tags"], subscriptions]
    return found


def snapshot_budgets() -> dict[str, Json]:
    found = {}
    for name, budget in budgets_backends[ACCOUNT]["aws"].budgets[ACCOUNT].items():
        notifications = [vars(notification) for notification in budget.notifications]
        found[f"budget {name}"] = {**vars(budget), "notifications": notifications}
    return found


def answer_or_error(call: Callable[..., Json], **arguments: Json) -> Json:
    """Return what the call returns, or the name of its error."""
    try:
        return call(**arguments)
    except ClientError as error:
        return type(error).__name__


RANDOM_KEYS = (
    r"(?i)(role|user|instanceprofile|policy)id"
    r"|.*(time|date|timestamp|metadata|created)$|creat.*|storedbytes"
)
RANDOM_TEXT = (
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=scalable-target/)\w+|(sg|sgr|subnet|vpc)-\w+"
)


def without_random_parts(value: Json) -> Json:
    """Return a copy without what differs between two equal accounts. Lists are sorted."""
    if isinstance(value, dict):
        kept = {}
        for key, item in value.items():
            if not re.fullmatch(RANDOM_KEYS, key) and not isinstance(item, datetime):
                kept[key] = without_random_parts(item)
        return kept
    if isinstance(value, list):
        return sorted((without_random_parts(item) for item in value), key=str)
    if isinstance(value, str):
        return re.sub(RANDOM_TEXT, "RANDOM", value)
    return value


def main() -> None:
    """Run an account with images in it until Ctrl-C, to try deploy.py by hand."""
    with account() as url, mock.patch.dict(os.environ, environment(url)):
        for image in ("nst", "cyclegan", "bot"):
            boto3.client("ecr").create_repository(repositoryName=f"stylebot-{image}")
            push(image, "abc1234", content=image)
        for name, value in environment(url).items():
            print(f"export {name}={value}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
