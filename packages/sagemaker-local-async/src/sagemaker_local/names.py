"""The account and the region that everything here is in, and the names of resources."""

from __future__ import annotations

ACCOUNT = "000000000000"
REGION = "us-east-1"
# The variant of an endpoint that the command line names, as SageMaker's own tools call it.
VARIANT = "AllTraffic"


def arn(kind: str, name: str) -> str:
    """Return the ARN of a resource. `kind` is SageMaker's, such as "endpoint-config"."""
    return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{kind}/{name}"


def topic_arn(name: str) -> str:
    return f"arn:aws:sns:{REGION}:{ACCOUNT}:{name}"
