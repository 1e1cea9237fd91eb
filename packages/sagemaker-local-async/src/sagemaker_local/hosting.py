"""Hosting: models, endpoint configurations and endpoints, as boto3's client `sagemaker` asks.

All of them are in S3, so they survive a kill of this program. A change of an endpoint is stored
before it begins; the next start goes on with it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from sagemaker_local.deployments import (
    async_settings,
    create_variants,
    start_variants,
    startup_seconds,
    stop_variants,
)
from sagemaker_local.endpoint import AsyncEndpoint, AsyncSettings, Endpoint, RealtimeEndpoint
from sagemaker_local.errors import ApiError, not_supported, unavailable, validation_error
from sagemaker_local.instances import remove_leftovers
from sagemaker_local.listing import list_page
from sagemaker_local.names import REGION, VARIANT, arn
from sagemaker_local.notifications import Notifier
from sagemaker_local.queue import RequestQueue
from sagemaker_local.resources import (
    CREATING,
    DELETING,
    FAILED,
    IN_SERVICE,
    UPDATING,
    Arguments,
    Deployment,
    EndpointConfig,
    EndpointRecord,
    Model,
    Resource,
    ResourceStore,
    write_forever,
)
from sagemaker_local.s3 import S3Client, ensure_bucket, retry_forever, split_s3_url

# After an update the instances that were replaced finish what they have, for so long.
DRAIN_SECONDS = 3600
POLL_SECONDS = 0.2
# An endpoint of the command line waits for its model server as long as it takes.
FOREVER = float("inf")

Answer = Mapping[str, object]

log = logging.getLogger("sagemaker")


@dataclass(frozen=True)
class HostingSettings:
    """What holds for all endpoints.

    bucket: where everything is stored. output: the s3:// URL for answers of endpoints whose
    configuration has no S3OutputPath. idle_seconds: an asynchronous endpoint is scaled to zero
    after so long without a request; 0: never. topics: the URL of each topic, by its ARN. owner: the
    label of the containers.
    """

    bucket: str
    output: str
    idle_seconds: float
    topics: Mapping[str, str]
    owner: str


class Hosting:
    """All models, configurations and endpoints. Used by many threads."""

    def __init__(
        self, s3: S3Client, settings: HostingSettings, endpoints: MutableMapping[str, Endpoint]
    ) -> None:
        """`endpoints` gets each endpoint that answers, by its name."""
        bucket = settings.bucket
        self.s3 = s3
        self.settings = settings
        self.endpoints = endpoints
        self.queue = RequestQueue(s3, bucket)
        self.notifier = Notifier(s3, bucket, settings.topics)
        self.model_store = ResourceStore(s3, bucket, Model, "models")
        self.config_store = ResourceStore(s3, bucket, EndpointConfig, "endpoint-configs")
        self.record_store = ResourceStore(s3, bucket, EndpointRecord, "endpoints")
        # Guards the three below, and what is in them.
        self.lock = threading.RLock()
        self.models: dict[str, Model] = {}
        self.configs: dict[str, EndpointConfig] = {}
        self.records: dict[str, EndpointRecord] = {}
        # The names of the endpoints of the command line, their models and configurations. They are
        # not stored, and stay as they are while this program runs.
        self.declared: set[str] = set()

    # ---- start and end

    def start(self) -> None:
        """Load what is stored, and go on with what an earlier process had begun. Waits for S3."""
        self.queue.wait_for_bucket()
        for model in self.model_store.load():
            self.models.setdefault(model.name, model)
        for config in self.config_store.load():
            self.configs.setdefault(config.name, config)
        self.notifier.start()
        remove_leftovers(self.settings.owner)
        for record in self.records.values():
            self.publish(record, self.build(record))
            self.run_in_thread(self.wait_for_declared, record)
        for record in self.record_store.load():
            if record.name not in self.records:
                self.records[record.name] = record
                self.resume(record)

    def resume(self, record: EndpointRecord) -> None:
        """Go on with an endpoint of an earlier process."""
        log.info("%s: %s since an earlier run", record.name, record.status)
        if record.status == DELETING:
            self.run_in_thread(self.delete, record)
        elif record.status == CREATING:
            self.run_in_thread(self.create, record)
        elif record.status in (IN_SERVICE, UPDATING):
            # It answers at once, though its instances have to be started again.
            self.publish(record, self.build(record))
            self.run_in_thread(self.restart, record)

    def close(self) -> None:
        """Stop all instances. What they worked on is sent again after the next start."""
        for endpoint in list(self.endpoints.values()):
            endpoint.close()
            stop_variants(endpoint.variants)

    def run_in_thread(self, task: Callable[[EndpointRecord], None], record: EndpointRecord) -> None:
        def run() -> None:
            try:
                task(record)
            except Exception:
                log.exception("%s", record.name)
                self.set_status(record, FAILED, "InternalServerError: the log tells more.")

        threading.Thread(target=run, daemon=True).start()

    # ---- endpoints of the command line

    def declare(self, name: str, image: str, asynchronous: Arguments | None) -> None:
        """Add an endpoint that the command line names, with its model and its configuration.

        asynchronous: AsyncInferenceConfig, or None for a real-time endpoint. To be called before
        `start`.
        """
        model = Model({"ModelName": name, "PrimaryContainer": {"Image": image}})
        variant = {"VariantName": VARIANT, "ModelName": name, "InitialInstanceCount": 1}
        arguments: Arguments = {"EndpointConfigName": name, "ProductionVariants": [variant]}
        if asynchronous:
            arguments["AsyncInferenceConfig"] = asynchronous
        config = EndpointConfig(arguments)
        record = EndpointRecord(name, self.copy_deployment(config, {name: model}))
        self.declared.add(name)
        self.models[name] = model
        self.configs[name] = config
        self.records[name] = record
        self.note_buckets(record)

    # ---- models

    def create_model(self, arguments: Arguments) -> Answer:
        """Answer CreateModel. Raises ApiError."""
        check_model(arguments)
        model = Model(without_tags(arguments), read_tags(arguments))
        with self.lock:
            refuse_existing("model", self.models.get(model.name))
            store_or_refuse(self.model_store, model)
            self.models[model.name] = model
        return {"ModelArn": model.arn}

    def describe_model(self, arguments: Arguments) -> Answer:
        """Answer DescribeModel. Raises ApiError."""
        with self.lock:
            model = self.find_model(arguments["ModelName"])
        return {**model.arguments, "ModelArn": model.arn, "CreationTime": model.created}

    def list_models(self, arguments: Arguments) -> Answer:
        """Answer ListModels. Raises ApiError."""
        with self.lock:
            page, token = list_page(self.models.values(), arguments)
        summaries = []
        for model in page:
            summary = {"ModelName": model.name, "ModelArn": model.arn}
            summaries.append({**summary, "CreationTime": model.created})
        return with_token({"Models": summaries}, token)

    def delete_model(self, arguments: Arguments) -> Answer:
        """Answer DeleteModel. Raises ApiError. What runs it goes on."""
        with self.lock:
            model = self.find_model(arguments["ModelName"])
            self.refuse_declared(model)
            remove_or_refuse(self.model_store, model.name)
            del self.models[model.name]
        return {}

    def find_model(self, name: str) -> Model:
        """To be called with the lock held. Raises ApiError."""
        if name not in self.models:
            raise validation_error(f'Could not find model "{arn("model", name)}".')
        return self.models[name]

    # ---- endpoint configurations

    def create_endpoint_config(self, arguments: Arguments) -> Answer:
        """Answer CreateEndpointConfig. Raises ApiError."""
        check_config(arguments, self.settings.topics)
        config = EndpointConfig(without_tags(arguments), read_tags(arguments))
        with self.lock:
            refuse_existing("endpoint configuration", self.configs.get(config.name))
            for variant in arguments["ProductionVariants"]:
                self.find_model(variant["ModelName"])
            store_or_refuse(self.config_store, config)
            self.configs[config.name] = config
        return {"EndpointConfigArn": config.arn}

    def describe_endpoint_config(self, arguments: Arguments) -> Answer:
        """Answer DescribeEndpointConfig. Raises ApiError."""
        with self.lock:
            config = self.find_config(arguments["EndpointConfigName"])
        own = {"EndpointConfigArn": config.arn, "CreationTime": config.created}
        return {**config.arguments, **own}

    def list_endpoint_configs(self, arguments: Arguments) -> Answer:
        """Answer ListEndpointConfigs. Raises ApiError."""
        with self.lock:
            page, token = list_page(self.configs.values(), arguments)
        summaries = []
        for config in page:
            summary = {"EndpointConfigName": config.name, "EndpointConfigArn": config.arn}
            summaries.append({**summary, "CreationTime": config.created})
        return with_token({"EndpointConfigs": summaries}, token)

    def delete_endpoint_config(self, arguments: Arguments) -> Answer:
        """Answer DeleteEndpointConfig. Raises ApiError. What runs it goes on."""
        with self.lock:
            config = self.find_config(arguments["EndpointConfigName"])
            self.refuse_declared(config)
            remove_or_refuse(self.config_store, config.name)
            del self.configs[config.name]
        return {}

    def find_config(self, name: str) -> EndpointConfig:
        """To be called with the lock held. Raises ApiError."""
        if name not in self.configs:
            shown = arn("endpoint-config", name)
            raise validation_error(f'Could not find endpoint configuration "{shown}".')
        return self.configs[name]

    # ---- endpoints

    def create_endpoint(self, arguments: Arguments) -> Answer:
        """Answer CreateEndpoint: the endpoint is Creating. Raises ApiError."""
        name = arguments["EndpointName"]
        with self.lock:
            refuse_existing("endpoint", self.records.get(name))
            config = self.find_config(arguments["EndpointConfigName"])
            record = EndpointRecord(name, self.copy_deployment(config, self.models))
            record.tags = read_tags(arguments)
            self.note_buckets(record)
            store_or_refuse(self.record_store, record)
            self.records[name] = record
        self.run_in_thread(self.create, record)
        return {"EndpointArn": record.arn}

    def update_endpoint(self, arguments: Arguments) -> Answer:
        """Answer UpdateEndpoint: the endpoint is Updating. Raises ApiError."""
        with self.lock:
            record = self.find_record(arguments["EndpointName"])
            config = self.find_config(arguments["EndpointConfigName"])
            self.refuse_declared(record)
            refuse_if_in_progress(record)
            if record.status == FAILED:
                raise validation_error(f'Cannot update failed endpoint "{record.arn}".')
            if config.is_async != ("AsyncInferenceConfig" in record.current.config):
                raise not_supported(
                    "EndpointConfigName", "An asynchronous endpoint stays asynchronous."
                )
            before = (record.next, record.status, record.failure_reason, list(record.buckets))
            record.next = self.copy_deployment(config, self.models)
            if arguments.get("RetainAllVariantProperties"):
                retain_weights(record.current, record.next)
            record.set_status(UPDATING)
            self.note_buckets(record)
            try:
                store_or_refuse(self.record_store, record)
            except ApiError:
                record.next, record.status, record.failure_reason, record.buckets = before
                raise
        self.run_in_thread(self.update, record)
        return {"EndpointArn": record.arn}

    def delete_endpoint(self, arguments: Arguments) -> Answer:
        """Answer DeleteEndpoint: the endpoint is Deleting. Raises ApiError."""
        with self.lock:
            record = self.find_record(arguments["EndpointName"])
            self.refuse_declared(record)
            refuse_if_in_progress(record)
            before = record.status
            record.set_status(DELETING)
            try:
                store_or_refuse(self.record_store, record)
            except ApiError:
                record.status = before
                raise
        self.run_in_thread(self.delete, record)
        return {}

    def describe_endpoint(self, arguments: Arguments) -> Answer:
        """Answer DescribeEndpoint. Raises ApiError."""
        with self.lock:
            record = self.find_record(arguments["EndpointName"])
            answer: dict[str, object] = {
                "EndpointName": record.name,
                "EndpointArn": record.arn,
                "EndpointConfigName": record.current.config["EndpointConfigName"],
                "EndpointStatus": record.status,
                "CreationTime": record.created,
                "LastModifiedTime": record.modified,
            }
            if record.failure_reason:
                answer["FailureReason"] = record.failure_reason
            if "AsyncInferenceConfig" in record.current.config:
                answer["AsyncInferenceConfig"] = record.current.config["AsyncInferenceConfig"]
            deployment = record.current
        if endpoint := self.endpoints.get(record.name):
            answer["ProductionVariants"] = describe_variants(endpoint, deployment)
        return answer

    def list_endpoints(self, arguments: Arguments) -> Answer:
        """Answer ListEndpoints. Raises ApiError."""
        summaries = []
        with self.lock:
            page, token = list_page(self.records.values(), arguments)
            for record in page:
                summaries.append(
                    {
                        "EndpointName": record.name,
                        "EndpointArn": record.arn,
                        "CreationTime": record.created,
                        "LastModifiedTime": record.modified,
                        "EndpointStatus": record.status,
                    }
                )
        return with_token({"Endpoints": summaries}, token)

    def refuse_declared(self, resource: Resource) -> None:
        """Raise ApiError for what stays as it is."""
        if resource.name in self.declared:
            raise validation_error(
                f'"{resource.arn}" belongs to an endpoint of the command line of sagemaker-local. '
                "Start it with another --endpoint or --realtime."
            )

    def find_record(self, name: str) -> EndpointRecord:
        """To be called with the lock held. Raises ApiError."""
        if name not in self.records:
            raise validation_error(f'Could not find endpoint "{arn("endpoint", name)}".')
        return self.records[name]

    # ---- tags

    def add_tags(self, arguments: Arguments) -> Answer:
        """Answer AddTags. Raises ApiError."""
        with self.lock:
            store, resource = self.find_tagged(arguments["ResourceArn"])
            resource.tags.update(read_tags(arguments))
            store_or_refuse(store, resource)
            return {"Tags": show_tags(resource.tags)}

    def list_tags(self, arguments: Arguments) -> Answer:
        """Answer ListTags, all in one page. Raises ApiError."""
        with self.lock:
            _, resource = self.find_tagged(arguments["ResourceArn"])
            return {"Tags": show_tags(resource.tags)}

    def delete_tags(self, arguments: Arguments) -> Answer:
        """Answer DeleteTags. Raises ApiError."""
        with self.lock:
            store, resource = self.find_tagged(arguments["ResourceArn"])
            for name in arguments["TagKeys"]:
                resource.tags.pop(name, None)
            store_or_refuse(store, resource)
        return {}

    def find_tagged(self, resource_arn: str) -> tuple[ResourceStore[Any], Resource]:
        """Return what has this ARN, and where it is stored. Raises ApiError.

        To be called with the lock held.
        """
        kinds: tuple[tuple[ResourceStore[Any], Mapping[str, Resource]], ...] = (
            (self.model_store, self.models),
            (self.config_store, self.configs),
            (self.record_store, self.records),
        )
        for store, resources in kinds:
            for resource in resources.values():
                if resource.arn == resource_arn and resource.name not in self.declared:
                    return store, resource
        raise validation_error(f"Could not find the resource {resource_arn}.")

    # ---- the work, each in a thread of its own

    def create(self, record: EndpointRecord) -> None:
        """Start the instances of a new endpoint. It is InService once all are healthy."""
        endpoint = self.build(record)
        problem = start_variants(endpoint.variants, startup_seconds(record.current))
        if problem:
            stop_variants(endpoint.variants)
            self.set_status(record, FAILED, problem)
            return
        self.publish(record, endpoint)
        self.set_status(record, IN_SERVICE)

    def wait_for_declared(self, record: EndpointRecord) -> None:
        """Start the instance of an endpoint of the command line. Wait as long as it takes.

        It takes requests meanwhile: its model server may be started later.
        """
        endpoint = self.endpoints[record.name]
        problem = start_variants(endpoint.variants, FOREVER)
        if problem:
            self.endpoints.pop(record.name)
            endpoint.close()
            self.set_status(record, FAILED, problem)
            return
        self.set_status(record, IN_SERVICE)

    def restart(self, record: EndpointRecord) -> None:
        """Start the instances of an endpoint of an earlier process; go on with its update."""
        endpoint = self.endpoints[record.name]
        problem = start_variants(endpoint.variants, startup_seconds(record.current))
        if problem:
            log.warning("%s: %s", record.name, problem)
        if record.status == UPDATING:
            self.update(record)

    def update(self, record: EndpointRecord) -> None:
        """Start new instances, and send everything to them once they are healthy.

        Where they do not become healthy, the endpoint stays as it was.
        """
        assert record.next
        endpoint = self.endpoints[record.name]
        variants = create_variants(record.name, record.next, self.s3, self.settings.owner)
        problem = start_variants(variants, startup_seconds(record.next))
        if problem:
            stop_variants(variants)
            with self.lock:
                record.next = None
            self.set_status(record, IN_SERVICE, problem)
            return

        before = endpoint.replace_variants(variants)
        if isinstance(endpoint, AsyncEndpoint):
            endpoint.change(self.async_settings(record.next))
        with self.lock:
            record.current = record.next
            record.next = None
        self.set_status(record, IN_SERVICE)
        endpoint.wait_until_idle(before, DRAIN_SECONDS)
        stop_variants(before)

    def delete(self, record: EndpointRecord) -> None:
        """Stop the instances, and forget the endpoint and its requests."""
        endpoint = self.endpoints.pop(record.name, None)
        if endpoint:
            endpoint.close()
            stop_variants(endpoint.variants)
        self.queue.remove_all(record.name)
        retry_forever(lambda: self.record_store.remove(record.name))
        with self.lock:
            del self.records[record.name]
        log.info("%s: deleted", record.name)

    def build(self, record: EndpointRecord) -> Endpoint:
        """Return the endpoint of a record, whose instances are not started."""
        variants = create_variants(record.name, record.current, self.s3, self.settings.owner)
        if "AsyncInferenceConfig" not in record.current.config:
            return RealtimeEndpoint(record.name, variants)
        settings = self.async_settings(record.current)
        return AsyncEndpoint(record.name, variants[0], self.queue, self.notifier, settings)

    def publish(self, record: EndpointRecord, endpoint: Endpoint) -> None:
        """Let the endpoint take requests."""
        if isinstance(endpoint, AsyncEndpoint):
            endpoint.load(record.buckets)
            for bucket in record.buckets:
                self.make_bucket(bucket)
        endpoint.start()
        self.endpoints[record.name] = endpoint

    def make_bucket(self, bucket: str) -> None:
        """Make a bucket for answers, where there is none and this program may make one."""
        with contextlib.suppress(ClientError):
            ensure_bucket(self.s3, bucket)

    def set_status(self, record: EndpointRecord, status: str, failure_reason: str = "") -> None:
        log.info("%s: %s %s", record.name, status, failure_reason)
        with self.lock:
            record.set_status(status, failure_reason)
        if record.name not in self.declared:
            write_forever(self.record_store, record)

    # ---- copies

    def copy_deployment(self, config: EndpointConfig, models: Mapping[str, Model]) -> Deployment:
        """Return the deployment of a configuration. Raises ApiError where a model is gone."""
        containers = {}
        for variant in config.arguments["ProductionVariants"]:
            name = variant["ModelName"]
            if name not in models:
                raise validation_error(f'Could not find model "{arn("model", name)}".')
            containers[name] = dict(models[name].container)
        return Deployment(config.arguments, containers)

    def async_settings(self, deployment: Deployment) -> AsyncSettings:
        settings = self.settings
        return async_settings(deployment.config, settings.output, settings.idle_seconds)

    def note_buckets(self, record: EndpointRecord) -> None:
        """Add the buckets of the endpoint's deployments to those in which answers may be."""
        for deployment in (record.current, record.next):
            if not deployment or "AsyncInferenceConfig" not in deployment.config:
                continue
            settings = self.async_settings(deployment)
            for path in (settings.output_path, settings.failure_path):
                bucket, _ = split_s3_url(path)
                if bucket not in record.buckets:
                    record.buckets.append(bucket)


# ------------------------------------------------------------ the checks of calls


def check_model(arguments: Arguments) -> None:
    """Raise ApiError for what botocore's model allows, but SageMaker or this program does not."""
    refuse_isolation(arguments)
    containers = arguments.get("Containers", [])
    if len(containers) > 1:
        raise not_supported("Containers with more than one container")
    if bool(containers) == ("PrimaryContainer" in arguments):
        raise validation_error("Provide exactly one of PrimaryContainer and Containers.")
    container = arguments.get("PrimaryContainer") or containers[0]
    if not container.get("Image"):
        raise validation_error("The container needs an Image.")
    # Docker would take it for an option.
    if container["Image"].startswith("-"):
        raise validation_error(f"{container['Image']} is no image.")
    if any("\n" in value for value in container.get("Environment", {}).values()):
        raise not_supported("Environment with a line break")
    if container.get("Mode", "SingleModel") != "SingleModel":
        raise not_supported(f"Mode {container['Mode']}")
    check_model_data(container)


def check_model_data(container: Mapping[str, Any]) -> None:
    if "ModelDataSource" in container and "ModelDataUrl" in container:
        raise validation_error("Provide at most one of ModelDataUrl and ModelDataSource.")
    if "ModelDataUrl" in container:
        check_s3_location("ModelDataUrl", container["ModelDataUrl"])
    source = container.get("ModelDataSource", {}).get("S3DataSource")
    if not source:
        return
    check_s3_location("ModelDataSource.S3DataSource.S3Uri", source["S3Uri"])
    kinds = (source["S3DataType"], source["CompressionType"])
    if kinds not in (("S3Prefix", "None"), ("S3Object", "Gzip")):
        raise not_supported(f"S3DataType {kinds[0]} with CompressionType {kinds[1]}")


def check_config(arguments: Arguments, topics: Mapping[str, str]) -> None:
    """Raise ApiError for what botocore's model allows, but SageMaker or this program does not."""
    refuse_isolation(arguments)
    names = []
    for number, variant in enumerate(arguments["ProductionVariants"], start=1):
        path = f"ProductionVariants.{number}"
        for member in ("ModelName", "InstanceType", "InitialInstanceCount"):
            if member not in variant:
                raise validation_error(f"{path} needs {member}.")
        if variant["InitialInstanceCount"] != 1:
            raise not_supported(f"{path}.InitialInstanceCount above 1")
        names.append(variant["VariantName"])
    if len(set(names)) < len(names):
        raise validation_error("Each production variant needs a VariantName of its own.")
    if "AsyncInferenceConfig" not in arguments:
        return
    if len(names) > 1:
        raise not_supported("AsyncInferenceConfig with more than one production variant")
    check_output(arguments["AsyncInferenceConfig"]["OutputConfig"], topics)


def check_output(output: Mapping[str, Any], topics: Mapping[str, str]) -> None:
    for name in ("S3OutputPath", "S3FailurePath"):
        if name in output:
            check_s3_location(name, output[name])
    for name, topic in output.get("NotificationConfig", {}).items():
        if name.endswith("Topic") and topic not in topics:
            raise validation_error(
                f"NotificationConfig.{name}: there is no topic {topic} here. "
                f"Start sagemaker-local with --topic NAME=URL; the topic of NAME is in {REGION}."
            )


def check_s3_location(name: str, url: str) -> None:
    bucket, _ = split_s3_url(url)
    if not url.startswith("s3://") or not bucket:
        raise validation_error(f"{name} must be an s3:// URL, such as s3://bucket/prefix.")


def refuse_isolation(arguments: Arguments) -> None:
    if arguments.get("EnableNetworkIsolation"):
        raise not_supported("EnableNetworkIsolation")


def refuse_existing(kind: str, resource: Model | EndpointConfig | EndpointRecord | None) -> None:
    if resource:
        raise validation_error(f'Cannot create already existing {kind} "{resource.arn}".')


def refuse_if_in_progress(record: EndpointRecord) -> None:
    if record.status in (CREATING, UPDATING, DELETING):
        raise validation_error(f'Cannot update in-progress endpoint "{record.arn}".')


def store_or_refuse(store: ResourceStore[Any], resource: object) -> None:
    """Store the resource. Raises ApiError where S3 does not take it."""
    try:
        store.write(resource)
    except (BotoCoreError, ClientError) as error:
        log.warning("S3: %s; a call was refused", error)
        raise unavailable("The storage does not take it. Try again.") from None


def remove_or_refuse(store: ResourceStore[Any], name: str) -> None:
    """Remove the stored resource. Raises ApiError where S3 does not."""
    try:
        store.remove(name)
    except (BotoCoreError, ClientError) as error:
        log.warning("S3: %s; a call was refused", error)
        raise unavailable("The storage does not answer. Try again.") from None


# ------------------------------------------------------------ members of calls and answers


def without_tags(arguments: Arguments) -> Arguments:
    return {name: value for name, value in arguments.items() if name != "Tags"}


def read_tags(arguments: Arguments) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in arguments.get("Tags", ())}


def show_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def with_token(answer: dict[str, object], token: str | None) -> Answer:
    if token:
        answer["NextToken"] = token
    return answer


def retain_weights(current: Deployment, following: Deployment) -> None:
    """Give each variant that stays the weight that it has now."""
    weights = {}
    for variant in current.config["ProductionVariants"]:
        weights[variant["VariantName"]] = variant.get("InitialVariantWeight", 1.0)
    variants = []
    for variant in following.config["ProductionVariants"]:
        weight = weights.get(variant["VariantName"], variant.get("InitialVariantWeight", 1.0))
        variants.append({**variant, "InitialVariantWeight": weight})
    following.config = {**following.config, "ProductionVariants": variants}


def describe_variants(endpoint: Endpoint, deployment: Deployment) -> list[dict[str, object]]:
    """Return ProductionVariants of DescribeEndpoint.

    CurrentInstanceCount is the number of healthy instances, and VariantStatus tells why one that is
    wanted is not healthy.
    """
    images = {}
    for wanted in deployment.config["ProductionVariants"]:
        images[wanted["VariantName"]] = deployment.containers[wanted["ModelName"]]["Image"]
    described = []
    with endpoint.changed:
        desired = endpoint.desired_instances()
        for variant in endpoint.variants:
            answer: dict[str, object] = {
                "VariantName": variant.name,
                "CurrentWeight": variant.weight,
                "DesiredWeight": variant.weight,
                "CurrentInstanceCount": int(variant.in_service),
                "DesiredInstanceCount": desired,
            }
            if variant.name in images:
                answer["DeployedImages"] = [{"SpecifiedImage": images[variant.name]}]
            if desired and not variant.in_service:
                answer["VariantStatus"] = [
                    {
                        "Status": "Creating",
                        "StatusMessage": variant.problem[:1024],
                        "StartTime": time.time(),
                    }
                ]
            described.append(answer)
    return described
