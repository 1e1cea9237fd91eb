"""The command status."""

import re
import time
from datetime import datetime, timedelta

import boto3
import pytest

from aws.status import measure_waits
from bot import MODELS
from tests.fakes import aws as fake
from tests.system.aws.helpers import BUCKET, STYLE, Deploy, Wire, write_log


@pytest.mark.usefixtures("pushed")
def test_status_prints_instances_backlog_image_and_errors(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("status") == 1
    printed = capfd.readouterr().out
    assert "! stylebot-nst: does not exist. ./deploy.py up creates it." in printed

    assert deploy("up") == 0
    write_log(
        "stylebot-nst",
        '{"event": "request", "status": 200}',
        '{"error": "image_unreadable", "status": 422}',
    )
    put_metric("stylebot-nst", "ApproximateBacklogSize", 7.0)
    capfd.readouterr()
    assert deploy("status") == 0
    nst, cyclegan = capfd.readouterr().out.split("stylebot-cyclegan:")
    types = "ml.g4dn.xlarge or ml.g6.xlarge or ml.g5.xlarge"
    assert "stylebot-nst: InService, 1 instance (1 ml.g4dn.xlarge)\n" in nst
    assert f"\n  instances: {types}, 0 to 2\n" in nst
    assert "backlog: 7 pictures" in nst
    assert re.search(r"image: abc, pushed today, sha256:\w+", nst)
    assert "image_unreadable" in nst
    assert "last errors: none" in cyclegan
    assert "Nothing is wrong." in cyclegan


@pytest.mark.usefixtures("pushed")
def test_status_lists_trainings_and_painters(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    capfd.readouterr()
    assert deploy("status") == 0
    printed = capfd.readouterr().out
    assert "trainings:\n  none is running" in printed
    assert "painters:\n  none but those of the image" in printed

    assert deploy("train", STYLE, "--name", "klimt") == 0
    assert deploy("train", STYLE, "--name", "mucha", "--no-wait") == 0
    capfd.readouterr()
    assert deploy("status") == 0
    printed = capfd.readouterr().out
    assert re.search(r"trainings:\n  stylebot-train-mucha-\w{8}: (Starting|Downloading): ", printed)
    assert re.search(r"painters:\n  klimt: 0.0 MB, of \d{4}-", printed)


@pytest.mark.usefixtures("pushed")
def test_status_is_a_health_check(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0

    def wrong_lines() -> list[str]:
        """Return the lines of status that say what is wrong."""
        capfd.readouterr()
        code = deploy("status")
        lines = capfd.readouterr().out.splitlines()
        wrong = [line.strip("! ") for line in lines if line.strip().startswith("!")]
        assert code == bool(wrong)
        return wrong

    assert wrong_lines() == []

    # Alarms: one is deleted, one has gone off.
    cloudwatch = boto3.client("cloudwatch")
    cloudwatch.delete_alarms(AlarmNames=["stylebot-nst-wake"])
    cloudwatch.set_alarm_state(
        AlarmName="stylebot-cyclegan-idle", StateValue="ALARM", StateReason="test"
    )
    [wake, idle] = wrong_lines()
    assert "up would set the alarm stylebot-nst-wake" in wake
    assert "no work for 3 hours" in idle
    assert "$17.66 a day (ml.g4dn.xlarge)" in idle
    assert deploy("up") == 0
    cloudwatch.set_alarm_state(
        AlarmName="stylebot-cyclegan-idle", StateValue="OK", StateReason="test"
    )

    # What somebody changed
    boto3.client("s3").delete_bucket_lifecycle(Bucket=BUCKET)
    [bucket] = wrong_lines()
    assert "up would let old objects" in bucket
    assert deploy("up") == 0

    # A call that is not permitted costs one line.
    wire.denied_before = "FilterLogEvents"
    lines = wrong_lines()
    assert len(lines) == len(MODELS)
    assert all("not authorized to perform: FilterLogEvents" in line for line in lines)
    wire.denied_before = None

    # Pictures
    put_metric("stylebot-nst", "ApproximateAgeOfOldestRequest", 3600.0)
    [age] = wrong_lines()
    assert "a picture has waited for 60 minutes" in age


def test_waking_is_measured_in_minutes_without_an_instance() -> None:
    start = datetime(2026, 1, 1)
    values = [0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0]
    points = [(start + timedelta(minutes=number), value) for number, value in enumerate(values)]
    assert measure_waits(points) == [3, 2]
    assert measure_waits([]) == []


def put_metric(endpoint: str, metric: str, value: float) -> None:
    """Write a metric, as SageMaker does each minute."""
    point = {
        "MetricName": metric,
        "Dimensions": [{"Name": "EndpointName", "Value": endpoint}],
        "Value": value,
        "Timestamp": time.time() - 90,
    }
    boto3.client("cloudwatch").put_metric_data(Namespace="AWS/SageMaker", MetricData=[point])


@pytest.mark.usefixtures("pushed")
def test_status_tells_who_is_told_of_alarms(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    assert deploy("status") == 0
    assert "nobody is told of alarms by e-mail" in capfd.readouterr().out

    assert deploy("up", "--notify", "vera@example.com", "--budget", "50") == 0
    assert deploy("status") == 1
    printed = capfd.readouterr().out
    assert "! vera@example.com is not told of alarms yet" in printed
    assert "budget: $50.00 a month" in printed

    assert deploy("up", "--notify", "vera@example.com") == 0
    assert "tell vera@example.com of alarms; AWS sends an e-mail" in capfd.readouterr().err

    fake.confirmed.add("vera@example.com")
    assert deploy("status") == 0
    assert "vera@example.com is told of alarms" in capfd.readouterr().out

    fake.unsubscribed.add("vera@example.com")
    assert deploy("status") == 0
    assert "nobody is told of alarms by e-mail" in capfd.readouterr().out

    boto3.client("cloudwatch").set_alarm_state(
        AlarmName="stylebot-bot-silent", StateValue="ALARM", StateReason="test"
    )
    assert deploy("status") == 0
    assert "If one runs, set DEPLOYMENT=stylebot" in capfd.readouterr().out

    heartbeat = {
        "MetricName": "Heartbeat",
        "Dimensions": [{"Name": "Deployment", "Value": "stylebot"}],
        "Value": 1.0,
        "Timestamp": time.time() - 3600,
    }
    boto3.client("cloudwatch").put_metric_data(Namespace="stylebot", MetricData=[heartbeat])
    assert deploy("status") == 1
    assert "! the bot has been silent for 15 minutes" in capfd.readouterr().out
