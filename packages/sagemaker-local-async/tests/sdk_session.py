"""What a user of the SageMaker Python SDK does, from deploy to delete.

    python sdk_session.py IMAGE

Needs version 2 of the package sagemaker. boto3's own settings lead to the program under test. Each
step prints a line, and the first that fails ends the script with an error.
"""

from __future__ import annotations

import sys
from typing import Any

import boto3
from sagemaker import Session
from sagemaker.async_inference import AsyncInferenceConfig, WaiterConfig
from sagemaker.deserializers import JSONDeserializer
from sagemaker.exceptions import AsyncInferenceModelError, ObjectNotExistedError
from sagemaker.model import Model
from sagemaker.predictor import Predictor
from sagemaker.predictor_async import AsyncPredictor
from sagemaker.serializers import JSONSerializer

# The SDK has no types.
Untyped = Any

BUCKET = "sagemaker-local"
NAME = "from-the-sdk"
ROLE = "arn:aws:iam::000000000000:role/name"
# The SDK looks every 15 seconds by default.
WAITER = WaiterConfig(max_attempts=60, delay=1)


def open_session() -> Untyped:
    return Session(boto_session=boto3.Session(region_name="us-east-1"), default_bucket=BUCKET)


def deploy(session: Untyped, image: str) -> Untyped:
    model = Model(
        image_uri=image,
        role=ROLE,
        name=NAME,
        predictor_cls=Predictor,
        sagemaker_session=session,
    )
    config = AsyncInferenceConfig(
        output_path=f"s3://{BUCKET}/sdk/output",
        failure_path=f"s3://{BUCKET}/sdk/failure",
        max_concurrent_invocations_per_instance=2,
    )
    return model.deploy(
        initial_instance_count=1,
        instance_type="ml.m5.large",
        endpoint_name=NAME,
        serializer=JSONSerializer(),
        deserializer=JSONDeserializer(),
        async_inference_config=config,
    )


def check(step: str, found: object, expected: object) -> None:
    if found != expected:
        sys.exit(f"{step}: {found!r} instead of {expected!r}")
    print(f"{step}: {found!r}", flush=True)


def use(predictor: Untyped) -> None:
    check("the endpoint", type(predictor), AsyncPredictor)
    check("predict", predictor.predict({"n": 1}, waiter_config=WAITER), {"n": 1})

    pending = [predictor.predict_async({"n": number}) for number in range(5)]
    results = [response.get_result(WAITER) for response in pending]
    check("predict_async", results, [{"n": number} for number in range(5)])

    late = predictor.predict_async({"seconds": 3})
    try:
        late.get_result()
    except ObjectNotExistedError:
        check("a result that is not there yet", True, True)
    check("the same, later", late.get_result(WAITER), {"seconds": 3})

    try:
        predictor.predict({"status": 400}, waiter_config=WAITER)
    except AsyncInferenceModelError:
        check("an error of the model", True, True)
        return
    sys.exit("an error of the model was not raised")


def delete(session: Untyped, predictor: Untyped) -> None:
    predictor.delete_endpoint()
    session.delete_model(NAME)
    found = session.sagemaker_client.list_models()["Models"]
    check("the models after delete_model", [model["ModelName"] for model in found], [])


def main() -> None:
    session = open_session()
    predictor = deploy(session, sys.argv[1])
    use(predictor)
    delete(session, predictor)


if __name__ == "__main__":
    main()
