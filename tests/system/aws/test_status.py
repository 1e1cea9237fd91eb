"""The command status."""

import re
import time

import boto3
import pytest

from tests.system.aws.helpers import STYLE, Deploy, write_log


@pytest.mark.usefixtures("pushed")
def test_status_prints_instances_backlog_image_and_errors(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("status") == 0
    printed = capfd.readouterr().out
    assert "stylebot-nst: does not exist. ./deploy.py up creates it." in printed

    assert deploy("up") == 0
    write_log(
        "stylebot-nst",
        '{"event": "request", "status": 200}',
        '{"error": "image_unreadable", "status": 422}',
    )
    put_backlog("stylebot-nst", 7.0)
    capfd.readouterr()
    assert deploy("status") == 0
    nst, cyclegan = capfd.readouterr().out.split("stylebot-cyclegan:")
    assert "stylebot-nst: InService, 1 instance (0 to 2) of ml.g4dn.xlarge" in nst
    assert "backlog: 7 pictures" in nst
    assert re.search(r"image: abc, pushed today, sha256:\w+", nst)
    assert "image_unreadable" in nst
    assert "last errors: none" in cyclegan


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
    assert re.search(r"trainings:\n  stylebot-train-mucha-\w{8}: Starting: Launching", printed)
    assert re.search(r"painters:\n  klimt: 0.0 MB, of \d{4}-", printed)


def put_backlog(endpoint: str, value: float) -> None:
    """Write the metric, as SageMaker does each minute."""
    point = {
        "MetricName": "ApproximateBacklogSize",
        "Dimensions": [{"Name": "EndpointName", "Value": endpoint}],
        "Value": value,
        "Timestamp": time.time() - 90,
    }
    boto3.client("cloudwatch").put_metric_data(Namespace="AWS/SageMaker", MetricData=[point])
