"""An AWS account on this machine: moto's server, over HTTP, taught what it lacks and what SageMaker refuses.

moto 5.2.5 lacks, and this adds:
- UpdateEndpoint;
- InvokeEndpointAsync as it is: the request read from S3, the picture and the answer written there;
- a transform job that paints its rows;
- statuses that take their time (Creating, Updating, Deleting), FailureReason, and SageMaker's refusals: what exists
  already, an endpoint on its way, an update of the instance type under a scaling target;
- instance types newer than moto (ml.g5, ml.g6);
- conditions in bucket policies. Only aws:SecureTransport occurs here, and every call counts as TLS.
"""

import csv
import io
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from unittest import mock

import boto3
import requests
from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.core.responses import ActionResult
from moto.ecr.models import ecr_backends
from moto.s3.models import FakeBucket, s3_backends
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.models import FakeEndpoint, FakeEndpointConfig, SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse
from moto.sagemakerruntime.responses import SageMakerRuntimeResponse
from moto.server import ThreadedMotoServer

ACCOUNT, REGION = "123456789012", "eu-west-1"
BUSY_LOOKS = 2  # how often an endpoint is looked at before it has become what it was asked to be
Json = Any
failures: dict[str, str] = {}  # an endpoint's name: the reason why it will fail


# ---------------------------------------------------------------- what moto is taught


def refuse_existing(create: Callable[..., Json], kind: str, shelf: str) -> Callable[..., Json]:
    def checked(self: SageMakerModelBackend, *positional: Json, **arguments: Json) -> Json:
        name = arguments[f"{kind}_name"]
        if name in getattr(self, shelf):
            raise ValidationError(message=f"Cannot create already existing {kind} {name}")
        return create(self, *positional, **arguments)

    return checked


def set_off(endpoint: FakeEndpoint, status: str) -> None:
    endpoint.endpoint_status, endpoint.looks, endpoint.goal = status, BUSY_LOOKS, "InService"
    if reason := failures.get(endpoint.endpoint_name):
        endpoint.goal, endpoint.failure_reason = "Failed", reason
    if status == "Deleting":
        endpoint.goal = "gone"


create_endpoint, describe_endpoint = (
    SageMakerModelBackend.create_endpoint,
    SageMakerModelBackend.describe_endpoint,
)


def create_slowly(self: SageMakerModelBackend, **arguments: Json) -> FakeEndpoint:
    endpoint = refuse_existing(create_endpoint, "endpoint", "endpoints")(self, **arguments)
    set_off(endpoint, "Creating")
    return endpoint


def describe_on_its_way(self: SageMakerModelBackend, endpoint_name: str) -> Json:
    endpoint = self.endpoints.get(endpoint_name)
    if endpoint and endpoint.endpoint_status in ("Creating", "Updating", "Deleting"):
        endpoint.looks -= 1
        if endpoint.looks < 0:
            endpoint.endpoint_status = endpoint.goal
            if endpoint.goal == "gone":
                del self.endpoints[endpoint_name]
            elif endpoint.goal == "Failed" and hasattr(
                endpoint, "before"
            ):  # an update is rolled back
                endpoint.endpoint_status, endpoint.endpoint_config_name = (
                    "InService",
                    endpoint.before,
                )
    answer = describe_endpoint(self, endpoint_name)
    return {key: value for key, value in answer.items() if key not in ("Looks", "Goal", "Before")}


def delete_slowly(self: SageMakerModelBackend, endpoint_name: str) -> None:
    endpoint = self.endpoints.get(endpoint_name)
    if endpoint is None:
        raise ValidationError(message=f'Could not find endpoint "{endpoint_name}".')
    if endpoint.endpoint_status in ("Creating", "Updating", "Deleting"):
        raise ValidationError(message=f"Cannot update in-progress endpoint {endpoint_name}")
    set_off(endpoint, "Deleting")


def update_endpoint(self: SageMakerResponse) -> ActionResult:
    backend, asked = self.sagemaker_backend, json.loads(self.body)
    endpoint = backend.endpoints.get(asked["EndpointName"])
    if endpoint is None or endpoint.endpoint_status != "InService":
        raise ValidationError(
            message=f"Cannot update endpoint {asked['EndpointName']}: it is not in service"
        )
    old, new = (
        backend.endpoint_configs[name]
        for name in (endpoint.endpoint_config_name, asked["EndpointConfigName"])
    )
    types = [config.production_variants[0]["InstanceType"] for config in (old, new)]
    if types[0] != types[1] and any(
        asked["EndpointName"] in target for target in scaling_targets()
    ):
        raise ValidationError(
            message="Cannot change the instance type of a variant that is a scaling target"
        )
    assert asked["RetainAllVariantProperties"], "an update resets the number of instances"
    endpoint.before, endpoint.endpoint_config_name = (
        endpoint.endpoint_config_name,
        new.endpoint_config_name,
    )
    set_off(endpoint, "Updating")
    return ActionResult({"EndpointArn": endpoint.arn})


def scaling_targets() -> list[str]:
    backend = applicationautoscaling_backends[ACCOUNT][REGION]
    return [resource for targets in backend.targets.values() for resource in targets]


def read(address: str) -> bytes:
    bucket, _, key = address.removeprefix("s3://").partition("/")
    return s3_backends[ACCOUNT]["aws"].get_object(bucket, key).value  # type: ignore[union-attr]


def write(address: str, data: bytes) -> None:
    bucket, _, key = address.removeprefix("s3://").partition("/")
    s3_backends[ACCOUNT]["aws"].put_object(bucket, key, value=data)


def paint(request: dict[str, str]) -> dict[str, Json]:
    """What a container answers."""
    if "broken" in request["content_url"]:
        return {
            "error": {
                "code": "image_unreadable",
                "message": "The photograph is not a readable image.",
            }
        }
    if request["content_url"].startswith("s3://"):
        write(request["result_url"], read(request["content_url"]))
    return {"result_url": request["result_url"], "seconds": 1.5}


def invoke_endpoint_async(self: SageMakerRuntimeResponse) -> Json:
    name, asked = self.path.split("/")[2], self.headers["X-Amzn-SageMaker-InputLocation"]
    backend = SageMakerModelBackend_of(REGION)
    config: FakeEndpointConfig = backend.endpoint_configs[
        backend.endpoints[name].endpoint_config_name
    ]
    places = config.async_inference_config["OutputConfig"]
    key = asked.rsplit("/", 2)[1]
    output, failure = (
        f"{places['S3OutputPath']}{key}.out",
        f"{places['S3FailurePath']}{key}-error.out",
    )
    answer = paint(json.loads(read(asked)))
    if name in failures:
        answer = {"error": {"code": "internal", "message": failures[name]}}
    write(failure if "error" in answer else output, json.dumps(answer).encode())
    headers = {
        "X-Amzn-SageMaker-OutputLocation": output,
        "X-Amzn-SageMaker-FailureLocation": failure,
    }
    return 202, headers, json.dumps({"InferenceId": "1"})


def SageMakerModelBackend_of(region: str) -> SageMakerModelBackend:  # noqa: N802
    from moto.sagemaker.models import sagemaker_backends

    return sagemaker_backends[ACCOUNT][region]


def run_transform_job(create: Callable[..., Json]) -> Callable[..., Json]:
    """A job that has painted all its rows when it is created."""

    def create_transform_job(self: SageMakerModelBackend, **arguments: Json) -> Json:
        job = create(self, **arguments)
        assert arguments["model_name"] in self._models
        source = arguments["transform_input"]["DataSource"]["S3DataSource"]["S3Uri"]
        text = read(source).decode()
        rows: list[dict[str, str]]
        if arguments["transform_input"]["ContentType"] == "text/csv":
            names = ("content_url", "style", "result_url")
            rows = [dict(zip(names, row, strict=False)) for row in csv.reader(io.StringIO(text))]
        else:
            rows = [json.loads(line) for line in text.splitlines()]
        assert all(row["result_url"] for row in rows)
        answers = [json.dumps(paint(row)) + "\n" for row in rows]
        place = arguments["transform_output"]["S3OutputPath"]
        write(f"{place}/{source.rsplit('/', 1)[1]}.out", "\n".join(answers).encode())
        return job

    return create_transform_job


def permission_under_tls(decide: Callable[..., Json]) -> Callable[..., Json]:
    def get_permission(self: FakeBucket, action: str, resource: str) -> Json:
        policy = json.loads(self.policy or b"{}")
        tls = {"Bool": {"aws:SecureTransport": "false"}}
        left = [one for one in policy.get("Statement", []) if one.get("Condition") != tls]
        whole, self.policy = (
            self.policy,
            json.dumps({**policy, "Statement": left}).encode() if left else None,
        )
        try:
            return decide(self, action, resource)
        finally:
            self.policy = whole

    return get_permission


@contextmanager
def taught_moto() -> Iterator[None]:
    backend = SageMakerModelBackend
    changes: list[tuple[Json, str, Json]] = [
        (FakeBucket, "get_permission", permission_under_tls(FakeBucket.get_permission)),
        (FakeEndpointConfig, "validate_instance_type", lambda self, name: None),
        (backend, "create_model", refuse_existing(backend.create_model, "model", "_models")),
        (
            backend,
            "create_endpoint_config",
            refuse_existing(backend.create_endpoint_config, "endpoint_config", "endpoint_configs"),
        ),
        (backend, "create_endpoint", create_slowly),
        (backend, "describe_endpoint", describe_on_its_way),
        (backend, "delete_endpoint", delete_slowly),
        (backend, "create_transform_job", run_transform_job(backend.create_transform_job)),
        (SageMakerResponse, "update_endpoint", update_endpoint),
        (SageMakerRuntimeResponse, "invoke_endpoint_async", invoke_endpoint_async),
    ]
    patches = [mock.patch.object(where, name, new, create=True) for where, name, new in changes]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


@contextmanager
def account(port: int = 0) -> Iterator[str]:
    """The address of the taught moto's server."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with taught_moto():
        server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        try:
            yield f"http://{host}:{port}"
        finally:
            server.stop()


def environment(url: str) -> dict[str, str]:
    """What makes boto3 use that account."""
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "testing")
    return {
        **keys,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": url,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def forget_everything(url: str) -> None:
    failures.clear()
    requests.post(f"{url}/moto-api/reset", timeout=10).raise_for_status()


# ---------------------------------------------------------------- what a test asks of it


def push(kind: str, tag: str, content: str = "", prefix: str = "stylebot") -> str:
    """An image in ECR, as build.sh --push leaves one. Gives its digest."""
    ecr = boto3.client("ecr")
    config = {"digest": f"sha256:{(content or tag).encode().hex():0>64.64}"}
    kind_of_manifest = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind_of_manifest,
        "config": config,
        "layers": [{**config, "size": 1}],
    }
    image = ecr.put_image(
        repositoryName=f"{prefix}-{kind}", imageManifest=json.dumps(manifest), imageTag=tag
    )
    pushed = ecr_backends[ACCOUNT][REGION].repositories[f"{prefix}-{kind}"].images
    pushed[-1].image_pushed_at -= 100 - len(pushed)  # moto knows whole seconds only
    return image["image"]["imageId"]["imageDigest"]


def snapshot() -> dict[str, Json]:
    """All that is in the account, without times and random ids."""
    iam, s3, sagemaker = boto3.client("iam"), boto3.client("s3"), boto3.client("sagemaker")
    scaling, watch, logs = (
        boto3.client("application-autoscaling"),
        boto3.client("cloudwatch"),
        boto3.client("logs"),
    )
    found: dict[str, Json] = {
        "roles": iam.get_account_authorization_details(Filter=["Role", "User"])
    }
    found["profiles"] = iam.list_instance_profiles()["InstanceProfiles"]
    for bucket in (one["Name"] for one in s3.list_buckets()["Buckets"]):
        questions = ("tagging", "encryption", "lifecycle_configuration", "policy")
        found[bucket] = [
            ask(getattr(s3, f"get_bucket_{question}"), Bucket=bucket) for question in questions
        ]
        found[bucket].append(ask(s3.get_public_access_block, Bucket=bucket))
        keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
        found[bucket].append(
            [key for key in keys if not key.startswith("async/")]
        )  # which goes after a day
    for kind in ("Model", "EndpointConfig", "Endpoint"):
        snake = {"EndpointConfig": "endpoint_config"}.get(kind, kind.lower())
        for one in getattr(sagemaker, f"list_{snake}s")(MaxResults=100)[f"{kind}s"]:
            name, tags = (
                one[f"{kind}Name"],
                sagemaker.list_tags(ResourceArn=one[f"{kind}Arn"])["Tags"],
            )
            found[f"{kind} {name}"] = [
                getattr(sagemaker, f"describe_{snake}")(**{f"{kind}Name": name}),
                tags,
            ]
    found["targets"] = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")[
        "ScalableTargets"
    ]
    found["policies"] = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")[
        "ScalingPolicies"
    ]
    for alarm in watch.describe_alarms()["MetricAlarms"]:
        found[f"alarm {alarm['AlarmName']}"] = [
            alarm,
            ask(watch.list_tags_for_resource, ResourceARN=alarm["AlarmArn"]),
        ]
    for group in logs.describe_log_groups()["logGroups"]:
        found[f"log {group['logGroupName']}"] = [
            group,
            logs.list_tags_for_resource(resourceArn=group["logGroupArn"]),
        ]
    found["repositories"] = boto3.client("ecr").describe_repositories()["repositories"]
    return without_chance(found)


def ask(call: Callable[..., Json], **arguments: Json) -> Json:
    try:
        return call(**arguments)
    except Exception as error:
        return type(error).__name__


def without_chance(value: Json) -> Json:
    """A copy without what differs between two equal accounts, lists of things in order of their text."""

    chance = (
        r"(?i)(role|user|instanceprofile)id|.*(time|date|timestamp|metadata|looks|created)$|creat.*"
    )
    if isinstance(value, dict):
        left = {
            key: without_chance(one) for key, one in value.items() if not re.fullmatch(chance, key)
        }
        return {key: one for key, one in left.items() if not isinstance(one, datetime)}
    if isinstance(value, list):
        return sorted((without_chance(one) for one in value), key=str)
    random = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=scalable-target/)\w+"
    return re.sub(random, "RANDOM", value) if isinstance(value, str) else value


def main() -> None:
    """`python -m tests.fakes.aws`: such an account with images in it, to try deploy.py by hand, until Ctrl-C."""
    with account() as url, mock.patch.dict(os.environ, environment(url)):
        for kind in ("nst", "cyclegan", "bot"):
            boto3.client("ecr").create_repository(repositoryName=f"stylebot-{kind}")
            push(kind, "abc1234", content=kind)
        print(
            "\n".join(f"export {name}={value}" for name, value in environment(url).items()),
            flush=True,
        )
        threading.Event().wait()


if __name__ == "__main__":
    main()
