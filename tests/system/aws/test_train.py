"""The command train."""

import json
import re
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.sagemaker.models import sagemaker_backends

from aws.clock import Clock
from aws.command_line import main
from tests.fakes import aws as fake
from tests.fakes import training_jobs
from tests.system.aws.helpers import (
    BUCKET,
    STYLE,
    Deploy,
    KilledError,
    Wire,
    clear_and_push_images,
    list_keys,
    list_training_jobs,
)

JPEG = b"\xff\xd8\xff\xe0 picture"


@pytest.fixture
def up(pushed: None, deploy: Deploy, wire: Wire) -> None:
    """Both endpoints, and the template of trainings, since an hour."""
    assert deploy("up") == 0
    fake.let_time_pass(3600)
    wire.calls.clear()


def describe_job(name: str | None = None) -> dict[str, Any]:
    """Return the description of a training job; without a name, of the only one."""
    if name is None:
        [name] = list_training_jobs()
    job: dict[str, Any] = boto3.client("sagemaker").describe_training_job(TrainingJobName=name)
    return job


def catalog_names() -> list[str]:
    body = boto3.client("s3").get_object(Bucket=BUCKET, Key="models/catalog.json")["Body"].read()
    return [style["name"] for style in json.loads(body)["styles"]]


def write_pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(JPEG + bytes([number]))
    return folder


# ---------------------------------------------------------------- what it does


@pytest.mark.usefixtures("up")
def test_a_picture_becomes_a_painter_that_the_bot_offers(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("train", STYLE, "--name", "klimt", "--minutes", "30") == 0
    job = describe_job()
    name = job["TrainingJobName"]
    assert re.fullmatch(r"stylebot-train-klimt-[0-9a-f]{8}", name)
    folder = f"s3://{BUCKET}/training/{name}/"
    assert job["HyperParameters"] == {
        "name": "klimt",
        "minutes": "30",
        "models_url": f"s3://{BUCKET}/models/",
        "progress_url": f"{folder}progress.json",
    }
    [channel] = job["InputDataConfig"]
    assert channel["ChannelName"] == "style"
    assert channel["DataSource"]["S3DataSource"]["S3Uri"] == f"{folder}style/"
    assert job["OutputDataConfig"]["S3OutputPath"] == f"s3://{BUCKET}/training/"
    assert job["CheckpointConfig"]["S3Uri"] == f"{folder}checkpoints/"
    assert job["EnableManagedSpotTraining"]
    condition = job["StoppingCondition"]
    assert condition["MaxWaitTimeInSeconds"] >= condition["MaxRuntimeInSeconds"] > 30 * 60
    tags = boto3.client("sagemaker").list_tags(ResourceArn=job["TrainingJobArn"])["Tags"]
    assert {"Key": "stylebot", "Value": "stylebot"} in tags

    [key] = list_keys(f"training/{name}/style/")
    uploaded = boto3.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
    assert uploaded == Path(STYLE).read_bytes()
    assert key.endswith(".jpg")
    assert list_keys("models/style_") == ["models/style_klimt.pth"]
    assert catalog_names() == ["vintage", "klimt"]

    printed = capfd.readouterr().err
    before, after = printed.split(f"start the training {name}")
    assert "Estimate: $0.43 on demand, for 30 minutes of training" in before
    assert "it costs at most $0.74" in before
    assert "Spot" in before
    assert "prices vary" in before
    assert f"{name}: Downloading" in after
    assert re.search(r"Training, step \d+ of 400, loss [\d.]+, \d+ minutes left", after)
    assert "It ran for 25 minutes, of which 8 are billed: 70% saved by Spot. Cost: $0.09" in after
    assert "klimt can paint" in after


@pytest.mark.usefixtures("up")
def test_all_that_a_painter_can_learn_from_is_uploaded(deploy: Deploy, tmp_path: Path) -> None:
    photos = write_pictures(tmp_path / "photos", 11)
    (photos / "more").mkdir()
    (photos / "more" / "no_suffix").write_bytes(b"\x89PNG\r\n\x1a\n")
    (photos / ".hidden.jpg").write_bytes(JPEG)
    (photos / "list.txt").write_text("no picture")
    checkpoint = tmp_path / "style_old.pth"
    checkpoint.write_bytes(b"PK\x03\x04 tensors")
    options = ["--photos", str(photos), "--from", str(checkpoint), "--no-spot"]
    options += ["--instance-type", "ml.g5.xlarge"]
    assert deploy("train", STYLE, STYLE, "--name", "my_own-1", *options) == 0

    job = describe_job()
    assert {channel["ChannelName"] for channel in job["InputDataConfig"]} == {
        "style",
        "photos",
        "from",
    }
    folder = f"training/{job['TrainingJobName']}/"
    assert len(list_keys(f"{folder}style/")) == 2
    assert len(list_keys(f"{folder}photos/")) == 12
    assert list_keys(f"{folder}photos/")[-1].endswith("00012.png")
    assert list_keys(f"{folder}from/") == [f"{folder}from/painter.pth"]
    assert job["ResourceConfig"]["InstanceType"] == "ml.g5.xlarge"
    assert not job["EnableManagedSpotTraining"]
    assert list_keys("models/style_") == ["models/style_my_own-1.pth"]


@pytest.mark.usefixtures("up")
def test_a_collection_of_paintings_is_for_cyclegan(deploy: Deploy, tmp_path: Path) -> None:
    paintings = write_pictures(tmp_path / "paintings", 3)
    options = ["--paintings", str(paintings), "--minutes", "1440"]
    assert deploy("train", "--name", "klimt", *options) == 0
    [channel] = describe_job()["InputDataConfig"]
    assert channel["ChannelName"] == "paintings"


@pytest.mark.usefixtures("up")
def test_a_long_name_fits_into_sagemakers_and_stays_whole(deploy: Deploy) -> None:
    name = "a_" + "b" * 30
    assert deploy("train", STYLE, "--name", name) == 0
    assert len(describe_job()["TrainingJobName"]) <= 63
    assert list_keys("models/style_") == [f"models/style_{name}.pth"]


@pytest.mark.usefixtures("up")
def test_an_interruption_by_spot_is_told_and_survived(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    training_jobs.behaviour.interruptions = 2
    assert deploy("train", STYLE, "--name", "klimt") == 0
    printed = capfd.readouterr().err
    assert printed.count("Interrupted: AWS took the Spot instance back.") == 2
    assert list_keys("models/style_") == ["models/style_klimt.pth"]


@pytest.mark.usefixtures("up")
def test_a_trainer_that_cannot_use_the_gpu_is_told_while_it_can_be_stopped(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    warning = "There is an NVIDIA GPU, but PyTorch cannot use it"
    event = {"event": "training", "name": "klimt", "device": "CPU", "warning": warning}
    training_jobs.behaviour.log = ["loading", json.dumps(event)]
    assert deploy("train", STYLE, "--name", "klimt") == 0
    before, after = capfd.readouterr().err.split(warning)
    assert "does not use the GPU" in before
    assert "--stop stylebot-train-klimt-" in after


# ---------------------------------------------------------------- repetition


@pytest.mark.usefixtures("up")
def test_the_same_command_again_starts_no_second_job(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", STYLE, "--name", "klimt"]
    assert deploy(*arguments, "--no-wait") == 0
    [name] = list_training_jobs()
    assert f"--follow {name}" in capfd.readouterr().err
    assert deploy(*arguments) == 0
    assert "no other is started" in capfd.readouterr().err
    wire.calls.clear()
    assert deploy(*arguments) == 0
    assert wire.changes() == []
    assert list_training_jobs() == [name]


@pytest.mark.usefixtures("up")
def test_a_training_is_followed_by_its_name(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("train", STYLE, "--name", "klimt", "--no-wait") == 0
    [name] = list_training_jobs()
    assert deploy("train", "--follow", name) == 0
    assert "klimt can paint" in capfd.readouterr().err
    assert catalog_names() == ["vintage", "klimt"]


@pytest.mark.usefixtures("up")
def test_a_stopped_training_goes_on_from_its_checkpoints(deploy: Deploy) -> None:
    arguments = ["train", STYLE, "--name", "klimt"]
    assert deploy(*arguments, "--no-wait") == 0
    [first] = list_training_jobs()
    assert deploy("train", "--stop", first) == 0
    assert describe_job(first)["TrainingJobStatus"] == "Stopped"
    assert deploy("train", "--stop", first) == 0, "it is stopped already"

    assert deploy(*arguments) == 0
    assert list_training_jobs() == [first, f"{first}-2"]
    second = describe_job(f"{first}-2")
    assert second["CheckpointConfig"] == describe_job(first)["CheckpointConfig"]
    assert list_keys("models/style_") == ["models/style_klimt.pth"]


@pytest.mark.usefixtures("up")
def test_ctrl_c_leaves_the_job_running_and_says_how_to_follow_and_stop_it(
    session: boto3.Session, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    arguments = ["train", STYLE, "--name", "klimt"]
    assert main(arguments, session, Clock(sleep=interrupt)) == 130
    [name] = list_training_jobs()
    assert describe_job()["TrainingJobStatus"] == "InProgress"
    printed = capfd.readouterr().err
    assert f"./deploy.py train --region {fake.REGION} --prefix stylebot --follow {name}" in printed
    assert f"--stop {name}" in printed


def test_train_killed_after_any_change_and_run_again_gives_one_job_and_one_painter(
    url: str, deploy: Deploy, wire: Wire, tmp_path: Path
) -> None:
    photos = write_pictures(tmp_path / "photos", 3)
    arguments = ["train", STYLE, "--name", "klimt", "--photos", str(photos)]
    clear_and_push_images(url, wire, deploy)
    assert deploy("up") == 0
    for count in range(1, 100):
        forget_painters_and_trainings()
        wire.changes_made = 0
        wire.kill_after = count
        try:
            assert deploy(*arguments) == 0
            break
        except KilledError:
            wire.kill_after = None
        assert deploy(*arguments) == 0
        assert len(list_training_jobs()) == 1, f"killed after {count} changes"
        assert list_keys("models/style_") == ["models/style_klimt.pth"]
        assert catalog_names() == ["vintage", "klimt"], f"killed after {count} changes"

    assert count > 6
    assert len(list_training_jobs()) == 1


def forget_painters_and_trainings() -> None:
    sagemaker_backends[fake.ACCOUNT][fake.REGION].training_jobs.clear()
    for key in list_keys(""):
        if key != "models/training.json":
            boto3.client("s3").delete_object(Bucket=BUCKET, Key=key)


# ---------------------------------------------------------------- wrong requests


@pytest.mark.usefixtures("up")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([STYLE], "--name is missing"),
        ([STYLE, "--name", "Klimt"], "'Klimt' is no name for a painter"),
        (["--name", "klimt"], "Give one or more pictures of the style"),
        ([STYLE, "--name", "klimt", "--paintings", "."], "Give one or more pictures of the style"),
        (["--name", "klimt", "--paintings", "."], "Say how long it may take, such as --minutes"),
        (["nosuch.jpg", "--name", "klimt"], "nosuch.jpg cannot be read: No such file"),
        ([__file__, "--name", "klimt"], "test_train.py is no picture"),
        ([STYLE, "--name", "klimt", "--photos", STYLE], "is no folder"),
        (
            [STYLE, "--name", "klimt", "--photos", "locks"],
            "--photos locks has 0 pictures in it; a training needs at least 3",
        ),
        ([STYLE, "--name", "klimt", "--from", STYLE], "waves.jpg is no checkpoint"),
        ([STYLE, "--name", "klimt", "--minutes", "0"], "--minutes must be from 1 to 20160"),
        (
            [STYLE, "--name", "klimt", "--instance-type", "ml.g4dn.xlrge"],
            "such as ml.g4dn.xlarge",
        ),
        ([STYLE, "--name", "vintage"], "vintage is a style of the image itself"),
        (["--follow", "stylebot-train-nosuch"], "has no training stylebot-train-nosuch"),
        (["--stop", "mine"], "has no training mine"),
    ],
)
def test_a_wrong_request_is_reported_before_anything_is_spent(
    arguments: list[str],
    message: str,
    deploy: Deploy,
    wire: Wire,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(Path(STYLE).parents[2])
    assert deploy("train", *arguments) == 1
    assert message in capfd.readouterr().err
    assert wire.changes() == []


def test_without_a_deployment_it_says_what_to_do_first(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("train", STYLE, "--name", "klimt") == 1
    assert "Run this first: ./deploy.py up" in capfd.readouterr().err
    assert wire.changes() == []


@pytest.mark.usefixtures("up")
def test_an_image_that_is_gone_is_reported(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    boto3.client("ecr").batch_delete_image(
        repositoryName="stylebot-cyclegan", imageIds=[{"imageTag": "abc"}]
    )
    assert deploy("train", STYLE, "--name", "klimt") == 1
    assert "is no longer in ECR" in capfd.readouterr().err
    assert wire.changes() == []


@pytest.mark.usefixtures("up")
def test_a_name_that_is_taken_is_replaced_on_request_only(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("train", STYLE, "--name", "klimt") == 0
    wire.calls.clear()
    other = ["train", STYLE, "--name", "klimt", "--minutes", "5"]
    assert deploy(*other) == 1
    printed = capfd.readouterr().err
    assert "There is a painter klimt already" in printed
    assert "--replace" in printed
    assert wire.changes() == []
    assert deploy(*other, "--replace") == 0
    assert len(list_training_jobs()) == 2


@pytest.mark.usefixtures("up")
def test_two_trainings_of_one_name_at_the_same_time_are_refused(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("train", STYLE, "--name", "klimt", "--no-wait") == 0
    [running] = list_training_jobs()
    wire.calls.clear()
    assert deploy("train", STYLE, "--name", "klimt", "--minutes", "5", "--replace") == 1
    assert f"--stop {running}" in capfd.readouterr().err
    assert wire.changes() == []
    assert deploy("train", STYLE, "--name", "klimt2", "--no-wait") == 0


# ---------------------------------------------------------------- failures


@pytest.mark.usefixtures("up")
@pytest.mark.parametrize(
    ("options", "quota"),
    [
        ([], "ml.g4dn.xlarge for spot training job usage"),
        (["--no-spot"], "ml.g4dn.xlarge for training job usage"),
    ],
)
def test_a_quota_of_zero_is_reported_by_its_name(
    options: list[str], quota: str, deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    training_jobs.behaviour.quotas[quota] = 0
    arguments = ["train", STYLE, "--name", "klimt", *options]
    assert deploy(*arguments) == 1
    printed = capfd.readouterr().err
    assert f'Service Quotas > Amazon SageMaker > "{quota}"' in printed
    assert "Traceback" not in printed
    assert list_training_jobs() == []

    training_jobs.behaviour.quotas[quota] = 1
    assert deploy(*arguments) == 0


@pytest.mark.usefixtures("up")
def test_a_failed_training_prints_its_reason_its_log_and_its_cost(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    reason = "AlgorithmError: Not one photograph could be read., exit code: 1"
    training_jobs.behaviour.failure_reason = reason
    training_jobs.behaviour.log = ["loading", "the last line"]
    assert deploy("train", STYLE, "--name", "klimt") == 1
    printed = capfd.readouterr().err
    assert reason in printed
    assert "the last line" in printed
    assert "Cost: $0.09" in printed
    assert "Traceback" not in printed
    assert list_keys("models/style_") == []

    training_jobs.clear()
    assert deploy("train", STYLE, "--name", "klimt") == 0
    assert list_keys("models/style_") == ["models/style_klimt.pth"]


@pytest.mark.usefixtures("up")
def test_a_training_that_no_instance_could_run_says_what_to_do(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    training_jobs.behaviour.failure_reason = (
        "CapacityError: Unable to provision requested ML compute capacity. Please retry using a "
        "different ML instance type."
    )
    assert deploy("train", STYLE, "--name", "klimt") == 1
    printed = capfd.readouterr().err
    assert "(empty: the container did not start)" in printed
    assert "choose another --instance-type" in printed


@pytest.mark.usefixtures("up")
@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("MaxWaitTimeExceeded", "AWS had no Spot instance"),
        ("MaxRuntimeExceeded", "it took longer than its time limit"),
    ],
)
def test_a_training_that_ran_out_of_time_says_what_to_do(
    status: str, message: str, deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    training_jobs.behaviour.stop_status = status
    assert deploy("train", STYLE, "--name", "klimt") == 1
    printed = capfd.readouterr().err
    assert message in printed
    assert "goes on from its last checkpoint" in printed


@pytest.mark.usefixtures("up")
def test_a_completed_training_without_a_painter_is_no_success(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    training_jobs.behaviour.loses_painter = True
    assert deploy("train", STYLE, "--name", "klimt") == 1
    printed = capfd.readouterr().err
    assert "there is no painter of it" in printed
    assert "output/model.tar.gz" in printed


@pytest.mark.usefixtures("up")
def test_a_painter_waits_for_an_endpoint_that_does_not_exist(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("train", STYLE, "--name", "klimt", "--no-wait") == 0
    sagemaker = boto3.client("sagemaker")
    sagemaker.delete_endpoint(EndpointName="stylebot-cyclegan")
    while "stylebot-cyclegan" in [
        endpoint["EndpointName"] for endpoint in sagemaker.list_endpoints()["Endpoints"]
    ]:
        try:
            sagemaker.describe_endpoint(EndpointName="stylebot-cyclegan")
        except sagemaker.exceptions.ClientError:
            break
    assert deploy("train", STYLE, "--name", "klimt") == 0
    assert "./deploy.py up creates it" in capfd.readouterr().err
    assert deploy("up") == 0
    assert catalog_names() == ["vintage", "klimt"]
