"""What the user asks for: the settings of one of the two endpoints."""

from dataclasses import dataclass

# The name of the only production variant of each endpoint.
VARIANT = "AllTraffic"
# What the names of instance types with a GPU begin with
GPU_INSTANCES = ("ml.g", "ml.p")


def endpoint_name(prefix: str, model: str) -> str:
    return f"{prefix}-{model}"


@dataclass(frozen=True)
class EndpointSettings:
    """The settings of one endpoint."""

    # "nst" or "cyclegan", see bot.MODELS
    model: str
    name: str
    instance_type: str
    min_instances: int
    max_instances: int
    # Requests that SageMaker sends to one instance at the same time
    concurrency: int
    # The InferenceAmiVersion of GPU instances, which decides their NVIDIA driver
    ami: str
    # What is taken where AWS has no instance of `instance_type`, in this order
    fallback_types: tuple[str, ...] = ()

    @property
    def instance_types(self) -> tuple[str, ...]:
        """Return all instance types, the one that is tried first in front."""
        return (self.instance_type, *self.fallback_types)
