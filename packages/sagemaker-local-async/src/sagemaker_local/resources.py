"""Models, endpoint configurations and endpoints, as they are stored in S3."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar, cast

from msgspec import Meta

from sagemaker_local.names import arn
from sagemaker_local.s3 import S3Client, retry_forever
from sagemaker_local.stored import UnreadableError, decode, load_objects

HOSTING_PREFIX = "sagemaker/hosting/"
# A stored endpoint has a configuration with ten variants, and the model of each, twice.
RESOURCE_BYTES = 2**23

# EndpointStatus
CREATING = "Creating"
IN_SERVICE = "InService"
UPDATING = "Updating"
DELETING = "Deleting"
FAILED = "Failed"

# The members of a call, which botocore's model of the service describes.
Arguments = dict[str, Any]
# time.time(), up to the year 9999: boto3 reads no later one.
Time = Annotated[float, Meta(ge=0, le=253402300799)]
EndpointStatus = Annotated[str, Meta(pattern="^(Creating|InService|Updating|Deleting|Failed)$")]


@dataclass
class Definition:
    """What never changes. The types are also the schema of its object in S3."""

    # Those of the call that created it.
    arguments: Arguments
    tags: dict[str, str] = field(default_factory=dict)
    created: Time = field(default_factory=time.time)
    version: Literal[1] = 1

    # It has none; a list asks for it.
    status = ""

    @property
    def modified(self) -> float:
        return self.created


@dataclass
class Model(Definition):
    """A model, with the arguments of CreateModel."""

    @property
    def name(self) -> str:
        return str(self.arguments["ModelName"])

    @property
    def arn(self) -> str:
        return arn("model", self.name)

    @property
    def container(self) -> Mapping[str, Any]:
        """The only ContainerDefinition."""
        containers = self.arguments.get("Containers") or [self.arguments["PrimaryContainer"]]
        container: Mapping[str, Any] = containers[0]
        return container


@dataclass
class EndpointConfig(Definition):
    """An endpoint configuration, with the arguments of CreateEndpointConfig."""

    @property
    def name(self) -> str:
        return str(self.arguments["EndpointConfigName"])

    @property
    def arn(self) -> str:
        return arn("endpoint-config", self.name)

    @property
    def is_async(self) -> bool:
        return "AsyncInferenceConfig" in self.arguments


@dataclass
class Deployment:
    """What an endpoint runs: copies, so that it does not matter what is deleted later.

    config: the arguments of CreateEndpointConfig. containers: the ContainerDefinition of each
    model that it names.
    """

    config: Arguments
    containers: dict[str, Arguments]


@dataclass
class EndpointRecord:
    """An endpoint. The types are also the schema of its object in S3."""

    name: str
    current: Deployment
    # What an update is about to run.
    next: Deployment | None = None
    status: EndpointStatus = CREATING
    failure_reason: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    created: Time = field(default_factory=time.time)
    modified: Time = field(default_factory=time.time)
    # The buckets in which the answers of accepted requests may be.
    buckets: list[str] = field(default_factory=list)
    version: Literal[1] = 1

    @property
    def arn(self) -> str:
        return arn("endpoint", self.name)

    def set_status(self, status: str, failure_reason: str = "") -> None:
        self.status = status
        self.failure_reason = failure_reason[:1024]
        self.modified = time.time()


class Resource(Protocol):
    """One of the three above."""

    @property
    def name(self) -> str: ...

    @property
    def arn(self) -> str: ...

    @property
    def tags(self) -> dict[str, str]: ...


R = TypeVar("R", bound=Resource)


class ResourceStore(Generic[R]):
    """The stored resources of one kind. Used by many threads."""

    def __init__(self, s3: S3Client, bucket: str, schema: type[R], folder: str) -> None:
        self.s3 = s3
        self.bucket = bucket
        self.schema = schema
        self.prefix = f"{HOSTING_PREFIX}{folder}/"
        # Held while a resource is written, so that an older state never replaces a newer one.
        self.writing = threading.Lock()

    def key(self, name: str) -> str:
        return f"{self.prefix}{name}.json"

    def write(self, resource: R) -> None:
        """Store the resource as it is now. Raises the errors of S3."""
        with self.writing:
            # A Protocol cannot say that its classes are dataclasses.
            data = json.dumps(asdict(cast(Any, resource))).encode()
            self.s3.put_object(Bucket=self.bucket, Key=self.key(resource.name), Body=data)

    def remove(self, name: str) -> None:
        """Remove a stored resource. Raises the errors of S3."""
        with self.writing:
            self.s3.delete_object(Bucket=self.bucket, Key=self.key(name))

    def load(self) -> list[R]:
        """Return all stored resources. Waits until S3 works."""
        return load_objects(self.s3, self.bucket, self.prefix, self.parse, RESOURCE_BYTES)

    def parse(self, key: str, data: bytes) -> R:
        """Return the resource that is stored at `key`. Raises UnreadableError."""
        try:
            resource = decode(data, self.schema)
            name = resource.name
        except (KeyError, TypeError) as error:
            raise UnreadableError(f"a member is missing: {error}") from None
        if key != self.key(name):
            raise UnreadableError("its name is not in its key")
        return resource


def write_forever(store: ResourceStore[R], resource: R) -> None:
    """Store the resource, as soon as S3 works."""
    retry_forever(lambda: store.write(resource))
