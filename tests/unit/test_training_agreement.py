"""aws/ and the trainer's image agree, although neither can import the other."""

import json
import os
import re
from pathlib import Path
from unittest import mock

from aws import train, training_files, trainings
from aws.account import open_account
from aws.registry import Image
from containers.cyclegan.styles import NAME_PATTERN
from containers.cyclegan.training import options as trainer
from containers.cyclegan.training.command import CHANNELS
from containers.cyclegan.training.painter import MIN_PHOTOGRAPHS
from containers.cyclegan.training.pictures import SUFFIXES
from tests.fakes import aws as fake


def test_the_trainer_understands_the_job_that_is_started(tmp_path: Path) -> None:
    with fake.account() as url, mock.patch.dict(os.environ, fake.environment(url)):
        account = open_account("stylebot")
        template = trainings.describe_template(account, Image("image", 1.0), "ml.g4dn.xlarge")
        job = trainings.describe_job(
            account,
            template,
            "stylebot-train-klimt-1",
            "training/x/",
            "klimt",
            20.5,
            ["style"],
            "ml.g4dn.xlarge",
            spot=True,
        )
    (tmp_path / "00001.jpg").write_bytes(b"\xff\xd8\xff")
    given = trainer.from_hyperparameters(job["HyperParameters"], {"style": tmp_path}, tmp_path)
    assert given.name == "klimt"
    assert given.minutes == 20.5
    assert given.styles == [tmp_path / "00001.jpg"]
    assert given.models_url == f"s3://{fake.BUCKET}/models/"
    assert given.progress_url == f"s3://{fake.BUCKET}/training/x/progress.json"
    assert set(CHANNELS) == {"style", "photos", "paintings", "from"}


def test_names_limits_and_formats_are_the_same() -> None:
    assert NAME_PATTERN.pattern == train.NAME_PATTERN
    smallest, largest = train.MINUTES_RANGE
    assert trainer.MINUTES[0] <= smallest
    assert largest == trainer.MINUTES[1]
    assert trainer.Options.minutes == train.DEFAULT_MINUTES
    assert training_files.FEWEST_PICTURES == MIN_PHOTOGRAPHS
    assert {suffix for _, _, suffix in training_files.SIGNATURES} <= set(SUFFIXES)


def test_the_metric_is_found_in_the_trainers_log() -> None:
    [metric] = trainings.METRICS
    for loss in (1.25, 3e-05, 12345678.0):
        line = json.dumps({"event": "progress", "step": 5, "style": 0.5, "loss": loss})
        assert [float(found) for found in re.findall(metric["Regex"], line)] == [loss]
