"""Endpoints that boto3 makes, through the fixture that the package gives to everybody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

# The entry point does this where the package is installed.
from sagemaker_local.pytest_plugin import SagemakerLocal, sagemaker_local

__all__ = ["sagemaker_local"]


class EchoHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    """Return the URL of a model server that answers with the request."""
    with ThreadingHTTPServer(("127.0.0.1", 0), EchoHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def create_config(sagemaker: Any, name: str, url: str, **members: Any) -> None:  # noqa: ANN401
    sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": url})
    variant = {
        "VariantName": "only",
        "ModelName": name,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    sagemaker.create_endpoint_config(
        EndpointConfigName=name, ProductionVariants=[variant], **members
    )


def wait_for_status(sagemaker: Any, name: str, status: str) -> dict[str, Any]:  # noqa: ANN401
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        endpoint: dict[str, Any] = sagemaker.describe_endpoint(EndpointName=name)
        if endpoint["EndpointStatus"] == status:
            return endpoint
        time.sleep(0.1)
    raise AssertionError(f"{name} does not become {status}: {endpoint}")


def message_of(call: Any, **arguments: Any) -> str:  # noqa: ANN401
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    return str(caught.value.response["Error"]["Message"])


def test_an_asynchronous_endpoint_answers_also_after_a_kill(
    sagemaker_local: SagemakerLocal, echo: str
) -> None:
    sagemaker = sagemaker_local.client("sagemaker")
    output = {"OutputConfig": {"S3OutputPath": "s3://answers/of/mine"}}
    create_config(sagemaker, "mine", echo, AsyncInferenceConfig=output)
    sagemaker.create_endpoint(EndpointName="mine", EndpointConfigName="mine")
    wait_for_status(sagemaker, "mine", "InService")

    runtime = sagemaker_local.client("sagemaker-runtime")
    accepted = runtime.invoke_endpoint_async(EndpointName="mine", Body=b"before")
    assert accepted["OutputLocation"].startswith("s3://answers/of/mine/")
    assert accepted["FailureLocation"].startswith("s3://answers/of/failure/")
    assert sagemaker_local.wait_for_answer(accepted) == ("output", b"before")

    sagemaker_local.kill()
    sagemaker_local.start()
    sagemaker = sagemaker_local.client("sagemaker")
    assert sagemaker.describe_endpoint(EndpointName="mine")["EndpointStatus"] == "InService"
    runtime = sagemaker_local.client("sagemaker-runtime")
    accepted = runtime.invoke_endpoint_async(EndpointName="mine", Body=b"after")
    assert sagemaker_local.wait_for_answer(accepted) == ("output", b"after")


def test_an_update_changes_the_model_and_a_deletion_the_list(
    sagemaker_local: SagemakerLocal, echo: str
) -> None:
    sagemaker = sagemaker_local.client("sagemaker")
    create_config(sagemaker, "first", echo)
    create_config(sagemaker, "second", echo)
    sagemaker.create_endpoint(
        EndpointName="live", EndpointConfigName="first", Tags=[{"Key": "a", "Value": "b"}]
    )
    arn = wait_for_status(sagemaker, "live", "InService")["EndpointArn"]
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "b"}]

    sagemaker.update_endpoint(EndpointName="live", EndpointConfigName="second")
    assert wait_for_status(sagemaker, "live", "InService")["EndpointConfigName"] == "second"
    runtime = sagemaker_local.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName="live", Body=b"{}", TargetVariant="only")
    assert (answer["Body"].read(), answer["InvokedProductionVariant"]) == (b"{}", "only")

    sagemaker.delete_endpoint(EndpointName="live")
    deadline = time.monotonic() + 30
    while any(e["EndpointName"] == "live" for e in sagemaker.list_endpoints()["Endpoints"]):
        assert time.monotonic() < deadline, "it is not deleted"
        time.sleep(0.1)


def test_what_is_not_supported_is_refused_by_its_name(
    sagemaker_local: SagemakerLocal, echo: str
) -> None:
    sagemaker = sagemaker_local.client("sagemaker")
    container = {"Image": echo}
    vpc = {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
    said = message_of(
        sagemaker.create_model, ModelName="v", PrimaryContainer=container, VpcConfig=vpc
    )
    assert said == "VpcConfig is not supported by sagemaker-local."

    for image, environment, words in (
        ("--privileged", {}, "--privileged is no image."),
        ("image", {"A": "1\n2"}, "Environment with a line break is not supported"),
    ):
        container_of_it = {"Image": image, "Environment": environment}
        said = message_of(sagemaker.create_model, ModelName="v", PrimaryContainer=container_of_it)
        assert said.startswith(words)

    sagemaker.create_model(ModelName="plain", PrimaryContainer=container)
    variant = {
        "VariantName": "only",
        "ModelName": "plain",
        "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 1},
    }
    said = message_of(
        sagemaker.create_endpoint_config, EndpointConfigName="s", ProductionVariants=[variant]
    )
    assert said == "ProductionVariants.1.ServerlessConfig is not supported by sagemaker-local."
    said = message_of(sagemaker.create_endpoint, EndpointName="e", EndpointConfigName="s")
    assert said.startswith("Could not find endpoint configuration")


def test_a_value_that_json_does_not_have_is_refused(sagemaker_local: SagemakerLocal) -> None:
    answer = requests.post(
        sagemaker_local.url,
        data=b'{"CreationTimeAfter": NaN}',
        headers={"X-Amz-Target": "SageMaker.ListEndpoints"},
        timeout=10,
    )
    assert (answer.status_code, answer.json()["__type"]) == (400, "SerializationException")
