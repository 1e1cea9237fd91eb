#!/usr/bin/env python3
"""stylebot on AWS: two asynchronous SageMaker endpoints that sleep while nobody paints, and all that they need.

Read it from top to bottom: the account and its words, what `up` makes (bucket, roles, logs, endpoints, scaling), the
smoke test, what it costs, `status`, `down`, `batch`, what build.sh asks for, the command line.

1. Every change goes through Cloud.change, which with --plan tells it and makes none.
2. Every step looks first and changes only what differs, so a run that was cut off is mended by running it again.
3. Models and endpoint configurations cannot be changed on AWS. They are named after a hash of what they say: what has
   the right name is right, and what no endpoint uses any more is removed.
4. All is tagged stylebot=PREFIX when it is created. `down` takes what has both the name and the tag.

Progress goes to standard error; what other programs read, such as the bot's environment, to standard output.
"""

from __future__ import annotations

import argparse
import base64
import csv
import difflib
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from string import Template
from typing import Any, TextIO

HERE = Path(__file__).resolve().parent
try:
    import boto3
    from boto3 import Session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    if int(boto3.__version__.split(".")[1]) < 44:
        raise ImportError  # too old for some of what is asked below
except ImportError:  # a fresh clone: go on in .venv, with the two packages of the bot
    if not (HERE / ".venv/bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", HERE / ".venv"], check=True)
    python = str(HERE / ".venv/bin/python")
    pip = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
        f"{HERE}/requirements.txt",
    ]
    subprocess.run(pip, check=True, stdout=sys.stderr)
    os.execv(python, [python, *sys.argv])

KINDS = ("nst", "cyclegan")
IMAGES = (*KINDS, "bot")
VARIANT = "AllTraffic"
POLL_SECONDS, TELL_SECONDS = 15.0, 60.0
ROLE_SECONDS = 60  # until a new role is known everywhere
JOB_SECONDS = 900  # the longest that the bot lets a model work; see MODEL_SECONDS in bot.py
SMOKE_SECONDS = 900  # a sleeping endpoint wakes in two to five minutes
BUSY = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
BROKEN = ("Failed", "OutOfService", "UpdateRollbackFailed")

# US dollars an hour in us-east-1, on demand, as AWS published them at that date.
PRICES_DATE = "October 2025"
PRICES = {
    "ml.g4dn.xlarge": 0.736, "ml.g4dn.2xlarge": 0.94, "ml.g5.xlarge": 1.408, "ml.g5.2xlarge": 1.515,
    "ml.g6.xlarge": 1.127, "ml.g6.2xlarge": 1.222, "ml.c5.4xlarge": 0.816, "ml.m5.4xlarge": 0.922,
}  # fmt: skip
PICTURE_SECONDS = {"nst": 60, "cyclegan": 3}  # assumed, with all copying, on an ml.g4dn.xlarge
WAKE_MINUTES, DOZE_MINUTES = (
    5,
    30,
)  # assumed: until the first picture begins, and from the last one to sleep
GIGABYTE_MONTH = 0.10  # of images in ECR

MENDS = {  # what to do about an error that matches
    r"NoCredentials|PartialCredentials|CredentialRetrieval":
        "Log in first: aws configure, aws sso login, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    r"ExpiredToken|RequestExpired|TokenRetrieval|SSOToken|UnauthorizedSSO|LoginRefresh":
        "Log in again: aws sso login, or fetch new temporary credentials.",
    r"InvalidClientTokenId|UnrecognizedClient|SignatureDoesNotMatch|AuthFailure|InvalidAccessKeyId":
        "AWS does not know these credentials: check the AWS_ variables, ~/.aws and this computer's clock.",
    r"ProfileNotFound": "Check AWS_PROFILE against ~/.aws/config.",
    r"EndpointConnection|ConnectTimeout|ReadTimeout|ProxyConnection|SSLError":
        "Check the network (proxy, VPN), then run the same command again: it goes on where it stopped.",
    r"ResourceLimitExceeded|service limit|quota":
        "Ask for more under Service Quotas > Amazon SageMaker ('for endpoint usage', 'for transform job usage'), "
        "or name another --instance-type.",
    r"[Ii]nsufficient ?(Instance)?[Cc]apacity|Unable to provision|capacity error":
        "AWS has no such machine free now: try again later, or name another --instance-type or --region.",
    r"AccessDenied|not authorized|UnauthorizedOperation|\(403\)":
        "These credentials lack that permission. Ask for the policy that `./deploy.py policy deployer` prints.",
    r"health check":
        "The container did not answer /ping with 200 in time. The log lines say why; if they speak of an NVIDIA "
        "driver, name another --ami.",
    r"CannotStartContainer|exec format": "The image does not start, or is not for linux/amd64: ./build.sh --push.",
    r"[Tt]hrottl|TooManyRequests|Rate exceeded": "AWS asks for patience: run the same command again in a minute.",
}  # fmt: skip

Json = Any  # whatever JSON can hold
Client = Any  # boto3 makes its clients at run time
Call = Callable[..., Json]


class DeployError(Exception):
    """What went wrong and what to do, in words for the person at the terminal."""


# ---------------------------------------------------------------- the account and its words


class Cloud:
    """One account, region and prefix: clients, names, tags. Raises DeployError where the region is unknown."""

    def __init__(
        self,
        prefix: str,
        region: str | None,
        plan: bool = False,
        tags: dict[str, str] | None = None,
    ) -> None:
        session = Session(region_name=region)
        self.region, self.prefix, self.plan = check_region(session), prefix, plan
        self.changes: list[str] = []
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 8},
            connect_timeout=10,
            read_timeout=60,
        )
        client = partial(session.client, region_name=self.region, config=config)
        self.s3, self.iam, self.ecr, self.logs = (
            client("s3"),
            client("iam"),
            client("ecr"),
            client("logs"),
        )
        self.sagemaker, self.runtime = client("sagemaker"), client("sagemaker-runtime")
        self.scaling, self.cloudwatch = client("application-autoscaling"), client("cloudwatch")
        self.account: str = client("sts").get_caller_identity()["Account"]
        self.partition = session.get_partition_for_region(self.region)
        self.bucket = f"{prefix}-{self.account}-{self.region}"
        self.role = f"{prefix}-execution-{self.region}"  # IAM knows no regions, hence the name
        self.bot = f"{prefix}-bot-{self.region}"
        self.tags = {**(tags or {}), "stylebot": prefix}
        self.tag_list = [{"Key": key, "Value": value} for key, value in self.tags.items()]

    def document(self, name: str) -> str:
        """policies/NAME.json with the names of this account, region and prefix filled in."""
        names = ("partition", "account", "region", "prefix", "bucket", "role", "bot")
        text = (HERE / "policies" / f"{name}.json").read_text()
        return Template(text).substitute({key: getattr(self, key) for key in names})

    def change(self, what: str, call: Call, **arguments: Json) -> Json:
        """Tell a change and make it; with --plan only tell it, and answer {}."""
        self.changes.append(what)
        if self.plan:
            say(f"would {what}", sys.stdout)
            return {}
        say(what)
        return call(**arguments)

    def keep(self, what: str, current: Json, wanted: Json, call: Call, **arguments: Json) -> None:
        """Make the change only if `current` does not say already what is wanted."""
        if not holds(current, wanted):
            self.change(what, call, **arguments)

    def is_ours(self, tags: Json) -> bool:
        """Whether a thing's tags, as either shape that AWS has for them, say that `up` made it."""
        pairs = (
            tags.items()
            if isinstance(tags, dict)
            else [(tag["Key"], tag["Value"]) for tag in tags or ()]
        )
        return ("stylebot", self.prefix) in pairs


def check_region(session: Client) -> str:
    region = session.region_name
    if not region:
        raise DeployError(
            "No region is set. Name one: --region eu-west-1, or AWS_DEFAULT_REGION, or aws configure."
        )
    places = (
        session.get_available_regions("sagemaker", name)
        for name in session.get_available_partitions()
    )
    known = [name for names in places for name in names]
    if region not in known:
        close = " or ".join(difflib.get_close_matches(region, known, 3)) or "eu-west-1"
        raise DeployError(
            f"There is no SageMaker in a region {region}. Name one such as {close} with --region."
        )
    return region


def say(words: str, stream: TextIO | None = None) -> None:
    """Progress, to standard error if nowhere else; in one call, so that threads do not mix."""
    stream = stream or sys.stderr
    stream.write(f"{words}\n")
    stream.flush()


def holds(current: Json, wanted: Json) -> bool:
    """Whether `current` says all that `wanted` does. AWS adds defaults of its own, and orders lists as it likes."""
    if isinstance(wanted, dict):
        return isinstance(current, dict) and all(
            holds(current.get(key), wanted[key]) for key in wanted
        )
    if isinstance(wanted, list):
        same_length = isinstance(current, list) and len(current) == len(wanted)
        return same_length and all(any(holds(item, one) for item in current) for one in wanted)
    return bool(current == wanted)


def is_absent(error: ClientError) -> bool:
    code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
    return bool(re.search("NoSuch|NotFound|^404$", code)) or (
        code == "ValidationException" and "not find" in message
    )


def find(call: Call, **arguments: Json) -> Json:
    """What a describing (or deleting) call answers; None where there is no such thing."""
    try:
        return call(**arguments)
    except ClientError as error:
        if is_absent(error):
            return None
        raise


def pages(client: Client, operation: str, **arguments: Json) -> Iterator[Json]:
    yield from client.get_paginator(operation).paginate(**arguments)


def together(*tasks: Callable[[], Json]) -> list[Json]:
    """Run tasks side by side. All come to their end; then the first error is raised, and the others are told."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        futures = [pool.submit(task) for task in tasks]
    errors = [error for future in futures if (error := future.exception())]
    for error in errors[1:]:
        say(explain(error))
    if errors:
        raise errors[0]
    return [future.result() for future in futures]


def explain(error: BaseException) -> str:
    """An error in words, and what to do about it."""
    if isinstance(error, DeployError):
        return str(error)
    if not isinstance(error, (BotoCoreError, ClientError)):
        return f"{type(error).__name__}: {error}"
    words = " ".join(str(error).split())
    return f"{words}\n{find_mend(f'{type(error).__name__} {words}')}".rstrip()


def find_mend(words: str) -> str:
    """What to do about an error, as far as it is known."""
    return next((mend for cause, mend in MENDS.items() if re.search(cause, words)), "")


# ---------------------------------------------------------------- up: bucket, roles, logs


def ensure_bucket(cloud: Cloud) -> None:
    """Private, encrypted, reached by TLS only; jobs and answers go after a day (the bot removes them sooner), chats
    after thirty days without a message."""
    s3, bucket = cloud.s3, {"Bucket": cloud.bucket}
    if find(s3.head_bucket, **bucket) is None:
        place = {} if cloud.region == "us-east-1" else {"LocationConstraint": cloud.region}
        create = partial(
            s3.create_bucket, CreateBucketConfiguration={**place, "Tags": cloud.tag_list}
        )
        cloud.change(f"create the bucket {cloud.bucket}", create, **bucket)
    public = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    encryption = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    days = {"jobs": 1, "async": 1, "chats": 30}
    rule = {"Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}
    rules = [
        {"ID": n, "Filter": {"Prefix": f"{n}/"}, "Expiration": {"Days": days[n]}, **rule}
        for n in days
    ]
    settings: dict[str, tuple[str, str, Json]] = {
        "bucket_tagging": ("tag it", "Tagging", {"TagSet": cloud.tag_list}),
        "public_access_block": (
            "keep it private",
            "PublicAccessBlockConfiguration",
            dict.fromkeys(public, True),
        ),
        "bucket_encryption": (
            "encrypt it",
            "ServerSideEncryptionConfiguration",
            {"Rules": [encryption]},
        ),
        "bucket_lifecycle_configuration": (
            "let what is unused expire",
            "LifecycleConfiguration",
            {"Rules": rules},
        ),
        "bucket_policy": (
            "refuse what comes without TLS",
            "Policy",
            json.loads(cloud.document("bucket")),
        ),
    }
    for name, (what, argument, wanted) in settings.items():
        found = find(getattr(s3, f"get_{name}"), **bucket) or {}
        found = found.get(argument, found)  # get_ wraps what put_ takes, or does not
        found = json.loads(found) if isinstance(found, str) else found
        value = json.dumps(wanted) if argument == "Policy" else wanted
        cloud.keep(
            f"set the bucket up: {what}",
            found,
            wanted,
            getattr(s3, f"put_{name}"),
            **bucket,
            **{argument: value},
        )


def ensure_identity(cloud: Cloud, kind: str, name: str, policy: str, trust: str = "") -> None:
    """An IAM user, or a role that trusts policies/<trust>.json, with one inline policy."""
    iam, key = cloud.iam, {f"{kind.title()}Name": name}
    rights, trusted = cloud.document(policy), cloud.document(trust) if trust else ""
    found = find(getattr(iam, f"get_{kind}"), **key)
    if found is None:
        create = partial(
            getattr(iam, f"create_{kind}"), **{"AssumeRolePolicyDocument": trusted} if trust else {}
        )
        cloud.change(f"create the {kind} {name}", create, **key, Tags=cloud.tag_list)
    elif trust:
        now, update = (
            found["Role"]["AssumeRolePolicyDocument"],
            partial(iam.update_assume_role_policy, **key),
        )
        what = f"change whom the role {name} trusts"
        cloud.keep(what, now, json.loads(trusted), update, PolicyDocument=trusted)
    inline = find(getattr(iam, f"get_{kind}_policy"), **key, PolicyName=policy) or {}
    put = partial(getattr(iam, f"put_{kind}_policy"), **key, PolicyName=policy)
    what = f"give the {kind} {name} policies/{policy}.json"
    cloud.keep(what, inline.get("PolicyDocument"), json.loads(rights), put, PolicyDocument=rights)


def ensure_bot(cloud: Cloud, kind: str) -> None:
    """The bot's own identity: a user for machines elsewhere, or a role for EC2 and ECS."""
    ensure_identity(cloud, kind, cloud.bot, "bot", "bot-trust" if kind == "role" else "")
    if kind == "user":
        say(
            f"a key for the bot, when you need one: aws iam create-access-key --user-name {cloud.bot}"
        )
        return
    profile, iam = {"InstanceProfileName": cloud.bot}, cloud.iam
    found = find(iam.get_instance_profile, **profile)
    if found is None:
        create = partial(iam.create_instance_profile, Tags=cloud.tag_list)
        cloud.change(f"create the instance profile {cloud.bot}", create, **profile)
    if not found or not found["InstanceProfile"]["Roles"]:
        add = partial(iam.add_role_to_instance_profile, RoleName=cloud.bot)
        cloud.change(f"put the role into the instance profile {cloud.bot}", add, **profile)


def log_group(endpoint: str) -> str:
    """Where SageMaker puts an endpoint's log."""
    return f"/aws/sagemaker/Endpoints/{endpoint}"


def find_log_group(cloud: Cloud, endpoint: str) -> Json:
    groups = cloud.logs.describe_log_groups(logGroupNamePrefix=log_group(endpoint))["logGroups"]
    return next((group for group in groups if group["logGroupName"] == log_group(endpoint)), None)


def ensure_log_group(cloud: Cloud, endpoint: str) -> None:
    """Made before SageMaker does, which would keep the log for ever."""
    name = {"logGroupName": log_group(endpoint)}
    found = find_log_group(cloud, endpoint)
    if found is None:
        create = partial(cloud.logs.create_log_group, tags=cloud.tags)
        cloud.change(f"create the log group {log_group(endpoint)}", create, **name)
    days = {"retentionInDays": 30}
    keep = partial(cloud.logs.put_retention_policy, **name)
    cloud.keep(f"keep the log of {endpoint} for 30 days", found, days, keep, **days)


# ---------------------------------------------------------------- up: images, models, endpoints


@dataclass(frozen=True)
class Endpoint:
    """What is asked for one of the two endpoints."""

    kind: str
    name: str
    instance_type: str
    min_instances: int
    max_instances: int
    concurrency: int
    ami: str


@dataclass(frozen=True)
class Image:
    uri: str  # by digest
    tag: str
    pushed: datetime
    gigabytes: float

    @property
    def short(self) -> str:
        name, _, digest = self.uri.rpartition("/")[2].partition("@")
        return f"{name}@{digest[:19]}"


def find_image(cloud: Cloud, kind: str, tag: str | None) -> Image:
    """The image of that tag, or the newest. Raises DeployError where there is none; with --plan that is told."""
    repository = f"{cloud.prefix}-{kind}"
    where = {"repositoryName": repository, **({"imageIds": [{"imageTag": tag}]} if tag else {})}
    details = (find(cloud.ecr.describe_images, **where) or {}).get("imageDetails", [])
    tagged = [image for image in details if image.get("imageTags")]
    mend = f"./build.sh --push --region {cloud.region} --prefix {cloud.prefix}" + (
        f" --tag {tag}" if tag else ""
    )
    if not tagged and not cloud.plan:
        raise DeployError(
            f"{repository}:{tag or '(any tag)'} is not in ECR in {cloud.region}. Push it first: {mend}"
        )
    if not tagged:
        say(f"first, {repository} is to be pushed: {mend}", sys.stdout)
        return Image(f"{repository}@(to be pushed)", tag or "", datetime.now(timezone.utc), 2.7)
    newest = max(tagged, key=lambda image: image["imagePushedAt"])
    home = cloud.ecr.describe_repositories(repositoryNames=[repository])["repositories"][0][
        "repositoryUri"
    ]
    size = newest.get("imageSizeInBytes", 0) / 1e9
    return Image(
        f"{home}@{newest['imageDigest']}", newest["imageTags"][0], newest["imagePushedAt"], size
    )


def named_after(endpoint: str, contents: Json) -> str:
    return f"{endpoint}-{hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:10]}"


def ensure_model(cloud: Cloud, endpoint: Endpoint, image: Image) -> str:
    """Gives the model's name."""
    container = {"Image": image.uri, "Environment": {"AWS_DEFAULT_REGION": cloud.region}}
    role = f"arn:{cloud.partition}:iam::{cloud.account}:role/{cloud.role}"
    contents = {"PrimaryContainer": container, "ExecutionRoleArn": role}
    name = named_after(endpoint.name, contents)
    if find(cloud.sagemaker.describe_model, ModelName=name) is None:
        create = partial(
            when_role_is_known, cloud.sagemaker.create_model, ModelName=name, Tags=cloud.tag_list
        )
        cloud.change(f"create the model {name} of the image {image.short}", create, **contents)
    return name


def when_role_is_known(call: Call, **arguments: Json) -> Json:
    """A role just made is refused for some seconds, in words that all name the role."""
    deadline = time.monotonic() + ROLE_SECONDS
    while True:
        try:
            return call(**arguments)
        except ClientError as error:
            if (
                time.monotonic() > deadline
                or not re.search(r"\brole\b", str(error))
                or "PassRole" in str(error)
            ):
                raise
            time.sleep(POLL_SECONDS / 3)


def ensure_config(cloud: Cloud, endpoint: Endpoint, model: str) -> str:
    """Gives the endpoint configuration's name."""
    variant = {
        "VariantName": VARIANT,
        "ModelName": model,
        "InstanceType": endpoint.instance_type,
        "InitialInstanceCount": max(1, endpoint.min_instances),  # it cannot start asleep
        "ContainerStartupHealthCheckTimeoutInSeconds": 600,
    }
    if endpoint.instance_type.startswith(("ml.g", "ml.p")):
        variant["InferenceAmiVersion"] = (
            endpoint.ami
        )  # its driver must be as new as the image's CUDA
    answers = f"s3://{cloud.bucket}/async"
    places = {"S3OutputPath": f"{answers}/output/", "S3FailurePath": f"{answers}/failure/"}
    client = {"MaxConcurrentInvocationsPerInstance": endpoint.concurrency}
    asynchronous = {"ClientConfig": client, "OutputConfig": places}
    contents = {"ProductionVariants": [variant], "AsyncInferenceConfig": asynchronous}
    name = named_after(endpoint.name, contents)
    if find(cloud.sagemaker.describe_endpoint_config, EndpointConfigName=name) is None:
        create = partial(
            cloud.sagemaker.create_endpoint_config, EndpointConfigName=name, Tags=cloud.tag_list
        )
        machine = f"{endpoint.instance_type}, concurrency {endpoint.concurrency}"
        cloud.change(f"create the endpoint configuration {name} ({machine})", create, **contents)
    return name


def settled(cloud: Cloud, endpoint: str) -> Json:
    """The endpoint's description once it is no longer on its way, None once it is gone; says what it does meanwhile."""
    started, told, last = time.monotonic(), float("-inf"), ""
    while True:
        found = find(cloud.sagemaker.describe_endpoint, EndpointName=endpoint)
        status = found["EndpointStatus"] if found else "gone"
        if cloud.plan or status not in BUSY:
            return found
        seconds = time.monotonic() - started
        if status != last or seconds > told + TELL_SECONDS:
            hint = ", usually 5 to 10 minutes" if status != "Deleting" else ""
            say(f"{endpoint}: {status}, {int(seconds // 60)}:{int(seconds % 60):02}{hint}")
            told, last = seconds, status
        time.sleep(POLL_SECONDS)


def ensure_endpoint(cloud: Cloud, endpoint: Endpoint, config: str) -> None:
    """Created, or updated while the old one goes on serving. Raises DeployError with SageMaker's reason and the log."""
    name = {"EndpointName": endpoint.name}
    found = settled(cloud, endpoint.name)  # a run that was cut off may have left it on its way
    if found and found["EndpointStatus"] in BROKEN:
        what = f"delete the endpoint {endpoint.name}, which is {found['EndpointStatus']}"
        cloud.change(what, cloud.sagemaker.delete_endpoint, **name)
        found = settled(cloud, endpoint.name) if not cloud.plan else None
    if found and found["EndpointConfigName"] == config:
        return
    if found:
        update_endpoint(cloud, endpoint, found["EndpointConfigName"], config)
    else:
        create = partial(
            cloud.sagemaker.create_endpoint, EndpointConfigName=config, Tags=cloud.tag_list
        )
        cloud.change(f"create the endpoint {endpoint.name}", create, **name)
    found = settled(cloud, endpoint.name)
    if not cloud.plan and (
        found["EndpointStatus"] != "InService" or found["EndpointConfigName"] != config
    ):
        raise DeployError(why_it_failed(cloud, endpoint.name, found))


def update_endpoint(cloud: Cloud, endpoint: Endpoint, old: str, new: str) -> None:
    """Blue/green: the new instances take over once they are healthy, and give back if their alarm rings."""
    was = find(cloud.sagemaker.describe_endpoint_config, EndpointConfigName=old) or {
        "ProductionVariants": [{}]
    }
    if was["ProductionVariants"][0].get("InstanceType") != endpoint.instance_type:
        stop_scaling(cloud, endpoint.name)  # a scaling target refuses to change its instance type
    safely = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 300},
            "TerminationWaitInSeconds": JOB_SECONDS,
            "MaximumExecutionTimeoutInSeconds": 3600,
        },
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": f"{endpoint.name}-faults"}]},
    }
    arguments = {
        "EndpointName": endpoint.name,
        "EndpointConfigName": new,
        "DeploymentConfig": safely,
    }
    update = partial(cloud.sagemaker.update_endpoint, RetainAllVariantProperties=True)
    cloud.change(
        f"update the endpoint {endpoint.name} to {new}, without downtime", update, **arguments
    )


def why_it_failed(cloud: Cloud, endpoint: str, found: Json) -> str:
    status = found["EndpointStatus"]
    reason = found.get("FailureReason") or "SageMaker gives no reason."
    lines = last_log_lines(cloud, endpoint) or ["(nothing: the container did not start)"]
    mend = find_mend(reason) or "Mend that, then run up again."
    state = "went back to what it was before" if status == "InService" else f"is {status}"
    return "\n  ".join(
        [f"The endpoint {endpoint} {state}: {reason}", "The end of its log:", *lines, mend]
    )


def last_log_lines(cloud: Cloud, endpoint: str, count: int = 10) -> list[str]:
    group = {"logGroupName": log_group(endpoint)}
    newest = {"orderBy": "LastEventTime", "descending": True, "limit": 1}
    streams = (find(cloud.logs.describe_log_streams, **group, **newest) or {}).get("logStreams", [])
    if not streams:
        return []
    events = cloud.logs.get_log_events(
        **group, logStreamName=streams[0]["logStreamName"], limit=count
    )["events"]
    return [event["message"].rstrip() for event in events]


# ---------------------------------------------------------------- up: scaling to zero and back


def scalable_target(endpoint: str) -> dict[str, str]:
    resource = f"endpoint/{endpoint}/variant/{VARIANT}"
    dimension = "sagemaker:variant:DesiredInstanceCount"
    return {"ServiceNamespace": "sagemaker", "ResourceId": resource, "ScalableDimension": dimension}


def find_scaling(cloud: Cloud, endpoint: str) -> Json:
    target = scalable_target(endpoint)
    where = {**target, "ResourceIds": [target.pop("ResourceId")]}
    del where["ResourceId"]
    return next(iter(cloud.scaling.describe_scalable_targets(**where)["ScalableTargets"]), None)


def stop_scaling(cloud: Cloud, endpoint: str) -> None:
    """Policies first: without its target one could not be found any more."""
    target = scalable_target(endpoint)
    for name in find_policies(cloud, endpoint):
        delete = partial(find, cloud.scaling.delete_scaling_policy, **target)
        cloud.change(f"remove the scaling policy {name}", delete, PolicyName=name)
    if find_scaling(cloud, endpoint):
        stop = partial(find, cloud.scaling.deregister_scalable_target)
        cloud.change(f"take {endpoint} from the scaling targets", stop, **target)


def ensure_alarm(
    cloud: Cloud, name: str, metric: str, dimensions: dict[str, str], **settings: Json
) -> None:
    where = [{"Name": key, "Value": value} for key, value in dimensions.items()]
    alarm = {
        "Namespace": "AWS/SageMaker",
        "MetricName": metric,
        "Dimensions": where,
        "Period": 60,
        **settings,
    }
    alarm["ComparisonOperator"] = "GreaterThanOrEqualToThreshold"
    found = next(iter(cloud.cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]), None)
    put = partial(
        cloud.cloudwatch.put_metric_alarm,
        AlarmName=name,
        **({} if found else {"Tags": cloud.tag_list}),
    )
    cloud.keep(f"set the alarm {name} on {metric}", found, alarm, put, **alarm)


def ensure_rollback_alarm(cloud: Cloud, endpoint: Endpoint) -> None:
    """Faults of our own (5xx); a picture that cannot be read is none."""
    where = {"EndpointName": endpoint.name, "VariantName": VARIANT}
    settings = {
        "Statistic": "Sum",
        "EvaluationPeriods": 1,
        "Threshold": 3.0,
        "TreatMissingData": "notBreaching",
    }
    ensure_alarm(cloud, f"{endpoint.name}-faults", "Invocation5XXErrors", where, **settings)


def ensure_scaling(cloud: Cloud, endpoint: Endpoint) -> None:
    """One more instance for every five waiting pictures; none when none waits; and a step that wakes from zero."""
    limits = {"MinCapacity": endpoint.min_instances, "MaxCapacity": endpoint.max_instances}
    what = (
        f"scale {endpoint.name} from {endpoint.min_instances} to {endpoint.max_instances} instances"
    )
    register = partial(cloud.scaling.register_scalable_target, **scalable_target(endpoint.name))
    cloud.keep(what, find_scaling(cloud, endpoint.name), limits, register, **limits)
    backlog = {
        "Namespace": "AWS/SageMaker",
        "MetricName": "ApproximateBacklogSizePerInstance",
        "Dimensions": [{"Name": "EndpointName", "Value": endpoint.name}],
        "Statistic": "Average",
    }
    # Longer than any job: an instance that is taken away takes its picture along.
    cooldowns = {"ScaleInCooldown": JOB_SECONDS + 60, "ScaleOutCooldown": 300}
    follow = {"CustomizedMetricSpecification": backlog, "TargetValue": 5.0, **cooldowns}
    ensure_policy(cloud, endpoint, "follow", "TargetTrackingScaling", follow)
    if endpoint.min_instances > 0:
        return remove_wake_up(cloud, endpoint)
    # The policy above divides by the instances, and so never sees a backlog while there are none.
    step = {"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}
    wake = {
        "AdjustmentType": "ChangeInCapacity",
        "MetricAggregationType": "Average",
        "Cooldown": 300,
    }
    policy = ensure_policy(
        cloud, endpoint, "wake", "StepScaling", {**wake, "StepAdjustments": [step]}
    )
    settings = {
        "Statistic": "Average",
        "EvaluationPeriods": 2,
        "DatapointsToAlarm": 2,
        "Threshold": 1.0,
    }
    settings |= {"TreatMissingData": "missing", "AlarmActions": [policy]}
    where = {"EndpointName": endpoint.name}
    ensure_alarm(cloud, f"{endpoint.name}-wake", "HasBacklogWithoutCapacity", where, **settings)


def find_policies(cloud: Cloud, endpoint: str) -> dict[str, Json]:
    found = cloud.scaling.describe_scaling_policies(**scalable_target(endpoint))["ScalingPolicies"]
    return {policy["PolicyName"]: policy for policy in found}


def ensure_policy(cloud: Cloud, endpoint: Endpoint, name: str, kind: str, wanted: Json) -> str:
    """Gives the scaling policy's ARN."""
    found = find_policies(cloud, endpoint.name).get(f"{endpoint.name}-{name}", {})
    argument = f"{kind}PolicyConfiguration"
    if not holds(found.get(argument), wanted):
        put = partial(
            cloud.scaling.put_scaling_policy,
            PolicyName=f"{endpoint.name}-{name}",
            **scalable_target(endpoint.name),
        )
        what = f"set the scaling policy {endpoint.name}-{name}"
        found = cloud.change(what, put, PolicyType=kind, **{argument: wanted})
    return found.get("PolicyARN", "")


def remove_wake_up(cloud: Cloud, endpoint: Endpoint) -> None:
    """For a pair that never sleeps."""
    wake = f"{endpoint.name}-wake"
    if cloud.cloudwatch.describe_alarms(AlarmNames=[wake])["MetricAlarms"]:
        cloud.change(f"remove the alarm {wake}", cloud.cloudwatch.delete_alarms, AlarmNames=[wake])
    if wake in find_policies(cloud, endpoint.name):
        delete = partial(cloud.scaling.delete_scaling_policy, **scalable_target(endpoint.name))
        cloud.change(f"remove the scaling policy {wake}", delete, PolicyName=wake)


# ---------------------------------------------------------------- up: all of it


def up(cloud: Cloud, endpoints: list[Endpoint], image_tag: str | None, bot: str | None) -> int:
    images = {endpoint.name: find_image(cloud, endpoint.kind, image_tag) for endpoint in endpoints}
    first = [
        partial(ensure_bucket, cloud),
        partial(ensure_identity, cloud, "role", cloud.role, "execution", "trust"),
    ]
    first += [partial(ensure_bot, cloud, bot)] if bot else []
    together(*first, *(partial(ensure_log_group, cloud, endpoint.name) for endpoint in endpoints))
    together(
        *(partial(raise_endpoint, cloud, endpoint, images[endpoint.name]) for endpoint in endpoints)
    )
    if cloud.plan:
        print(
            f"{len(cloud.changes)} changes; nothing was touched."
            if cloud.changes
            else "Nothing to change."
        )
    else:
        say("All is in place." if cloud.changes else "All was in place already.")
        print_environment(cloud, endpoints)
    say(estimate(endpoints, list(images.values())))
    if not cloud.plan:
        together(*(partial(smoke_test, cloud, endpoint) for endpoint in endpoints))
    return 0


def raise_endpoint(cloud: Cloud, endpoint: Endpoint, image: Image) -> None:
    model = ensure_model(cloud, endpoint, image)
    config = ensure_config(cloud, endpoint, model)
    ensure_rollback_alarm(cloud, endpoint)
    ensure_endpoint(cloud, endpoint, config)
    ensure_scaling(cloud, endpoint)
    for what, delete in [*configs_of(cloud, endpoint.name), *models_of(cloud, endpoint.name)]:
        if not what.endswith((f" {config}", f" {model}")):
            cloud.change(f"{what}, which is of no more use", delete)


def print_environment(cloud: Cloud, endpoints: list[Endpoint]) -> None:
    """What bot.py needs, but for the token, which is none of our business."""
    say("The bot's environment, to be kept with the token of @BotFather as TELEGRAM_TOKEN:")
    names = {f"{endpoint.kind.upper()}_ENDPOINT": endpoint.name for endpoint in endpoints}
    for name, value in {
        "AWS_DEFAULT_REGION": cloud.region,
        "BUCKET": cloud.bucket,
        **names,
    }.items():
        say(f"{name}={value}", sys.stdout)
    say(
        f"Its permissions: `./deploy.py policy bot` prints them, --bot user or --bot role makes {cloud.bot} with them."
    )


def smoke_test(cloud: Cloud, endpoint: Endpoint) -> None:
    """One small picture through S3, as the bot would. Not under jobs/, where a running bot would tidy it away."""
    folder = f"async/smoke/{endpoint.kind}-{time.time_ns()}"
    address = f"s3://{cloud.bucket}/{folder}"
    request = {
        "content_url": f"{address}/content.jpg",
        "result_url": f"{address}/result.jpg",
        "size": 256,
    }
    nst = endpoint.kind == "nst"
    request |= (
        {"style_url": f"{address}/style.jpg", "max_epochs": 2} if nst else {"style_name": "vintage"}
    )
    put = partial(cloud.s3.put_object, Bucket=cloud.bucket)
    put(Key=f"{folder}/content.jpg", Body=(HERE / "examples/photos/chelsea.jpg").read_bytes())
    put(Key=f"{folder}/style.jpg", Body=(HERE / "examples/styles/waves.jpg").read_bytes())
    put(Key=f"{folder}/request.json", Body=json.dumps(request).encode())
    say(
        f"{endpoint.name}: painting a test picture; if it sleeps, it wakes first, which takes some minutes"
    )
    limits = {"RequestTTLSeconds": max(60, SMOKE_SECONDS), "InvocationTimeoutSeconds": JOB_SECONDS}
    call = partial(cloud.runtime.invoke_endpoint_async, ContentType="application/json", **limits)
    started = time.monotonic()
    answer = call(EndpointName=endpoint.name, InputLocation=f"{address}/request.json")
    keys = {name: answer[f"{name}Location"].split("/", 3)[3] for name in ("Output", "Failure")}
    try:
        wait_for_picture(cloud, endpoint, keys, f"{folder}/result.jpg")
        say(f"{endpoint.name}: painted a test picture in {time.monotonic() - started:.0f} s")
    finally:
        names = [
            f"{folder}/{name}"
            for name in ("content.jpg", "style.jpg", "request.json", "result.jpg")
        ]
        remove_objects(cloud, [*names, *keys.values()])


def wait_for_picture(cloud: Cloud, endpoint: Endpoint, keys: dict[str, str], result: str) -> None:
    deadline = time.monotonic() + SMOKE_SECONDS
    exists = partial(find, cloud.s3.head_object, Bucket=cloud.bucket)
    while time.monotonic() < deadline:
        if exists(Key=keys["Failure"]):
            said = (
                cloud.s3.get_object(Bucket=cloud.bucket, Key=keys["Failure"])["Body"]
                .read(2000)
                .decode(errors="replace")
            )
            raise DeployError(f"{endpoint.name} is up, but failed to paint a test picture: {said}")
        if exists(Key=keys["Output"]):
            if not exists(Key=result):
                raise DeployError(
                    f"{endpoint.name} answered without a picture. See `./deploy.py status` for its log."
                )
            return
        time.sleep(POLL_SECONDS / 5)
    waited = f"{SMOKE_SECONDS // 60} minutes"
    raise DeployError(
        f"{endpoint.name} is up, but painted nothing in {waited}. See `./deploy.py status` for what it does."
    )


def remove_objects(cloud: Cloud, keys: list[str]) -> None:
    for start in range(0, len(keys), 1000):
        some = [{"Key": key} for key in keys[start : start + 1000]]
        cloud.s3.delete_objects(Bucket=cloud.bucket, Delete={"Objects": some, "Quiet": True})


def estimate(endpoints: list[Endpoint], images: list[Image]) -> str:
    """What it costs, with the date and every assumption."""
    stored = sum(image.gigabytes for image in images) * GIGABYTE_MONTH
    lines = [
        f"Estimate of {datetime.now():%Y-%m-%d}, by AWS's prices for us-east-1 of {PRICES_DATE} (other regions differ):"
    ]
    lines.append(
        f"  asleep: ${stored:.2f} a month for the images in ECR, and cents for alarms, log and bucket"
    )
    for endpoint in endpoints:
        price, seconds = PRICES.get(endpoint.instance_type), PICTURE_SECONDS[endpoint.kind]
        if price is None:
            where = "aws.amazon.com/sagemaker/pricing"
            lines.append(
                f"  {endpoint.name}: no price at hand for {endpoint.instance_type}; see {where}"
            )
            continue
        always = (
            f", ${price * endpoint.min_instances * 730:.0f} a month always on"
            if endpoint.min_instances
            else ""
        )
        alone = f"${price * (WAKE_MINUTES + DOZE_MINUTES + seconds / 60) / 60:.2f}"
        each = f"${price * seconds / 3600:.4f} a picture of {seconds} s in a busy hour"
        lines.append(
            f"  {endpoint.name} awake: ${price:.3f} an hour and instance{always}; {each}, {alone} a lone one"
        )
    lines.append(
        f"  assumed: {WAKE_MINUTES} minutes to wake and {DOZE_MINUTES} to fall asleep, both paid; pictures as large"
    )
    lines.append(
        "  as the bot asks for, their seconds not measured on these instances; no free tier, no tax"
    )
    return "\n".join(lines)


# ---------------------------------------------------------------- status


def status(cloud: Cloud) -> int:
    for kind in KINDS:
        print("\n  ".join(endpoint_status(cloud, kind, f"{cloud.prefix}-{kind}")), flush=True)
    return 0


def endpoint_status(cloud: Cloud, kind: str, endpoint: str) -> list[str]:
    found = find(cloud.sagemaker.describe_endpoint, EndpointName=endpoint)
    if found is None:
        return [f"{endpoint}: not there. ./deploy.py up makes it."]
    config = cloud.sagemaker.describe_endpoint_config(
        EndpointConfigName=found["EndpointConfigName"]
    )
    variant, live = config["ProductionVariants"][0], (found.get("ProductionVariants") or [{}])[0]
    limits = find_scaling(cloud, endpoint)
    scale = f"{limits['MinCapacity']} to {limits['MaxCapacity']}" if limits else "no scaling"
    now, wanted = live.get("CurrentInstanceCount", 0), live.get("DesiredInstanceCount", 0)
    count = (
        f"{now} instance{'s' * (now != 1)}"
        + f", soon {wanted}" * (wanted != now)
        + ", asleep" * (now == wanted == 0)
    )
    lines = [
        f"{endpoint}: {found['EndpointStatus']}, {count} ({scale}) of {variant['InstanceType']}"
    ]
    lines += [f"reason: {found['FailureReason']}"] if found.get("FailureReason") else []
    model = cloud.sagemaker.describe_model(ModelName=variant["ModelName"])
    lines.append(f"backlog: {backlog(cloud, endpoint)}")
    lines.append(f"image: {image_age(cloud, kind, model['PrimaryContainer']['Image'])}")
    return [*lines, *last_errors(cloud, endpoint)]


def backlog(cloud: Cloud, endpoint: str) -> str:
    now = datetime.now(timezone.utc)
    where = {
        "Namespace": "AWS/SageMaker",
        "Dimensions": [{"Name": "EndpointName", "Value": endpoint}],
    }
    when = {
        "StartTime": now - timedelta(minutes=10),
        "EndTime": now,
        "Period": 60,
        "Statistics": ["Maximum"],
    }
    points = cloud.cloudwatch.get_metric_statistics(
        MetricName="ApproximateBacklogSize", **where, **when
    )["Datapoints"]
    newest = max(points, key=lambda point: point["Timestamp"], default=None)
    return f"{newest['Maximum']:.0f} pictures" if newest else "none told in ten minutes"


def image_age(cloud: Cloud, kind: str, uri: str) -> str:
    digest = uri.partition("@")[2]
    where = {"repositoryName": f"{cloud.prefix}-{kind}", "imageIds": [{"imageDigest": digest}]}
    found = find(cloud.ecr.describe_images, **where)
    if not found or not found["imageDetails"]:
        return f"{digest[:19]}, which is no longer in ECR: ./build.sh --push, then ./deploy.py up"
    [image] = found["imageDetails"]
    age = datetime.now(timezone.utc) - image["imagePushedAt"]
    days = f"{age.days} days ago" if age.days else "today"
    return f"{', '.join(image.get('imageTags', ['without a tag']))}, pushed {days}, {digest[:19]}"


def last_errors(cloud: Cloud, endpoint: str) -> list[str]:
    """Of the last day, at most five."""
    since = int((time.time() - 86400) * 1000)
    where = {
        "logGroupName": log_group(endpoint),
        "startTime": since,
        "filterPattern": "?error ?Error ?ERROR",
    }
    events = (find(cloud.logs.filter_log_events, **where) or {}).get("events", [])
    events = [event for event in events if "error" in event["message"].lower()][-5:]
    lines = [
        f"{datetime.fromtimestamp(one['timestamp'] / 1000):%H:%M} {one['message'].rstrip()}"
        for one in events
    ]
    return (
        ["last errors:", *lines] if lines else ["last errors: none in the log of the last 24 hours"]
    )


# ---------------------------------------------------------------- down

Removal = tuple[str, Callable[[], Json]]  # what it does in words, and the doing


def configs_of(cloud: Cloud, endpoint: str) -> list[Removal]:
    return named_and_tagged(
        cloud,
        endpoint,
        "list_endpoint_configs",
        "EndpointConfig",
        cloud.sagemaker.delete_endpoint_config,
    )


def models_of(cloud: Cloud, endpoint: str) -> list[Removal]:
    return named_and_tagged(cloud, endpoint, "list_models", "Model", cloud.sagemaker.delete_model)


def named_and_tagged(
    cloud: Cloud, endpoint: str, operation: str, kind: str, delete: Call
) -> list[Removal]:
    """The models or endpoint configurations that `up` made for an endpoint."""
    answers = pages(cloud.sagemaker, operation, NameContains=f"{endpoint}-")
    found = [item for answer in answers for item in answer[f"{kind}s"]]
    mine = [one for one in found if re.fullmatch(rf"{endpoint}-[0-9a-f]{{10}}", one[f"{kind}Name"])]
    mine = [one for one in mine if cloud.is_ours(find_sagemaker_tags(cloud, one[f"{kind}Arn"]))]
    words = "model" if kind == "Model" else "endpoint configuration"
    names = [one[f"{kind}Name"] for one in mine]
    return [
        (f"delete the {words} {name}", partial(find, delete, **{f"{kind}Name": name}))
        for name in names
    ]


def find_sagemaker_tags(cloud: Cloud, arn: str) -> Json:
    return (find(cloud.sagemaker.list_tags, ResourceArn=arn) or {}).get("Tags", [])


def down(cloud: Cloud, purge: bool, yes: bool) -> int:
    """Remove all that `up` made; with `purge` also what it keeps for you: images, and the bucket with all in it."""
    names = [f"{cloud.prefix}-{kind}" for kind in KINDS]
    steps = [
        [item for name in names for item in scaling_of(cloud, name)],
        [item for name in names for item in endpoint_of(cloud, name)],
        [item for name in names for item in configs_of(cloud, name)],
        [item for name in names for item in models_of(cloud, name)] + profile_of(cloud),
        [item for name in names for item in logs_of(cloud, name)] + identities_of(cloud),
        [item for kind in IMAGES for item in images_of(cloud, kind)] + bucket_of(cloud)
        if purge
        else [],
    ]
    if not any(steps):
        say(
            f"Nothing of {cloud.prefix} is there in {cloud.region}"
            + (" but what --purge takes." if not purge else ".")
        )
        return 0
    say("\n".join(f"will {what}" for step in steps for what, _ in step))
    if not yes and not confirmed():
        say("Nothing was removed.")
        return 1
    for step in filter(None, steps):
        together(*(partial(remove, what, delete) for what, delete in step))
    left = (
        ""
        if purge
        else f" Images and the bucket {cloud.bucket} are kept; `./deploy.py down --purge` takes them too."
    )
    say(f"All of that is gone.{left}")
    return 0


def remove(what: str, delete: Callable[[], Json]) -> None:
    say(what)
    delete()


def confirmed() -> bool:
    if not sys.stdin.isatty():
        raise DeployError("There is nobody to ask. Say --yes if all of that may go.")
    return input("Type yes to remove all of that: ").strip().lower() == "yes"


def scaling_of(cloud: Cloud, endpoint: str) -> list[Removal]:
    there = find_scaling(cloud, endpoint) or find_policies(cloud, endpoint)
    items: list[Removal] = (
        [(f"stop scaling {endpoint}", partial(stop_scaling, cloud, endpoint))] if there else []
    )
    names = [f"{endpoint}-wake", f"{endpoint}-faults"]
    for alarm in cloud.cloudwatch.describe_alarms(AlarmNames=names)["MetricAlarms"]:
        name, tags = (
            alarm["AlarmName"],
            cloud.cloudwatch.list_tags_for_resource(ResourceARN=alarm["AlarmArn"])["Tags"],
        )
        if cloud.is_ours(tags):
            items.append(
                (
                    f"delete the alarm {name}",
                    partial(cloud.cloudwatch.delete_alarms, AlarmNames=[name]),
                )
            )
    return items


def endpoint_of(cloud: Cloud, endpoint: str) -> list[Removal]:
    found = find(cloud.sagemaker.describe_endpoint, EndpointName=endpoint)
    if not found or not cloud.is_ours(find_sagemaker_tags(cloud, found["EndpointArn"])):
        return []

    def delete() -> None:
        settled(cloud, endpoint)  # one that is on its way cannot be deleted
        find(cloud.sagemaker.delete_endpoint, EndpointName=endpoint)
        settled(cloud, endpoint)

    return [(f"delete the endpoint {endpoint}", delete)]


def logs_of(cloud: Cloud, endpoint: str) -> list[Removal]:
    found = find_log_group(cloud, endpoint)
    arn = (
        f"arn:{cloud.partition}:logs:{cloud.region}:{cloud.account}:log-group:{log_group(endpoint)}"
    )
    if not found or not cloud.is_ours(cloud.logs.list_tags_for_resource(resourceArn=arn)["tags"]):
        return []
    delete = partial(find, cloud.logs.delete_log_group, logGroupName=log_group(endpoint))
    return [(f"delete the log group {log_group(endpoint)}", delete)]


def identities_of(cloud: Cloud) -> list[Removal]:
    items: list[Removal] = []
    for kind, name in (("role", cloud.role), ("role", cloud.bot), ("user", cloud.bot)):
        key = {f"{kind.title()}Name": name}
        found = find(getattr(cloud.iam, f"get_{kind}"), **key)
        if found and cloud.is_ours(found[kind.title()].get("Tags")):
            items.append((f"delete the {kind} {name}", partial(delete_identity, cloud, kind, key)))
    return items


def profile_of(cloud: Cloud) -> list[Removal]:
    name, iam = {"InstanceProfileName": cloud.bot}, cloud.iam
    found = (find(iam.get_instance_profile, **name) or {}).get("InstanceProfile", {})
    if not cloud.is_ours(found.get("Tags")):
        return []

    def delete() -> None:
        for role in found["Roles"]:
            find(iam.remove_role_from_instance_profile, **name, RoleName=role["RoleName"])
        find(iam.delete_instance_profile, **name)

    return [(f"delete the instance profile {cloud.bot}", delete)]


def delete_identity(cloud: Cloud, kind: str, key: dict[str, str]) -> None:
    """A role or user, after its policies and keys."""
    iam = cloud.iam
    for policy in (find(getattr(iam, f"list_{kind}_policies"), **key) or {}).get("PolicyNames", []):
        find(getattr(iam, f"delete_{kind}_policy"), **key, PolicyName=policy)
    keys = find(iam.list_access_keys, **key) if kind == "user" else None
    for one in (keys or {}).get("AccessKeyMetadata", []):
        find(iam.delete_access_key, **key, AccessKeyId=one["AccessKeyId"])
    find(getattr(iam, f"delete_{kind}"), **key)


def images_of(cloud: Cloud, kind: str) -> list[Removal]:
    name = f"{cloud.prefix}-{kind}"
    found = find(cloud.ecr.describe_repositories, repositoryNames=[name])
    arn = found["repositories"][0]["repositoryArn"] if found else ""
    if not found or not cloud.is_ours(cloud.ecr.list_tags_for_resource(resourceArn=arn)["tags"]):
        return []
    delete = partial(find, cloud.ecr.delete_repository, repositoryName=name, force=True)
    return [(f"delete the repository {name} with all its images", delete)]


def bucket_of(cloud: Cloud) -> list[Removal]:
    tags = (find(cloud.s3.get_bucket_tagging, Bucket=cloud.bucket) or {}).get("TagSet", [])
    if not cloud.is_ours(tags):
        return []

    def delete() -> None:
        for page in pages(cloud.s3, "list_objects_v2", Bucket=cloud.bucket):
            remove_objects(cloud, [item["Key"] for item in page.get("Contents", [])])
        find(cloud.s3.delete_bucket, Bucket=cloud.bucket)

    return [(f"delete the bucket {cloud.bucket} with all chats and jobs", delete)]


# ---------------------------------------------------------------- batch

BATCH_TYPES = {
    ".csv": "text/csv",
    ".jsonl": "application/jsonlines",
    ".jsonlines": "application/jsonlines",
}


def batch(cloud: Cloud, source: str, style: str, output: str | None, instance_type: str) -> int:
    """A batch transform job: a picture a row. Gives 1 if rows failed."""
    kind = "nst" if "://" in style else "cyclegan"
    bucket, key = s3_place(source, "--input")
    content_type = BATCH_TYPES.get(Path(key).suffix.lower())
    if not content_type:
        raise DeployError(f"--input must end in {' or '.join(BATCH_TYPES)}, not as {source} does.")
    found = find(cloud.s3.get_object, Bucket=bucket, Key=key)
    if not found:
        raise DeployError(f"There is no {source}. Put it there first: aws s3 cp FILE {source}")
    name = f"{cloud.prefix}-{kind}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
    results = (output or f"s3://{cloud.bucket}/batch/{name}/results").rstrip("/")
    s3_place(f"{results}/x", "--output")
    text = found["Body"].read().decode("utf-8-sig")
    rows = read_rows(text, content_type, style, results)
    if not rows:
        raise DeployError(f"{source} has no rows.")
    lines = write_rows(rows, content_type)
    cloud.s3.put_object(Bucket=cloud.bucket, Key=f"batch/{name}/input", Body=lines.encode())
    forget_finished_batches(cloud)
    grant_batch(cloud, name, rows)
    try:
        start_batch(cloud, name, kind, content_type, instance_type)
        watch_batch(cloud, name, results, len(rows))
    finally:
        find(cloud.iam.delete_role_policy, RoleName=cloud.role, PolicyName=name)
    return tell_batch(cloud, name, rows, results)


def s3_place(address: str, option: str) -> tuple[str, str]:
    place = re.fullmatch(r"s3://([^/]+)/(.+)", address)
    if not place:
        raise DeployError(
            f"{option} must be an address such as s3://bucket/folder/list.csv, not {address}."
        )
    return place[1], place[2]


def read_rows(
    text: str, content_type: str, style: str, results: str
) -> list[list[str] | dict[str, Json]]:
    """The list with blank styles and places filled in. Raises DeployError for a line that is not JSON."""
    rows: list[list[str] | dict[str, Json]] = []
    name = "style_url" if "://" in style else "style_name"
    if content_type == "text/csv":
        cells = [
            row
            for row in csv.reader(io.StringIO(text, newline=""))
            if any(cell.strip() for cell in row)
        ]
        cells = (
            cells[1:]
            if cells and cells[0][0].strip().lower() in ("content", "content_url")
            else cells
        )
        for row in ([*map(str.strip, row), "", ""] for row in cells):
            place = row[2] or result_place(results, len(rows) + 1, row[0])
            rows.append([row[0], row[1] or style, place, *row[3:-2]])
        return rows
    for number, line in enumerate(text.splitlines(), 1):
        try:
            fields = json.loads(line) if line.strip() else None
        except ValueError:
            fields = line
        if isinstance(fields, dict):
            place = fields.get("result_url") or result_place(
                results, len(rows) + 1, str(fields.get("content_url"))
            )
            rows.append(
                {
                    name: style,
                    **{key: value for key, value in fields.items() if value},
                    "result_url": place,
                }
            )
        elif fields is not None:
            raise DeployError(
                f'Line {number} of the list is no JSON object such as {{"content_url": "s3://..."}}.'
            )
    return rows


def result_place(results: str, number: int, content: str) -> str:
    return f"{results}/{number:05}-{Path(content.partition('?')[0]).stem or 'picture'}.jpg"


def write_rows(rows: list[list[str] | dict[str, Json]], content_type: str) -> str:
    if content_type != "text/csv":
        return "".join(f"{json.dumps(row)}\n" for row in rows)
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def grant_batch(cloud: Cloud, name: str, rows: list[list[str] | dict[str, Json]]) -> None:
    """Lets the execution role, while the job runs, into the other buckets that its list names."""
    listed = re.findall(r"s3://([^/\"\s,]+)/", json.dumps(rows))
    places = [
        f"arn:{cloud.partition}:s3:::{bucket}/*" for bucket in sorted({*listed} - {cloud.bucket})
    ]
    if places:
        statement = {
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject"],
            "Resource": places,
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        put = partial(cloud.iam.put_role_policy, RoleName=cloud.role, PolicyName=name)
        cloud.change(
            f"let the execution role into {', '.join(places)} while the job runs",
            put,
            PolicyDocument=policy,
        )


def forget_finished_batches(cloud: Cloud) -> None:
    """Takes back what grant_batch gave, where a run was killed before it could."""
    names = cloud.iam.list_role_policies(RoleName=cloud.role)["PolicyNames"]
    for name in [
        name for name in names if re.fullmatch(rf"{cloud.prefix}-\w+-\d{{8}}-\d{{6}}", name)
    ]:
        job = find(cloud.sagemaker.describe_transform_job, TransformJobName=name)
        if not job or job["TransformJobStatus"] not in ("InProgress", "Stopping"):
            find(cloud.iam.delete_role_policy, RoleName=cloud.role, PolicyName=name)


def start_batch(cloud: Cloud, name: str, kind: str, content_type: str, instance_type: str) -> None:
    endpoint = find(cloud.sagemaker.describe_endpoint, EndpointName=f"{cloud.prefix}-{kind}")
    if not endpoint:
        raise DeployError(
            f"{cloud.prefix}-{kind} is not there, whose model the job would use. First: ./deploy.py up"
        )
    config = cloud.sagemaker.describe_endpoint_config(
        EndpointConfigName=endpoint["EndpointConfigName"]
    )
    folder = f"s3://{cloud.bucket}/batch/{name}"
    data = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"{folder}/input"}}
    job = {
        "ModelName": config["ProductionVariants"][0]["ModelName"],
        "TransformInput": {"DataSource": data, "ContentType": content_type, "SplitType": "Line"},
        "TransformOutput": {
            "S3OutputPath": f"{folder}/answers",
            "Accept": "application/jsonlines",
            "AssembleWith": "Line",
        },
        "TransformResources": {"InstanceType": instance_type, "InstanceCount": 1},
        "BatchStrategy": "SingleRecord",
        "MaxConcurrentTransforms": 1,
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": 3600, "InvocationsMaxRetries": 1},
    }
    create = partial(when_role_is_known, cloud.sagemaker.create_transform_job)
    cloud.change(
        f"start the batch {name} on an {instance_type}",
        create,
        TransformJobName=name,
        Tags=cloud.tag_list,
        **job,
    )


def watch_batch(cloud: Cloud, name: str, results: str, count: int) -> None:
    """Until the job has ended. Raises DeployError with its reason if it failed as a whole."""
    bucket, prefix = s3_place(results, "--output")
    started, told = time.monotonic(), ""
    while True:
        job = cloud.sagemaker.describe_transform_job(TransformJobName=name)
        state = job["TransformJobStatus"]
        done = sum(
            page["KeyCount"]
            for page in pages(cloud.s3, "list_objects_v2", Bucket=bucket, Prefix=f"{prefix}/")
        )
        words = f"{name}: {state}, {done} pictures of {count} in {results}/"
        if words != told:
            say(f"{words}, {(time.monotonic() - started) / 60:.0f} min")
        if state not in ("InProgress", "Stopping"):
            break
        told = words
        time.sleep(POLL_SECONDS)
    if state != "Completed":
        raise DeployError(
            f"The batch {name} has {state.lower()}: {job.get('FailureReason', 'no reason is given')}"
        )


def tell_batch(
    cloud: Cloud, name: str, rows: list[list[str] | dict[str, Json]], results: str
) -> int:
    """A line for each row that failed, and a summary. Gives the exit code."""
    key = f"batch/{name}/answers/input.out"
    found = find(cloud.s3.get_object, Bucket=cloud.bucket, Key=key)
    answers = [
        json.loads(line)
        for line in (found["Body"].read().decode() if found else "").splitlines()
        if line.strip()
    ]
    answers += [{"error": {"code": "missing", "message": "SageMaker wrote no answer."}}] * (
        len(rows) - len(answers)
    )
    failed = 0
    for number, (row, answer) in enumerate(zip(rows, answers, strict=False), 1):
        if error := answer.get("error"):
            content = str(
                row[0] if isinstance(row, list) else row.get("content_url", "")
            ).partition("?")[0]
            print(f"row {number}, {content}: {error['message']} ({error['code']})")
            failed += 1
    print(
        f"{len(rows) - failed} of {len(rows)} pictures painted, in {results}/ or where their rows say."
    )
    print(f"All answers: s3://{cloud.bucket}/{key}")
    return min(failed, 1)


# ---------------------------------------------------------------- what build.sh --push asks for


def repositories(cloud: Cloud, tag: str) -> int:
    """Make the repositories of the images if need be. Prints, for each: name, address, and the digests of manifest and
    configuration of what is there under `tag` already, or - for none."""
    for kind in IMAGES:
        name = f"{cloud.prefix}-{kind}"
        found = find(cloud.ecr.describe_repositories, repositoryNames=[name])
        scan = {"imageScanningConfiguration": {"scanOnPush": True}}
        settings = {**scan, "imageTagMutability": "IMMUTABLE", "tags": cloud.tag_list}
        create = partial(cloud.ecr.create_repository, repositoryName=name, **settings)
        found = (
            found["repositories"][0]
            if found
            else cloud.change(f"create the repository {name}", create)["repository"]
        )
        policy = cloud.document("images")
        now = json.loads(
            (find(cloud.ecr.get_lifecycle_policy, repositoryName=name) or {}).get(
                "lifecyclePolicyText", "{}"
            )
        )
        put = partial(cloud.ecr.put_lifecycle_policy, repositoryName=name)
        cloud.keep(
            f"keep the last ten images of {name} only",
            now,
            json.loads(policy),
            put,
            lifecyclePolicyText=policy,
        )
        print(kind, found["repositoryUri"], *digests(cloud, name, tag))
    return 0


def digests(cloud: Cloud, repository: str, tag: str) -> tuple[str, str]:
    found = cloud.ecr.batch_get_image(repositoryName=repository, imageIds=[{"imageTag": tag}])[
        "images"
    ]
    if not found:
        return "-", "-"
    manifest = json.loads(found[0].get("imageManifest", "{}"))
    return found[0]["imageId"]["imageDigest"], manifest.get("config", {}).get("digest", "-")


def login_password(cloud: Cloud) -> int:
    """Prints the password for `docker login --username AWS --password-stdin`, as `aws ecr get-login-password` does."""
    token = cloud.ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    print(base64.b64decode(token).decode().partition(":")[2])
    return 0


# ---------------------------------------------------------------- the command line


def each(convert: Callable[[str], Json]) -> Callable[[str], dict[str, Json]]:
    """An option's value for both endpoints, "2", or for each, "nst=2,cyclegan=1"."""

    def parse(text: str) -> dict[str, Json]:
        pairs = (
            dict(part.split("=", 1) for part in text.split(","))
            if "=" in text
            else dict.fromkeys(KINDS, text)
        )
        if set(pairs) - set(KINDS):
            raise argparse.ArgumentTypeError(f"{text!r}: there are {' and '.join(KINDS)} only")
        return {kind: convert(value) for kind, value in pairs.items()}

    return parse


def tag_pairs(text: str) -> dict[str, str]:
    pairs = [part.split("=", 1) for part in text.split(",")]
    if not all(len(pair) == 2 for pair in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not like team=art,stage=test")
    return dict(pairs)


def name_prefix(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,18}[a-z0-9]", text):
        raise argparse.ArgumentTypeError(
            "it takes 2 to 20 small letters, digits and hyphens, a letter first"
        )
    return text


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--region", help="by default what the AWS settings of this computer say")
    both.add_argument(
        "--prefix", type=name_prefix, default="stylebot", help="of all names (%(default)s)"
    )
    parser = argparse.ArgumentParser(
        description="stylebot on AWS", epilog="docs/aws.md tells more."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, words: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=words, description=words, parents=[both])

    make = command("up", "Make or update all that the bot needs, and print the bot's environment.")
    make.add_argument("--plan", action="store_true", help="print every change, and make none")
    split = "; one value, or nst=...,cyclegan=..."
    make.add_argument("--instance-type", type=each(str), default={}, help=f"ml.g4dn.xlarge{split}")
    make.add_argument(
        "--min-instances", type=each(int), default={}, help=f"0: asleep while nobody paints{split}"
    )
    make.add_argument("--max-instances", type=each(int), default={}, help=f"2{split}")
    make.add_argument(
        "--concurrency",
        type=each(int),
        default={},
        help=f"requests at a time, nst=1,cyclegan=2{split}",
    )
    ami = "al2023-ami-sagemaker-inference-gpu-4-1"
    make.add_argument(
        "--ami",
        default=ami,
        help="the GPU machines' InferenceAmiVersion, hence their driver (%(default)s)",
    )
    make.add_argument("--image-tag", help="of the images to run (by default the newest)")
    make.add_argument(
        "--tags",
        type=tag_pairs,
        default={},
        help="more tags for all that is made: team=art,stage=test",
    )
    make.add_argument(
        "--bot", choices=("user", "role"), help="make an IAM user or role for the bot, too"
    )
    command("status", "Tell how the endpoints are: instances, backlog, image, last errors.")
    take = command("down", "Remove all that up made, after asking; keep images and bucket.")
    take.add_argument("--purge", action="store_true", help="take the images and the bucket, too")
    take.add_argument("--yes", action="store_true", help="do not ask")
    many = command("batch", "Paint a list of pictures, a row each, by a batch transform job.")
    many.add_argument(
        "--input",
        required=True,
        help="s3://bucket/list.csv or .jsonl; docs/aws.md tells the columns",
    )
    many.add_argument(
        "--style",
        required=True,
        help="of rows without one: a painter's name, or a picture's address for NST",
    )
    many.add_argument("--output", help="s3://bucket/folder for results whose row names no place")
    many.add_argument(
        "--instance-type",
        default="ml.c5.4xlarge",
        help="(%(default)s); docs/aws.md tells why it has no GPU",
    )
    show = command("policy", "Print an IAM policy, filled in.")
    show.add_argument("name", choices=("bot", "deployer", "execution"))
    command(
        "repositories", "For build.sh --push: make the repositories, print what is in them."
    ).add_argument("tag")
    command("login-password", "For build.sh --push: print the password for docker login.")
    return parser.parse_args(arguments)


def endpoints_of(options: argparse.Namespace) -> list[Endpoint]:
    made = []
    for kind, concurrency in zip(KINDS, (1, 2), strict=True):
        least, most = options.min_instances.get(kind, 0), options.max_instances.get(kind, 2)
        most = max(most, least) if kind not in options.max_instances else most
        if not 0 <= least <= most or most < 1:
            raise DeployError(
                f"{kind}: from {least} to {most} instances is no range. --min-instances may be 0, --max-instances 1."
            )
        machine = options.instance_type.get(kind, "ml.g4dn.xlarge")
        concurrency = options.concurrency.get(kind, concurrency)
        made.append(
            Endpoint(
                kind, f"{options.prefix}-{kind}", machine, least, most, concurrency, options.ami
            )
        )
    return made


def run(options: argparse.Namespace) -> int:
    plan, tags = getattr(options, "plan", False), getattr(options, "tags", {})
    endpoints = endpoints_of(options) if options.command == "up" else []
    cloud = Cloud(options.prefix, options.region, plan, tags)
    if options.command == "up":
        return up(cloud, endpoints, options.image_tag, options.bot)
    if options.command == "down":
        return down(cloud, options.purge, options.yes)
    if options.command == "batch":
        return batch(cloud, options.input, options.style, options.output, options.instance_type)
    if options.command == "policy":
        return print(cloud.document(options.name)) or 0
    if options.command == "repositories":
        return repositories(cloud, options.tag)
    return {"status": status, "login-password": login_password}[options.command](cloud)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        return run(options)
    except (DeployError, BotoCoreError, ClientError) as error:
        say(f"deploy.py: {explain(error)}")
        return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("\nInterrupted. Run the same command again: it goes on where it stopped.")
        os._exit(130)  # without waiting for what is under way
