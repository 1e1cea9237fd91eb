"""The limits in boto3's descriptions, with which the tests of deploy.py check what is sent."""

import boto3
import pytest

from tests.fakes.model_limits import refuse_beyond_limits


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"InstanceType": "ml.g9.huge"}, "InstanceType: ml.g9.huge is none of"),
        ({"ModelName": "a_b"}, "ModelName: a_b does not match"),
        (
            {"VariantInstanceProvisionTimeoutInSeconds": 5000},
            "VariantInstanceProvisionTimeoutInSeconds: 5000 is not from 300 to 3600",
        ),
        ({"InstancePools": [{"InstanceType": "ml.g5.xlarge", "Priority": 6}]}, "Priority: 6"),
    ],
)
def test_what_aws_would_refuse_is_not_sent(change: dict[str, object], problem: str) -> None:
    session = boto3.Session("testing", "testing", region_name="eu-west-1")
    session.events.register("before-parameter-build", refuse_beyond_limits)
    client = session.client("sagemaker", endpoint_url="http://127.0.0.1:9")
    variant = {"VariantName": "AllTraffic", "ModelName": "model", **change}
    with pytest.raises(AssertionError, match=problem):
        client.create_endpoint_config(EndpointConfigName="config", ProductionVariants=[variant])
