"""Each operation, asked right and wrong, beside botocore's model of it.

The program must take what the model allows, and answer as the model says; it must refuse what the
model forbids, in the error that SageMaker gives, and name the member. What the model allows and the
program does not support must be refused by its name too: nothing is ignored silently.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cases import missing_members, smallest_value
from differential import (
    CONTROL_PLANE,
    CREATED,
    RUNTIME,
    Caller,
    base_request,
    create_existing,
    is_refused_by_name,
    problems,
    silent_members,
)
from front_door import FrontDoor, error_of, running_with_both
from model_server import ModelServer

# Of each operation.
CASES = 60


@pytest.fixture(scope="module")
def door(
    model_server: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FrontDoor]:
    topics = (f"--topic=good={model_server.url}", f"--topic=bad={model_server.url}")
    with running_with_both(tmp_path_factory.mktemp("door"), model_server.url, *topics) as found:
        yield found


@pytest.fixture(scope="module")
def existing(door: FrontDoor, model_server: ModelServer) -> None:
    """Create a model, an endpoint configuration and an endpoint."""
    create_existing(door.control, model_server.url)


# ------------------------------------------------------------ the tests


@pytest.mark.parametrize("operation", [*CONTROL_PLANE, *RUNTIME])
def test_what_the_model_allows_is_taken_and_the_rest_is_refused(
    door: FrontDoor, model_server: ModelServer, existing: None, operation: str
) -> None:
    count, wrong = problems(door.url, operation, model_server.url, CASES)
    assert not wrong, "\n".join(wrong)
    assert count == CASES


@pytest.mark.parametrize("operation", CREATED)
def test_no_member_is_ignored_silently(
    door: FrontDoor, model_server: ModelServer, existing: None, operation: str
) -> None:
    silent = silent_members(door.url, operation, model_server.url)
    assert not silent, "\n".join(silent)


@pytest.mark.parametrize("operation", RUNTIME)
def test_no_header_is_ignored_silently(
    door: FrontDoor, model_server: ModelServer, operation: str
) -> None:
    """A header that is not supported is refused by its name; no answer could describe it."""
    caller = Caller(door.url, "sagemaker-runtime", operation)
    base = base_request(operation, model_server.url)
    for path, shape in missing_members(caller.input, base):
        if path == ("InputLocation",):
            continue  # stands in the place of Body
        answer = caller.call(base | {str(path[0]): smallest_value(shape)})
        assert is_refused_by_name(answer["Error"], path), (path, answer)


def test_a_variant_that_the_endpoint_does_not_have_is_refused(door: FrontDoor) -> None:
    error = error_of(
        door.runtime.invoke_endpoint, EndpointName="live", Body=b"{}", TargetVariant="another"
    )
    assert error["Error"]["Code"] == "ValidationError"
    assert "another" in error["Error"]["Message"]


def test_the_errors_are_exceptions_of_boto3(door: FrontDoor) -> None:
    with pytest.raises(door.runtime.exceptions.ModelError) as caught:
        door.runtime.invoke_endpoint(EndpointName="live", Body=b'{"status": 418}')
    response = caught.value.response
    assert (response["OriginalStatusCode"], response["OriginalMessage"]) == (418, '{"status": 418}')
    assert response["LogStreamArn"].startswith("arn:aws:logs:")
    with pytest.raises(door.runtime.exceptions.ValidationError):
        door.runtime.invoke_endpoint(EndpointName="nobody", Body=b"{}")
