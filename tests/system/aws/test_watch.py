"""What people look at: logs, costs, the dashboard."""

import json
import re
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import boto3
import pytest

import bot
from aws.clock import Clock
from aws.command_line import main
from tests.fakes import aws as fake
from tests.system.aws.helpers import STYLE, Deploy, write_log

DASHBOARD = f"stylebot-{fake.REGION}"


def put_samples(
    namespace: str, metric: str, count: int, minutes_ago: int = 60, instance_type: str = ""
) -> None:
    """Write samples of a metric of the endpoint stylebot-nst, one a minute."""
    dimensions = [
        {"Name": "EndpointName", "Value": "stylebot-nst"},
        {"Name": "VariantName", "Value": "AllTraffic"},
    ]
    if instance_type:
        dimensions.append({"Name": "InstanceType", "Value": instance_type})
    points = []
    for number in range(count):
        points.append(
            {
                "MetricName": metric,
                "Dimensions": dimensions,
                "Value": 1.0,
                "Timestamp": time.time() - 60 * (minutes_ago - number % minutes_ago),
            }
        )
    boto3.client("cloudwatch").put_metric_data(Namespace=namespace, MetricData=points)


# ---------------------------------------------------------------- logs


@pytest.mark.usefixtures("pushed")
def test_logs_prints_the_lines_of_all_in_their_order(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    write_log("stylebot-nst", "first\x1b[2Jline", "third")
    capfd.readouterr()
    assert deploy("logs") == 0
    printed = capfd.readouterr()
    lines = printed.out.splitlines()
    assert [line[20:] for line in lines] == ["nst      first [2Jline", "nst      third"]
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d nst", lines[0])
    assert "There is no log group /ecs/stylebot-bot: the bot does not run on ECS" in printed.err

    assert deploy("logs", "cyclegan") == 0
    assert capfd.readouterr().out == ""
    assert deploy("logs", "bot") == 1
    assert "journalctl -u stylebot" in capfd.readouterr().err

    logs = boto3.client("logs")
    logs.create_log_group(logGroupName="/ecs/stylebot-bot")
    logs.create_log_stream(logGroupName="/ecs/stylebot-bot", logStreamName="bot/bot/1")
    event = {"timestamp": int(time.time() * 1000), "message": "updates=1"}
    logs.put_log_events(
        logGroupName="/ecs/stylebot-bot", logStreamName="bot/bot/1", logEvents=[event]
    )
    assert deploy("logs", "bot") == 0
    assert capfd.readouterr().out.endswith(" bot updates=1\n")


@pytest.mark.usefixtures("pushed")
def test_logs_goes_back_as_far_as_it_is_told(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    group = "/aws/sagemaker/Endpoints/stylebot-nst"
    logs = boto3.client("logs")
    logs.create_log_stream(logGroupName=group, logStreamName="AllTraffic/i-1")
    hour = 3_600_000
    now = int(time.time() * 1000)
    events = [
        {"timestamp": now - 3 * hour, "message": "old"},
        {"timestamp": now - 1000, "message": "new"},
    ]
    logs.put_log_events(logGroupName=group, logStreamName="AllTraffic/i-1", logEvents=events)

    capfd.readouterr()
    assert deploy("logs", "nst") == 0
    assert "old" not in capfd.readouterr().out
    assert deploy("logs", "nst", "--since", "1d") == 0
    assert re.findall(r"old|new", capfd.readouterr().out) == ["old", "new"]


@pytest.mark.usefixtures("pushed")
def test_logs_follows_until_ctrl_c_and_prints_each_line_once(
    deploy: Deploy, session: boto3.Session, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    write_log("stylebot-nst", "one")
    logs = boto3.client("logs")
    waits = 0

    def sleep(seconds: float) -> None:
        """Let the container write a line between two looks; the third wait is interrupted."""
        nonlocal waits
        waits += 1
        if waits == 3:
            raise KeyboardInterrupt
        logs.put_log_events(
            logGroupName="/aws/sagemaker/Endpoints/stylebot-nst",
            logStreamName="AllTraffic/i-1",
            logEvents=[{"timestamp": int(time.time() * 1000), "message": f"later {waits}"}],
        )

    capfd.readouterr()
    assert main(["logs", "nst", "--follow"], session, Clock(sleep=sleep)) == 130
    said = [line.split("nst ")[1] for line in capfd.readouterr().out.splitlines()]
    assert said == ["one", "later 1", "later 2"]


@pytest.mark.parametrize("since", ["1", "h", "-1h", "1w", "1 h"])
def test_what_is_no_time_is_refused(since: str, deploy: Deploy) -> None:
    with pytest.raises(SystemExit):
        deploy("logs", f"--since={since}")


# ---------------------------------------------------------------- cost


@pytest.mark.usefixtures("pushed")
def test_cost_counts_the_hours_of_instances_and_the_pictures(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    put_samples("/aws/sagemaker/Endpoints", "CPUUtilization", 60)
    assert deploy("cost") == 0
    printed = capfd.readouterr().out
    assert "stylebot-nst, which does not exist" in printed, "but it may have been there"
    assert "  together    1.0 hours, 0 pictures" in printed
    assert "stylebot-cyclegan, which does not exist" in printed

    assert deploy("up", "--instance-type", "ml.g4dn.xlarge") == 0
    # With those from above two instances for an hour
    put_samples("/aws/sagemaker/Endpoints", "CPUUtilization", 60)
    put_samples("AWS/SageMaker", "InvocationsProcessed", 40)
    assert deploy("train", STYLE, "--name", "klimt") == 0
    capfd.readouterr()
    assert deploy("cost") == 0
    printed = capfd.readouterr().out
    assert "stylebot-nst, on ml.g4dn.xlarge at $0.736 an hour:" in printed
    assert re.search(r"  together    2\.0 hours, \$1\.47, 40 pictures, \$0\.037 each", printed)
    assert "stylebot-cyclegan, on ml.g4dn.xlarge at $0.736 an hour:\n  no instance" in printed
    assert "trainings: 1, $0.09" in printed
    assert "together: $1.56" in printed
    assert "Estimate for 7 days" in printed


@pytest.mark.usefixtures("pushed")
def test_cost_tells_the_hours_of_each_type_and_a_range_for_the_others(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    capfd.readouterr()
    put_samples("/aws/sagemaker/Endpoints", "CPUUtilization", 60)
    assert deploy("cost") == 0
    printed = capfd.readouterr().out
    assert "on ml.g4dn.xlarge at $0.736 an hour or ml.g6.xlarge at $1.127 an hour or" in printed
    assert "  together    1.0 hours, $0.74 to $1.41, 0 pictures\n" in printed
    assert "together: $0.74 to $1.41\n" in printed

    # Half of the same hour was on a type of which CloudWatch tells.
    put_samples("/aws/sagemaker/Endpoints", "CPUUtilization", 30, instance_type="ml.g6.xlarge")
    assert deploy("cost") == 0
    printed = capfd.readouterr().out
    assert "  together    1.0 hours (0.5 on ml.g6.xlarge), $0.93 to $1.27, 0 pictures\n" in printed

    put_samples("/aws/sagemaker/Endpoints", "CPUUtilization", 30, instance_type="ml.g4dn.xlarge")
    put_samples("AWS/SageMaker", "InvocationsProcessed", 10)
    assert deploy("cost") == 0
    printed = capfd.readouterr().out
    hours = "1.0 hours (0.5 on ml.g4dn.xlarge, 0.5 on ml.g6.xlarge)"
    assert f"  together    {hours}, $0.93, 10 pictures, $0.093 each\n" in printed


@pytest.mark.usefixtures("pushed")
def test_cost_does_not_guess_a_price(deploy: Deploy, capfd: pytest.CaptureFixture[str]) -> None:
    assert deploy("up", "--instance-type", "ml.g6e.xlarge") == 0
    put_samples("/aws/sagemaker/Endpoints", "CPUUtilization", 60)
    capfd.readouterr()
    assert deploy("cost") == 0
    printed = capfd.readouterr().out
    assert "on ml.g6e.xlarge, whose price is not known here" in printed
    assert "  together    1.0 hours, 0 pictures\n" in printed


@pytest.mark.parametrize("days", ["0", "61", "-1", "a"])
def test_what_is_no_number_of_days_is_refused(days: str, deploy: Deploy) -> None:
    with pytest.raises(SystemExit):
        deploy("cost", f"--days={days}")


# ---------------------------------------------------------------- the dashboard


def read_dashboard() -> dict[str, Any]:
    body = boto3.client("cloudwatch").get_dashboard(DashboardName=DASHBOARD)["DashboardBody"]
    dashboard: dict[str, Any] = json.loads(body)
    return dashboard


@pytest.mark.usefixtures("pushed")
def test_up_draws_a_dashboard(deploy: Deploy, capfd: pytest.CaptureFixture[str]) -> None:
    assert deploy("up") == 0
    widgets = read_dashboard()["widgets"]
    titles = [widget["properties"]["title"] for widget in widgets]
    for word in ("Requests", "Seconds", "Waiting", "Instances", "Errors", "Dollars"):
        assert any(title.startswith(word) for title in titles), word
    text = json.dumps(widgets)
    assert "FILL(m0_0, 0) / 60 * 0.736 + FILL(m0_1, 0) / 60 * 1.127" in text
    of_type = ["VariantName", "AllTraffic", "InstanceType", "ml.g6.xlarge"]
    assert json.dumps(of_type).strip("[]") in text
    # What it shows exists
    [alarms] = [widget["properties"]["alarms"] for widget in widgets if widget["type"] == "alarm"]
    found = boto3.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert set(alarms) <= {alarm["AlarmArn"] for alarm in found}

    capfd.readouterr()
    assert deploy("up", "--plan") == 0
    assert "Nothing to change." in capfd.readouterr().out
    assert deploy("up", "--instance-type", "ml.g5.xlarge") == 0
    assert "FILL(m0_0, 0) / 60 * 1.408" in json.dumps(read_dashboard())

    assert deploy("status") == 0
    assert f"#dashboards/dashboard/{DASHBOARD}" in capfd.readouterr().out
    boto3.client("cloudwatch").delete_dashboards(DashboardNames=[DASHBOARD])
    assert deploy("status") == 1
    assert "! missing; ./deploy.py up creates it" in capfd.readouterr().out


@pytest.mark.usefixtures("pushed")
def test_down_leaves_a_dashboard_of_somebody_else(deploy: Deploy) -> None:
    cloudwatch = boto3.client("cloudwatch")
    cloudwatch.put_dashboard(DashboardName=DASHBOARD, DashboardBody='{"widgets": []}')
    assert deploy("down", "--yes") == 0
    assert read_dashboard() == {"widgets": []}


# ---------------------------------------------------------------- the bot's side


@pytest.mark.usefixtures("pushed")
def test_the_bot_and_deploy_mean_the_same_alarms_and_the_same_heartbeat(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    printed = capfd.readouterr().out
    environment = dict(line.split("=") for line in printed.splitlines() if "=" in line)
    environment["TELEGRAM_TOKEN"] = "42:token"
    monitor = bot.connect(bot.read_config(environment)).monitor
    assert monitor is not None

    cloudwatch = boto3.client("cloudwatch")
    assert monitor.find_alarms() == []
    for name in ("stylebot-nst-failing", "stylebot-cyclegan-idle", "stylebot-nst-wake"):
        cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="test")
    assert monitor.find_alarms() == ["stylebot-cyclegan-idle", "stylebot-nst-failing"]

    monitor.beat()
    [alarm] = cloudwatch.describe_alarms(AlarmNames=["stylebot-bot-silent"])["MetricAlarms"]
    now = datetime.now(timezone.utc)
    [point] = cloudwatch.get_metric_statistics(
        Namespace=alarm["Namespace"],
        MetricName=alarm["MetricName"],
        Dimensions=alarm["Dimensions"],
        StartTime=now - timedelta(minutes=5),
        EndTime=now + timedelta(minutes=5),
        Period=3600,
        Statistics=[alarm["Statistic"]],
    )["Datapoints"]
    assert point[alarm["Statistic"]] >= alarm["Threshold"]
