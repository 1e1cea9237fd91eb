"""The parts of aws/ that need no account."""

import io
from collections.abc import Callable
from datetime import date

import pytest
from botocore.exceptions import ClientError
from PIL import Image as Picture

from aws.batch import Row, read_csv, read_json_lines
from aws.calls import find, is_subset, perform
from aws.changes import Change, apply, run_in_parallel
from aws.cost import estimate_cost
from aws.endpoint_settings import EndpointSettings
from aws.endpoints import describe_wait
from aws.messages import DeployError, explain_error
from aws.registry import Image
from aws.smoke import CONTENT, PROOF_SIZES, jpeg_size
from aws.status import describe_instances
from tests.fakes.clock import fake_clock


def client_error(code: str, message: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "CreateModel")


def failing_calls(*messages: str) -> Callable[[], None]:
    """Return a call that fails once with each message and then succeeds."""
    left = list(messages)

    def call() -> None:
        if left:
            raise client_error("ValidationException", left.pop(0))

    return call


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize(
    "code", ["ExpiredToken", "InvalidClientTokenId", "ResourceLimitExceeded", "ThrottlingException"]
)
def test_errors_of_aws_come_with_what_to_do(code: str) -> None:
    error = ClientError({"Error": {"Code": code, "Message": "No."}}, "CreateEndpoint")
    lines = explain_error(error).splitlines()
    assert code in lines[0]
    assert len(lines) == 2


def test_a_quota_of_iam_gets_no_advice_about_sagemaker() -> None:
    details = {"Code": "LimitExceeded", "Message": "Cannot exceed quota for RolesPerAccount: 1000"}
    text = explain_error(ClientError({"Error": details}, "CreateRole"))
    assert "IAM" in text
    assert "SageMaker" not in text


@pytest.mark.parametrize(
    ("code", "message", "service"),
    [
        (
            "AccountLimitExceededException",
            "Cannot have more than 0 builds in queue for the account",
            "CodeBuild",
        ),
        (
            "ClientException",
            "You've reached the limit on the number of vCPUs you can run concurrently",
            "Fargate",
        ),
    ],
)
def test_the_limits_of_a_new_account_are_told(code: str, message: str, service: str) -> None:
    error = ClientError({"Error": {"Code": code, "Message": message}}, "StartBuild")
    assert f"Service Quotas > AWS {service}" in explain_error(error)


def test_an_unknown_error_is_named() -> None:
    assert explain_error(KeyError("Tags")) == "KeyError: 'Tags'"


# ---------------------------------------------------------------- calls and changes


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("NoSuchBucket", ""),
        ("404", ""),
        ("RepositoryNotFoundException", ""),
        ("ValidationException", 'Could not find endpoint "e".'),
    ],
)
def test_find_returns_none_for_what_does_not_exist(code: str, message: str) -> None:
    def call() -> None:
        raise client_error(code, message)

    assert find(call) is None


def test_find_raises_any_other_error() -> None:
    def call() -> None:
        raise client_error("AccessDenied", "not authorized")

    with pytest.raises(ClientError):
        find(call)


@pytest.mark.parametrize(
    ("wanted", "current", "expected"),
    [
        ({"a": 1}, {"a": 1, "default": 2}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, None, False),
        ([1, 2], [2, 1], True),
        ([1], [1, 2], False),
        ({"rules": [{"id": "x"}]}, {"rules": [{"id": "x", "default": True}]}, True),
        ({"rules": [{"id": "x"}]}, {"rules": [{"id": "y"}]}, False),
    ],
)
def test_a_subset_may_lack_keys_and_the_order_of_lists(
    wanted: object, current: object, expected: bool
) -> None:
    assert is_subset(wanted, current) is expected


def test_apply_makes_each_change_and_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    made: list[str] = []
    changes = [
        Change("create the bucket", lambda: made.append("bucket")),
        Change("create the role", lambda: made.append("role")),
    ]
    assert apply(changes) == 2
    assert made == ["bucket", "role"]
    assert capsys.readouterr().err == "create the bucket\ncreate the role\n"


def test_apply_with_plan_only_prints_the_changes(capsys: pytest.CaptureFixture[str]) -> None:
    made: list[str] = []
    assert apply([Change("create the bucket", lambda: made.append("bucket"))], plan=True) == 1
    assert made == []
    assert capsys.readouterr().out == "would create the bucket\n"


def test_parallel_tasks_all_end_before_the_first_error_is_raised(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended: list[str] = []

    def fail(message: str) -> None:
        raise DeployError(message)

    tasks: list[Callable[[], None]] = [
        lambda: fail("first"),
        lambda: fail("second"),
        lambda: ended.append("third"),
    ]
    with pytest.raises(DeployError, match="first"):
        run_in_parallel(tasks)
    assert ended == ["third"]
    assert capsys.readouterr().err == "second\n"


# ---------------------------------------------------------------- waiting


def test_a_role_that_is_not_known_yet_is_waited_for() -> None:
    clock = fake_clock()
    call = failing_calls(
        "Could not assume role arn:aws:iam::1:role/r.",
        "The role has no permission to pull the image.",
    )
    perform(clock, call)
    assert clock.monotonic() == 10


def test_a_role_that_stays_unknown_is_an_error_after_a_minute() -> None:
    clock = fake_clock()
    call = failing_calls(*["Could not assume role arn:aws:iam::1:role/r."] * 100)
    with pytest.raises(ClientError, match="Could not assume role"):
        perform(clock, call)
    assert 60 <= clock.monotonic() <= 70


@pytest.mark.parametrize(
    "message",
    [
        "not authorized to perform iam:PassRole on the role r",
        "User u is not authorized to perform: sagemaker:CreateModel because no role allows it",
        "The image is missing.",
    ],
)
def test_other_errors_are_not_waited_for(message: str) -> None:
    clock = fake_clock()
    with pytest.raises(ClientError):
        perform(clock, failing_calls(message))
    assert clock.monotonic() == 0


@pytest.mark.parametrize(
    ("operation", "code", "message"),
    [
        ("CreateRole", "EntityAlreadyExists", "Role with name r already exists."),
        ("CreateBucket", "BucketAlreadyOwnedByYou", ""),
        ("CreateEndpoint", "ValidationException", 'Cannot create already existing endpoint "e".'),
        ("UpdateEndpoint", "ValidationException", 'Cannot update in-progress endpoint "e".'),
        ("CreateTrainingJob", "ResourceInUse", "Job name must be unique"),
        ("AddRoleToInstanceProfile", "LimitExceeded", "Cannot exceed quota"),
    ],
)
def test_what_a_lost_answer_has_made_already_is_success(
    operation: str, code: str, message: str
) -> None:
    def call() -> None:
        raise ClientError({"Error": {"Code": code, "Message": message}}, operation)

    assert perform(fake_clock(), call) == {}


def test_a_bucket_of_somebody_else_is_an_error() -> None:
    def call() -> None:
        raise ClientError({"Error": {"Code": "BucketAlreadyExists"}}, "CreateBucket")

    with pytest.raises(ClientError):
        perform(fake_clock(), call)


def test_a_wait_is_described_with_its_time() -> None:
    assert describe_wait("e", "Creating", 95) == "e: Creating, 1:35, usually 5 to 10 minutes"
    assert describe_wait("e", "Deleting", 5) == "e: Deleting, 0:05"


# ---------------------------------------------------------------- status, cost and lists


@pytest.mark.parametrize(
    ("current", "desired", "expected"),
    [
        (0, 0, "0 instances, asleep"),
        (0, 1, "0 instances, soon 1"),
        (1, 1, "1 instance"),
        (2, 1, "2 instances, soon 1"),
    ],
)
def test_instances_are_described(current: int, desired: int, expected: str) -> None:
    variant = {"CurrentInstanceCount": current, "DesiredInstanceCount": desired}
    assert describe_instances({"ProductionVariants": [variant]}) == expected


def test_the_estimate_has_a_date_and_the_price_of_each_endpoint() -> None:
    settings = [
        EndpointSettings("nst", "art-nst", "ml.g4dn.xlarge", 0, 2, 1, "ami"),
        EndpointSettings("cyclegan", "art-cyclegan", "ml.g4dn.xlarge", 1, 2, 2, "ami"),
        EndpointSettings("cyclegan", "art-other", "ml.p5.48xlarge", 0, 2, 2, "ami"),
    ]
    images = [Image("uri", 2.5), Image("uri", 2.5)]
    text = estimate_cost(settings, images, date(2026, 1, 2))
    assert "Estimate of 2026-01-02" in text
    assert "$0.50 a month for the images" in text
    assert "art-nst: $0.736 an hour and instance; $0.0123 a picture of 60 s" in text
    assert "$0.48 a single one" in text
    assert "art-cyclegan: $0.736 an hour and instance, $537 a month always on" in text
    assert "art-other: the price of ml.p5.48xlarge is not known here" in text


def test_a_csv_list_keeps_parameters_and_fills_in_style_and_result() -> None:
    text = "content,style,result,max_epochs\n\n s3://b/cat.png?x=1 ,,,5\n"
    assert read_csv(text, "monet", "s3://b/out") == [
        Row("s3://b/cat.png?x=1", "s3://b/cat.png?x=1,monet,s3://b/out/00001-cat.jpg,5")
    ]


def test_a_json_list_leaves_out_blank_fields() -> None:
    text = '{"content_url": "s3://b/cat.png", "style_name": "", "result_url": null}\n'
    line = (
        '{"style_name": "monet", "content_url": "s3://b/cat.png", '
        '"result_url": "s3://b/out/00001-cat.jpg"}'
    )
    assert read_json_lines(text, "monet", "s3://b/out") == [Row("s3://b/cat.png", line)]


# ---------------------------------------------------------------- test pictures


@pytest.mark.parametrize("progressive", [False, True])
def test_the_size_of_a_jpeg_is_read(progressive: bool) -> None:
    buffer = io.BytesIO()
    Picture.new("RGB", (384, 255)).save(buffer, "JPEG", progressive=progressive, exif=b"Exif  x")
    assert jpeg_size(buffer.getvalue()) == (384, 255)
    assert max(jpeg_size(CONTENT.read_bytes()) or (0, 0)) > max(PROOF_SIZES)


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\x00\x00" * 9]
)
def test_what_is_no_jpeg_has_no_size(data: bytes) -> None:
    assert jpeg_size(data) is None
