"""The bot's home: `up --bot fargate` and the others."""

import io
import json
import sys
from typing import Any

import boto3
import pytest

from tests.fakes import aws as fake
from tests.fakes import ecs
from tests.system.aws.helpers import TOKEN, Deploy, Wire, without_bucket

OTHER_TOKEN = TOKEN[:-1] + "2"
PARAMETER = "/telegram/stylebot-token"


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    """A token in the environment, and none of the bot's other settings."""
    for name in ("ADMINS", "ALLOWED_USERS", "DAILY_LIMIT", "STYLES", "SUPPORT", "TELEGRAM_API"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TELEGRAM_TOKEN", TOKEN)
    return TOKEN


def describe_container() -> dict[str, Any]:
    """Return the container of what the service runs."""
    definition = describe_definition()
    [container] = definition["containerDefinitions"]
    found: dict[str, Any] = container
    return found


def describe_definition() -> dict[str, Any]:
    client = boto3.client("ecs")
    arn = describe_service()["taskDefinition"]
    definition: dict[str, Any] = client.describe_task_definition(taskDefinition=arn)[
        "taskDefinition"
    ]
    return definition


def describe_service() -> dict[str, Any]:
    found = boto3.client("ecs").describe_services(cluster="stylebot-bot", services=["stylebot-bot"])
    service: dict[str, Any] = found["services"][0]
    return service


def environment_of(container: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["environment"]}


# ---------------------------------------------------------------- what it creates


@pytest.mark.usefixtures("pushed")
def test_one_command_leads_from_a_token_to_a_bot_that_runs(
    deploy: Deploy, token: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up", "--bot", "fargate") == 0
    printed = capfd.readouterr()
    assert token not in printed.out + printed.err
    assert "stylebot-bot: TELEGRAM_TOKEN: ok" in printed.err
    assert "the bot on Fargate: $6.64 a month" in printed.err
    assert "The bot runs on Fargate" in printed.err

    service = describe_service()
    assert service["runningCount"] == 1
    assert service["deploymentConfiguration"]["minimumHealthyPercent"] == 0
    assert service["deploymentConfiguration"]["maximumPercent"] == 100
    assert service["deploymentConfiguration"]["deploymentCircuitBreaker"]["enable"]
    assert service["availabilityZoneRebalancing"] == "DISABLED"
    [provider] = service["capacityProviderStrategy"]
    assert provider["capacityProvider"] == "FARGATE_SPOT"

    container = describe_container()
    assert "stylebot-bot@sha256:" in container["image"]
    assert environment_of(container) == {
        "AWS_DEFAULT_REGION": fake.REGION,
        "BUCKET": fake.BUCKET,
        "NST_ENDPOINT": "stylebot-nst",
        "CYCLEGAN_ENDPOINT": "stylebot-cyclegan",
        "DEPLOYMENT": "stylebot",
    }
    [secret] = container["secrets"]
    assert secret["valueFrom"].endswith(f":parameter{PARAMETER}")
    assert token not in json.dumps(describe_definition(), default=str)


@pytest.mark.usefixtures("pushed", "token")
def test_the_token_is_encrypted_and_nothing_reaches_the_bot(deploy: Deploy) -> None:
    assert deploy("up", "--bot", "fargate") == 0
    parameter = boto3.client("ssm").get_parameter(Name=PARAMETER, WithDecryption=True)["Parameter"]
    assert parameter["Type"] == "SecureString"
    assert parameter["Value"] == TOKEN

    network = describe_service()["networkConfiguration"]["awsvpcConfiguration"]
    [group] = boto3.client("ec2").describe_security_groups(GroupIds=network["securityGroups"])[
        "SecurityGroups"
    ]
    assert group["IpPermissions"] == []
    assert group["IpPermissionsEgress"] != []
    [log] = boto3.client("logs").describe_log_groups(logGroupNamePrefix="/ecs/")["logGroups"]
    assert log["retentionInDays"] == 30

    boundary = f"arn:aws:iam::{fake.ACCOUNT}:policy/stylebot-boundary-{fake.REGION}"
    definition = describe_definition()
    for arn in (definition["taskRoleArn"], definition["executionRoleArn"]):
        role = boto3.client("iam").get_role(RoleName=arn.rpartition("/")[2])["Role"]
        assert role["PermissionsBoundary"]["PermissionsBoundaryArn"] == boundary


@pytest.mark.usefixtures("pushed", "token")
def test_a_second_up_changes_nothing_and_needs_neither_option_nor_token(
    deploy: Deploy,
    wire: Wire,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert deploy("up", "--bot", "fargate") == 0
    before = fake.snapshot()
    monkeypatch.delenv("TELEGRAM_TOKEN")
    wire.calls.clear()
    assert deploy("up") == 0
    assert {call for call in wire.changes() if call.startswith(("ecs", "ssm", "ec2", "iam"))} == {
        "ecs:RunTask"
    }, "only the check"
    assert fake.snapshot() == before
    capfd.readouterr()
    assert deploy("up", "--bot", "fargate", "--plan") == 0
    assert "Nothing to change." in capfd.readouterr().out


@pytest.mark.usefixtures("pushed")
def test_a_plan_asks_nobody_and_makes_nothing(
    deploy: Deploy, wire: Wire, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TELEGRAM_TOKEN", raising=False)
    before = fake.snapshot()
    wire.calls.clear()
    assert deploy("up", "--bot", "fargate", "--plan") == 0
    printed = capfd.readouterr()
    assert wire.changes() == []
    assert fake.snapshot() == before
    planned = [line for line in printed.out.splitlines() if line.startswith("would ")]
    assert f"would store the bot's token in {PARAMETER}" in planned
    assert "would start the bot as the service stylebot-bot" in planned
    assert "the bot on Fargate: $6.64 a month" in printed.err

    monkeypatch.setenv("TELEGRAM_TOKEN", TOKEN)
    assert deploy("up", "--bot", "fargate") == 0
    done = set(capfd.readouterr().err.splitlines())
    expected = {line.removeprefix("would ") for line in planned} - {f"tag the bucket {fake.BUCKET}"}
    assert expected <= done, "what was planned was not done"


# ---------------------------------------------------------------- the token


@pytest.mark.usefixtures("pushed", "token")
def test_the_token_is_asked_for_without_echo_before_anything_is_made(
    deploy: Deploy, wire: Wire, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TELEGRAM_TOKEN")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    made_before: list[str] = []

    def answer(question: str) -> str:
        made_before.extend(wire.changes())
        return f" {TOKEN}\n"

    monkeypatch.setattr("getpass.getpass", answer)
    wire.calls.clear()
    assert deploy("up", "--bot", "fargate") == 0
    assert made_before == []
    printed = capfd.readouterr()
    assert TOKEN not in printed.out + printed.err


@pytest.mark.usefixtures("pushed", "token")
@pytest.mark.parametrize(("text", "code"), [(f"{TOKEN}\n", 0), ("", 1), ("123:secret-no-token", 1)])
def test_the_token_is_read_from_standard_input_where_there_is_no_terminal(
    text: str,
    code: int,
    deploy: Deploy,
    wire: Wire,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("TELEGRAM_TOKEN")
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    wire.calls.clear()
    assert deploy("up", "--bot", "fargate") == code
    if code:
        printed = capfd.readouterr().err
        assert "There is no token, or what was given is none" in printed
        assert "secret-no-token" not in printed
        assert wire.changes() == []


@pytest.mark.usefixtures("pushed", "token")
def test_another_token_replaces_the_first_and_restarts_the_bot(
    deploy: Deploy, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert deploy("up", "--bot", "fargate") == 0
    before = describe_service()["taskDefinition"]
    monkeypatch.setenv("TELEGRAM_TOKEN", OTHER_TOKEN)
    assert deploy("up") == 0
    parameter = boto3.client("ssm").get_parameter(Name=PARAMETER, WithDecryption=True)["Parameter"]
    assert parameter["Value"] == OTHER_TOKEN
    assert describe_service()["taskDefinition"] != before
    assert "ssm:GetParameter" not in wire.calls, "nothing reads it back"


# ---------------------------------------------------------------- updates


@pytest.mark.usefixtures("pushed", "token")
def test_an_update_never_runs_two_bots(deploy: Deploy) -> None:
    assert deploy("up", "--bot", "fargate") == 0
    old = describe_container()["image"]
    fake.push("bot", "def", content="new")
    assert deploy("up") == 0
    assert describe_container()["image"] != old
    assert describe_service()["runningCount"] == 1
    assert ecs.state.most_running == 1


@pytest.mark.usefixtures("pushed", "token")
def test_the_bots_settings_come_from_the_environment_and_are_kept(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADMINS", "12, 34")
    monkeypatch.setenv("DAILY_LIMIT", "20")
    assert deploy("up", "--bot", "fargate") == 0
    monkeypatch.delenv("ADMINS")
    monkeypatch.setenv("DAILY_LIMIT", "")
    assert deploy("up") == 0
    environment = environment_of(describe_container())
    assert environment["ADMINS"] == "12, 34"
    assert "DAILY_LIMIT" not in environment

    monkeypatch.setenv("ADMINS", "me")
    assert deploy("up") == 1
    assert "ADMINS is not whole numbers" in capfd.readouterr().err


@pytest.mark.usefixtures("pushed", "token")
def test_a_bot_that_would_not_work_does_not_replace_one_that_does(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up", "--bot", "fargate") == 0
    before = describe_service()["taskDefinition"]
    monkeypatch.setenv("TELEGRAM_TOKEN", OTHER_TOKEN)
    ecs.state.behaviour.check_lines[0] = "TELEGRAM_TOKEN: Unauthorized. What to do: set it"
    ecs.state.behaviour.check_exit_code = 1
    assert deploy("up") == 1
    printed = capfd.readouterr().err
    assert "The bot would not work: its check failed." in printed
    assert "TELEGRAM_TOKEN: Unauthorized" in printed
    assert describe_service()["taskDefinition"] == before


@pytest.mark.usefixtures("pushed", "token")
def test_a_role_that_aws_does_not_know_yet_gets_a_second_check(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    ecs.state.behaviour.checks_without_role = 1
    assert deploy("up", "--bot", "fargate") == 0
    assert "once more: AWS may not have known" in capfd.readouterr().err
    assert describe_service()["runningCount"] == 1


@pytest.mark.usefixtures("pushed", "token")
def test_a_task_that_does_not_start_is_explained(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    ecs.state.behaviour.check_failure = "CannotPullContainerError: i/o timeout"
    assert deploy("up", "--bot", "fargate") == 1
    printed = capfd.readouterr().err
    assert "CannotPullContainerError: i/o timeout" in printed
    assert "internet gateway" in printed

    ecs.state.behaviour.check_failure = ""
    ecs.state.behaviour.start_failure = "CannotPullContainerError: i/o timeout"
    assert deploy("up", "--bot", "fargate") == 1
    printed = capfd.readouterr().err
    assert "The bot does not start." in printed
    assert "circuit breaker" in printed
    assert "CannotPullContainerError: i/o timeout" in printed

    # ECS tries no more by itself, so the next up restarts it.
    ecs.state.behaviour.start_failure = ""
    assert deploy("up", "--bot", "fargate") == 0
    assert describe_service()["runningCount"] == 1


@pytest.mark.usefixtures("pushed", "token")
def test_an_update_that_does_not_start_is_rolled_back_and_named(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up", "--bot", "fargate") == 0
    old = describe_container()["image"]
    fake.push("bot", "def", content="new")
    ecs.state.behaviour.start_failure = "CannotPullContainerError: i/o timeout"
    assert deploy("up") == 1
    assert "was rolled back to what ran before" in capfd.readouterr().err
    assert describe_container()["image"] == old
    assert describe_service()["runningCount"] == 1


@pytest.mark.usefixtures("pushed", "token")
def test_without_a_default_vpc_the_line_that_makes_one_is_printed(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    ec2 = boto3.client("ec2")
    [vpc] = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    ec2.delete_vpc(VpcId=vpc["VpcId"])
    wire.calls.clear()
    assert deploy("up", "--bot", "fargate") == 1
    assert "create_default_vpc()" in capfd.readouterr().err
    assert wire.changes() == []


# ---------------------------------------------------------------- status


@pytest.mark.usefixtures("pushed", "token")
def test_status_tells_the_health_of_the_bot(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    def bot_lines(code: int) -> str:
        capfd.readouterr()
        assert deploy("status") == code
        return capfd.readouterr().out.partition("stylebot-bot: ")[2].partition("trainings:")[0]

    assert deploy("up") == 0
    assert bot_lines(0) == "", "there is none"
    assert deploy("up", "--bot", "fargate") == 0
    assert bot_lines(0) == "running, on Fargate\n  starts in the last 24 hours: 1\n"

    # It ends by itself and cannot start again.
    ecs.state.behaviour.start_failure = "CannotPullContainerError: i/o timeout"
    [task] = ecs.running_bots()
    ecs.stop_task(task, "Essential container in task exited", 1)
    for _ in range(20):
        describe_service()
    printed = bot_lines(1)
    assert printed.startswith("not running, on Fargate")
    assert "! ECS has given up to start it" in printed
    assert "UTC, CannotPullContainerError: i/o timeout" in printed

    ecs.state.behaviour.start_failure = ""
    assert deploy("up") == 0
    boto3.client("ssm").delete_parameter(Name=PARAMETER)
    assert "! its token is gone" in bot_lines(1)


# ---------------------------------------------------------------- the end


@pytest.mark.usefixtures("pushed", "token")
def test_down_takes_the_bot_and_its_token(deploy: Deploy) -> None:
    empty = fake.snapshot()
    assert deploy("up", "--bot", "fargate") == 0
    fake.push("bot", "def", content="new")
    assert deploy("up") == 0
    assert deploy("down", "--yes") == 0
    left = without_bucket(fake.snapshot())
    left["repositories"] = empty["repositories"]
    assert left == empty


@pytest.mark.usefixtures("pushed", "token")
def test_another_home_ends_the_bot_on_fargate(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up", "--bot", "fargate") == 0
    assert deploy("up", "--bot", "ec2") == 0
    assert "instance profile stylebot-bot" in capfd.readouterr().err
    assert ecs.snapshot() == {}
    assert boto3.client("ssm").describe_parameters()["Parameters"] == []
    profiles = boto3.client("iam").list_instance_profiles()["InstanceProfiles"]
    assert len(profiles) == 1


@pytest.mark.usefixtures("pushed", "token")
def test_down_leaves_a_bot_that_somebody_else_made(deploy: Deploy) -> None:
    boto3.client("ssm").put_parameter(Name=PARAMETER, Value=TOKEN, Type="SecureString")
    client = boto3.client("iam")
    client.create_service_linked_role(AWSServiceName="ecs.amazonaws.com")
    boto3.client("ecs").create_cluster(clusterName="stylebot-bot")
    before = ecs.snapshot()
    assert deploy("down", "--yes") == 0
    assert ecs.snapshot() == before
    assert len(boto3.client("ssm").describe_parameters()["Parameters"]) == 1
