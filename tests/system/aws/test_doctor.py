"""The command doctor: it walks from a fresh account to a bot."""

from itertools import pairwise

import pytest

from tests.fakes import aws as fake
from tests.system.aws.helpers import TOKEN, Deploy, Wire, push_images


def test_each_step_that_doctor_names_is_done_by_its_line(
    deploy: Deploy, wire: Wire, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def missing(code: int) -> dict[str, str]:
        """Return the commands that doctor prints, by the name of the step."""
        capfd.readouterr()
        wire.calls.clear()
        assert deploy("doctor") == code
        assert wire.changes() == []
        lines = capfd.readouterr().out.splitlines()
        found = {}
        for line, command in pairwise(lines):
            if line.startswith("! "):
                found[line[2:].partition(":")[0]] = command.strip()
        return found

    region = f"--region {fake.REGION}"
    fake.quotas["ml.g4dn.xlarge for endpoint usage"] = 0
    up = f"./deploy.py up --bot fargate {region}"
    assert missing(1) == {
        "quotas": f"./deploy.py up --request-quota {region}",
        "images in ECR": f"./build.sh --push {region}",
        "endpoints": up,
        "token of the bot": up,
        "bot": up,
    }

    fake.quotas.clear()
    assert deploy("repositories", "abc") == 0
    push_images()
    assert set(missing(1)) == {"endpoints", "token of the bot", "bot"}

    monkeypatch.setenv("TELEGRAM_TOKEN", TOKEN)
    assert deploy("up", "--bot", "fargate") == 0
    assert missing(0) == {}


def test_without_a_region_the_first_step_is_named(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("doctor", "--region", "nowhere-1") == 1
    printed = capfd.readouterr()
    assert "! credentials and region: There is no SageMaker in a region nowhere-1" in printed.out
    assert "Traceback" not in printed.out + printed.err


@pytest.mark.usefixtures("pushed")
def test_a_call_that_is_not_permitted_costs_one_step(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    wire.denied_before = "DescribeServices"
    assert deploy("doctor") == 1
    lines = capfd.readouterr().out.splitlines()
    assert any("not authorized to perform: DescribeServices" in line for line in lines)
    assert any(line.startswith("ok images in ECR") for line in lines)
