"""The training jobs of sagemaker_local as boto3 sees them, killed at any moment."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from local.processes import free_port
from local.seaweedfs import s3_client
from local.stack import url_problem
from sagemaker_local.s3 import S3Client, create_s3_client
from sagemaker_local.trainer import TrainerSettings, Training, TrainingError, relative_name
from sagemaker_local.training import TrainingJob, TrainingJobs
from tests.fakes.servers import ROOT, wait_until
from tests.fakes.storage import running_storage

Json = Any  # what boto3 makes at run time
BUCKET = "tests"
TRAINER = (sys.executable, "-m", "tests.fakes.trainer")
SEED = 20261126
KILLS = 4
ENDED = ("Completed", "Failed", "Stopped")


class Sagemaker:
    """sagemaker_local with training jobs only, which can be killed."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.environment = environment
        self.log = folder / "log"
        self.folder = folder / "training"
        port = free_port()
        trainer = " ".join(TRAINER)
        self.command = [sys.executable, "-m", "sagemaker_local", f"--port={port}"]
        self.command += [f"--output=s3://{BUCKET}/async/output", f"--training={self.folder}"]
        self.command += [f"--trainer={trainer}", "--checkpoint-seconds=0.1"]
        self.s3 = s3_client(environment)
        self.url = f"http://127.0.0.1:{port}"
        self.client = self.make_client(self.url)

    def make_client(self, url: str) -> Json:
        """Return a client that sends even what botocore knows to be wrong."""
        return boto3.client(
            "sagemaker",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
            config=Config(parameter_validation=False, retries={"total_max_attempts": 8}),
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=self.environment, stdout=log, stderr=log
            )
        wait_until(lambda: not url_problem(self.url, "/endpoints"), 60, "it does not come up")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def arguments(self, name: str, **changes: Json) -> dict[str, Any]:
        """Return those of a job with one picture. A change to None leaves a member out."""
        self.s3.put_object(Bucket=BUCKET, Key=f"training/{name}/style/0.jpg", Body=b"a painting")
        arguments = {
            "TrainingJobName": name,
            "HyperParameters": {"name": "klimt"},
            "AlgorithmSpecification": {
                "TrainingImage": "stylebot-cyclegan",
                "TrainingInputMode": "File",
            },
            "RoleArn": "arn:aws:iam::000000000000:role/stylebot",
            "InputDataConfig": [channel("style", f"s3://{BUCKET}/training/{name}/style/")],
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/training/"},
            "CheckpointConfig": {"S3Uri": f"s3://{BUCKET}/training/{name}/checkpoints/"},
            "ResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 1,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        }
        arguments |= changes
        return {name: value for name, value in arguments.items() if value is not None}

    def train(self, name: str, **given: object) -> None:
        """Create a job with these hyperparameters."""
        texts = {key: str(value) for key, value in given.items()}
        arguments = self.arguments(name, HyperParameters={"name": "klimt", **texts})
        answer = self.client.create_training_job(**arguments)
        assert answer["TrainingJobArn"].endswith(f":training-job/{name}")

    def describe(self, name: str) -> dict[str, Any]:
        job: dict[str, Any] = self.client.describe_training_job(TrainingJobName=name)
        return job

    def is_in(self, name: str, secondary: str) -> bool:
        return bool(self.describe(name)["SecondaryStatus"] == secondary)

    def ends(self, name: str) -> dict[str, Any]:
        """Wait until the job has ended. Return its description."""
        wait_until(
            lambda: self.describe(name)["TrainingJobStatus"] in ENDED,
            60,
            f"{name} does not end: {self.log.read_text()}",
        )
        return self.describe(name)

    def model(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return what the fake trainer has told in its model."""
        url: str = job["ModelArtifacts"]["S3ModelArtifacts"]
        name = job["TrainingJobName"]
        assert url == f"s3://{BUCKET}/training/{name}/output/model.tar.gz"
        key = url.removeprefix(f"s3://{BUCKET}/")
        data = self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            file = archive.extractfile("style_klimt.pth")
            assert file
            told: dict[str, Any] = json.loads(file.read())
        return told

    def saved_step(self, name: str) -> int:
        """Return the step of the checkpoint in S3; 0 where there is none."""
        key = f"training/{name}/checkpoints/.training-it/step"
        try:
            return int(self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
        except ClientError:
            return 0


def channel(name: str, url: str, **source: str) -> dict[str, Any]:
    s3_source = {"S3DataType": "S3Prefix", "S3Uri": url, **source}
    return {"ChannelName": name, "DataSource": {"S3DataSource": s3_source}}


def trainers() -> list[int]:
    """Return the process numbers of the fake trainers that run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"tests.fakes.trainer" in command and b"--trainer" not in command:
            found.append(int(folder.name))
    return found


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run a SeaweedFS. Return the environment of a process that finds it as S3."""
    with running_storage(tmp_path_factory.mktemp("s3")) as found:
        wait_until(lambda: has_bucket(found), 60, "SeaweedFS takes no bucket")
        yield found


def has_bucket(environment: dict[str, str]) -> bool:
    try:
        s3_client(environment).create_bucket(Bucket=BUCKET)
    except Exception:
        return False
    return True


@pytest.fixture(scope="module")
def sagemaker(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sagemaker]:
    running = Sagemaker(environment, tmp_path_factory.mktemp("sagemaker"))
    running.start()
    try:
        yield running
    finally:
        running.process.terminate()
        running.process.wait(30)


def stored_job(name: str, **changes: Json) -> bytes:
    arguments = {
        "TrainingJobName": name,
        "AlgorithmSpecification": {"TrainingImage": "x", "TrainingInputMode": "File"},
        "RoleArn": "arn:aws:iam::000000000000:role/stylebot",
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/training/"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }
    start = {"Status": "Starting", "StartTime": 1.0, "StatusMessage": ""}
    job = {"arguments": arguments, "status": "Failed", "transitions": [start], "created": 1.0}
    return json.dumps(job | changes).encode()


POISON = {
    "garbage.json": b"\xff\x00",
    "deep.json": b"[" * 100_000,
    "inside.json": b'{"arguments": {"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "huge.json": stored_job("huge", failure_reason="x" * 20_000_000),
    "no-transition.json": stored_job("no-transition", transitions=[]),
    "no-status.json": stored_job("no-status", transitions=[{"StartTime": 1.0}]),
    "unknown-status.json": stored_job("unknown-status", status="Sleeping"),
    # boto3 reads no such time, and so could list no job at all.
    "far-future.json": stored_job("far-future", created=1e300),
    "no-arguments.json": stored_job("no-arguments", arguments={}),
    "wrong-type.json": stored_job("wrong-type", arguments=[]),
    "another-name.json": stored_job("stored"),
    "odd ?#%+\u2028": b"{}",
}


def test_what_is_unreadable_among_the_jobs_is_moved_aside_and_the_rest_goes_on(
    environment: dict[str, str], tmp_path: Path
) -> None:
    sagemaker = Sagemaker(environment, tmp_path)
    for name, data in (*POISON.items(), ("stored.json", stored_job("stored"))):
        key = f"sagemaker/training/{name}"
        sagemaker.s3.put_object(Bucket=BUCKET, Key=key, Body=data)
    sagemaker.start()
    try:
        sagemaker.train("after-poison", steps=1)
        assert sagemaker.ends("after-poison")["TrainingJobStatus"] == "Completed"
        listed = sagemaker.client.list_training_jobs()["TrainingJobSummaries"]
        assert {job["TrainingJobName"] for job in listed} == {"stored", "after-poison"}
        assert sagemaker.describe("stored")["TrainingJobStatus"] == "Failed"
        for name, data in POISON.items():
            key = f"quarantine/sagemaker/training/{name}"
            kept = sagemaker.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            assert kept == data, f"{name} is lost"
        log = sagemaker.log.read_text()
        assert f"{len(POISON)} unreadable objects below s3://{BUCKET}/sagemaker/training/" in log
    finally:
        sagemaker.kill()
        for name in ("stored", "after-poison"):
            sagemaker.s3.delete_object(Bucket=BUCKET, Key=f"sagemaker/training/{name}.json")


def test_an_output_that_no_bucket_can_have_is_a_failure_and_stops_nothing(
    sagemaker: Sagemaker,
) -> None:
    arguments = sagemaker.arguments("nowhere")
    arguments["OutputDataConfig"] = {"S3OutputPath": "s3://A b/training/"}
    sagemaker.client.create_training_job(**arguments)
    job = sagemaker.ends("nowhere")
    assert job["TrainingJobStatus"] == "Failed"
    assert "there can be no such bucket" in job["FailureReason"]
    sagemaker.train("after-nowhere", steps=1)
    assert sagemaker.ends("after-nowhere")["TrainingJobStatus"] == "Completed"


def test_a_job_trains_and_leaves_its_model_and_its_checkpoints(sagemaker: Sagemaker) -> None:
    sagemaker.train("first", steps=3)
    job = sagemaker.ends("first")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Completed", "Completed")
    told = sagemaker.model(job)
    assert told["job"] == "first"
    assert told["niceness"] >= 10
    assert set(told["seen"]) == {
        "input/config/hyperparameters.json",
        "input/config/inputdataconfig.json",
        "input/config/resourceconfig.json",
        "input/data/style/0.jpg",
    }
    assert sagemaker.saved_step("first") == 3
    statuses = [change["Status"] for change in job["SecondaryStatusTransitions"]]
    assert statuses == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert job["HyperParameters"]["name"] == "klimt"
    assert job["CreationTime"] <= job["TrainingStartTime"] <= job["TrainingEndTime"]
    wait_until(lambda: not (sagemaker.folder / "first").exists(), 5, "its folder stays")
    assert (sagemaker.folder / "first.log").exists()


def test_what_boto3_waits_for(sagemaker: Sagemaker) -> None:
    sagemaker.train("awaited")
    waiter = sagemaker.client.get_waiter("training_job_completed_or_stopped")
    waiter.wait(TrainingJobName="awaited", WaiterConfig={"Delay": 1, "MaxAttempts": 60})


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"fail": "The painting is too dark."}, "AlgorithmError: The painting is too dark."),
        ({"exit": 3}, "AlgorithmError: the last words, exit code: 3"),
        ({"fail": "x" * 2000}, ", exit code: 1"),
    ],
)
def test_a_failure_tells_what_the_trainer_said(
    sagemaker: Sagemaker, given: dict[str, object], reason: str
) -> None:
    name = f"failing-{random.randrange(10**9)}"
    sagemaker.train(name, **given)
    job = sagemaker.ends(name)
    assert job["TrainingJobStatus"] == "Failed"
    assert reason in job["FailureReason"]
    assert len(job["FailureReason"]) <= 1024
    assert "ModelArtifacts" not in job


def test_one_trains_and_the_others_wait_in_order_and_each_can_be_stopped(
    sagemaker: Sagemaker,
) -> None:
    for name in ("long", "second", "third"):
        sagemaker.train(name, steps=600, step_seconds=0.1)
    wait_until(lambda: sagemaker.is_in("long", "Training"), 30, "it does not train")
    waiting = sagemaker.describe("second")
    assert (waiting["TrainingJobStatus"], waiting["SecondaryStatus"]) == ("InProgress", "Starting")
    listed = sagemaker.client.list_training_jobs(StatusEquals="InProgress")
    names = [job["TrainingJobName"] for job in listed["TrainingJobSummaries"]]
    assert names == ["long", "second", "third"]

    sagemaker.client.stop_training_job(TrainingJobName="second")
    assert sagemaker.describe("second")["TrainingJobStatus"] == "Stopped"
    wait_until(lambda: sagemaker.saved_step("long") > 0, 30, "no checkpoint was put into S3")
    sagemaker.client.stop_training_job(TrainingJobName="long")
    job = sagemaker.ends("long")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert "saved and stopped" in (sagemaker.folder / "long.log").read_text()
    wait_until(lambda: sagemaker.is_in("third", "Training"), 30, "the third does not train")
    sagemaker.client.stop_training_job(TrainingJobName="third")
    sagemaker.ends("third")


def test_the_longest_time_is_kept(sagemaker: Sagemaker) -> None:
    arguments = sagemaker.arguments(
        "slow",
        HyperParameters={"steps": "600", "step_seconds": "0.1"},
        StoppingCondition={"MaxRuntimeInSeconds": 1},
    )
    sagemaker.client.create_training_job(**arguments)
    job = sagemaker.ends("slow")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def error_of(call: Json, **arguments: Json) -> tuple[str, str]:
    """Return the code and the message of the error that the call raises."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"TrainingJobName": "a_b"}, "'trainingJobName' failed to satisfy constraint: Member must"),
        ({"TrainingJobName": "x" * 64}, "length less than or equal to 63"),
        ({"RoleArn": None}, "'roleArn' failed to satisfy constraint: Member must not be null"),
        ({"RoleArn": "somebody-or-other-else"}, "satisfy regular expression pattern: arn:aws"),
        ({"ResourceConfig": None}, "'resourceConfig' failed"),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 0}}, "'stoppingCondition.maxRuntimeInSec"),
        (
            {"AlgorithmSpecification": {"TrainingImage": "x", "TrainingInputMode": "Tape"}},
            "satisfy enum value set: [Pipe, File, FastFile]",
        ),
        (
            {"AlgorithmSpecification": {"TrainingImage": "x", "TrainingInputMode": "Pipe"}},
            "TrainingInputMode Pipe is not supported",
        ),
        ({"InputDataConfig": [{"ChannelName": "style"}]}, "'inputDataConfig.1.member.dataSource'"),
        ({"InputDataConfig": []}, "'inputDataConfig' failed to satisfy constraint"),
        (
            {"InputDataConfig": [channel("style", "s3://tests/nothing/here/")]},
            'No S3 objects found under S3 URL "s3://tests/nothing/here/"',
        ),
        (
            {"InputDataConfig": [channel("style", "s3://no-such-bucket/x")]},
            "No S3 objects found under S3 URL",
        ),
        ({"HyperParameters": {"x": "y" * 2501}}, "'hyperParameters.x.member' failed"),
        ({"OutputDataConfig": {"S3OutputPath": "https://b/k"}}, "a location in S3"),
        ({"EnableManagedSpotTraining": True}, "Invalid MaxWaitTimeInSeconds"),
    ],
)
def test_a_call_that_is_wrong(sagemaker: Sagemaker, changes: dict[str, Any], said: str) -> None:
    arguments = sagemaker.arguments("wrong", **changes)
    code, message = error_of(sagemaker.client.create_training_job, **arguments)
    assert code == "ValidationException"
    assert said in message
    listed = sagemaker.client.list_training_jobs(NameContains="wrong")
    assert listed["TrainingJobSummaries"] == []


def test_a_member_of_the_wrong_type_is_a_serialization_exception(sagemaker: Sagemaker) -> None:
    arguments = sagemaker.arguments("typed", EnableManagedSpotTraining="yes")
    code, message = error_of(sagemaker.client.create_training_job, **arguments)
    assert (code, "'enableManagedSpotTraining'" in message) == ("SerializationException", True)


def test_a_name_that_is_taken_an_unknown_one_and_one_that_has_ended(sagemaker: Sagemaker) -> None:
    sagemaker.train("taken")
    arguments = sagemaker.arguments("taken")
    assert error_of(sagemaker.client.create_training_job, **arguments)[0] == "ResourceInUse"
    for call in (sagemaker.client.describe_training_job, sagemaker.client.stop_training_job):
        code, message = error_of(call, TrainingJobName="nobody")
        assert (code, message) == ("ValidationException", "Requested resource not found.")
    sagemaker.ends("taken")
    code, message = error_of(sagemaker.client.stop_training_job, TrainingJobName="taken")
    assert code == "ValidationException"
    assert message.endswith("the training job is in status Completed.")


def test_other_calls_of_the_control_plane_are_refused(sagemaker: Sagemaker) -> None:
    code, message = error_of(sagemaker.client.list_notebook_instances)
    assert (code, "ListNotebookInstances" in message) == ("UnknownOperationException", True)


def test_the_list_comes_in_pages_in_the_order_that_is_asked_for(sagemaker: Sagemaker) -> None:
    for number in range(3):
        sagemaker.train(f"page-{number}")
    sagemaker.ends("page-2")
    pages = sagemaker.client.get_paginator("list_training_jobs").paginate(
        NameContains="page-", SortBy="Name", SortOrder="Descending", MaxResults=2
    )
    names = [[job["TrainingJobName"] for job in page["TrainingJobSummaries"]] for page in pages]
    assert names == [["page-2", "page-1"], ["page-0"]]
    code, _ = error_of(sagemaker.client.list_training_jobs, NextToken="x")
    assert code == "ValidationException"


# ---------------------------------------------------------------- killed


def test_a_training_goes_on_after_kills_of_everything(
    environment: dict[str, str], tmp_path: Path
) -> None:
    dice = random.Random(SEED)
    sagemaker = Sagemaker(environment, tmp_path)
    sagemaker.start()
    others = set(trainers())
    try:
        sagemaker.train("killed", steps=60, step_seconds=0.1)
        saved = 0
        for number in range(KILLS):
            wait_until(
                lambda: sagemaker.saved_step("killed") > saved,  # noqa: B023 - called at once
                30,
                f"it does not go on: {sagemaker.log.read_text()}",
            )
            saved = sagemaker.saved_step("killed")
            time.sleep(dice.uniform(0, 0.5))
            sagemaker.kill()
            if number % 2:
                for trainer in set(trainers()) - others:
                    os.kill(trainer, 9)
            sagemaker.start()
            wait_until(lambda: sagemaker.is_in("killed", "Training"), 30, "it does not train")
            assert len(set(trainers()) - others) <= 1, "the trainer that was left still runs"
        job = sagemaker.ends("killed")
        assert job["TrainingJobStatus"] == "Completed"
        assert sagemaker.model(job)["began_at"] >= saved > 0
    finally:
        sagemaker.kill()


def test_a_stop_of_the_program_lets_the_trainer_save_and_the_next_start_goes_on(
    environment: dict[str, str], tmp_path: Path
) -> None:
    sagemaker = Sagemaker(environment, tmp_path)
    sagemaker.command[-1] = "--checkpoint-seconds=600"
    sagemaker.start()
    try:
        sagemaker.train("paused", steps=20, step_seconds=0.1)
        log = sagemaker.folder / "paused.log"
        wait_until(lambda: log.exists() and "starting" in log.read_text(), 30, "it does not train")
        time.sleep(0.5)
        sagemaker.process.terminate()
        assert sagemaker.process.wait(20) == 0
        assert "saved and stopped" in (sagemaker.folder / "paused.log").read_text()
        saved = sagemaker.saved_step("paused")
        assert saved > 0, "its last checkpoint is not in S3"
        sagemaker.start()
        job = sagemaker.ends("paused")
        assert (job["TrainingJobStatus"], sagemaker.model(job)["began_at"]) == ("Completed", saved)
    finally:
        sagemaker.kill()


# ---------------------------------------------------------------- in this process


@pytest.fixture
def s3(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> S3Client:
    for name, value in environment.items():
        if name.startswith(("AWS_", "PYTHONPATH")):
            monkeypatch.setenv(name, value)
    # boto3's own session keeps the credentials of its first use, in whichever test that was
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    return create_s3_client()


def test_a_trainer_that_does_not_hear_sigterm_is_killed(
    sagemaker: Sagemaker, s3: S3Client, tmp_path: Path
) -> None:
    s3.create_bucket(Bucket="deaf")
    settings = TrainerSettings(tmp_path, TRAINER, stop_seconds=0.5)
    jobs = TrainingJobs(s3, "deaf", settings)
    jobs.start()
    given = {"steps": "600", "step_seconds": "0.1", "deaf": "1"}
    jobs.create(sagemaker.arguments("deaf", HyperParameters=given))
    name = {"TrainingJobName": "deaf"}
    log = tmp_path / "deaf.log"
    wait_until(lambda: log.exists() and "starting" in log.read_text(), 30, "it does not train")
    jobs.stop(name)
    assert jobs.describe(name)["TrainingJobStatus"] == "Stopping"
    wait_until(lambda: jobs.describe(name)["TrainingJobStatus"] == "Stopped", 10, "it lives on")
    jobs.close()


def test_a_job_that_was_stopping_when_the_program_was_killed_is_stopped(
    sagemaker: Sagemaker, s3: S3Client, tmp_path: Path
) -> None:
    s3.create_bucket(Bucket="stopping")
    job = TrainingJob(sagemaker.arguments("stopping"), status="Stopping")
    job.set_secondary_status("Stopping")
    key = "sagemaker/training/stopping.json"
    s3.put_object(Bucket="stopping", Key=key, Body=job.to_json())
    jobs = TrainingJobs(s3, "stopping", TrainerSettings(tmp_path, TRAINER))
    jobs.start()
    name = {"TrainingJobName": "stopping"}
    wait_until(lambda: jobs.describe(name)["TrainingJobStatus"] == "Stopped", 10, "it goes on")
    jobs.close()
    assert not (tmp_path / "stopping.log").exists(), "the trainer was started"


def test_a_job_is_the_same_after_it_was_stored(sagemaker: Sagemaker) -> None:
    job = TrainingJob(sagemaker.arguments("stored"))
    job.set_secondary_status("Starting")
    assert TrainingJob.from_json(job.to_json()) == job


@pytest.mark.parametrize(
    ("key", "prefix", "name"),
    [
        ("a/b/c.jpg", "a/b/", "c.jpg"),
        ("a/b/c.jpg", "a/b", "c.jpg"),
        ("a/b/c.jpg", "a/", "b/c.jpg"),
        ("a/b/c.jpg", "a/b/c.jpg", "c.jpg"),
        ("a/b/c.jpg", "a/b/c", "c.jpg"),
        ("a/b/", "a/b/", ""),
        ("c.jpg", "", "c.jpg"),
    ],
)
def test_the_file_of_an_object_is_named_by_what_follows_the_prefix(
    key: str, prefix: str, name: str
) -> None:
    assert relative_name(key, prefix) == name


def test_a_trainer_that_is_not_installed_is_told(
    sagemaker: Sagemaker, s3: S3Client, tmp_path: Path
) -> None:
    training = Training(
        sagemaker.arguments("none"), "arn", s3, TrainerSettings(tmp_path, ("no-such-program",))
    )
    training.command = ["no-such-program"]
    training.prepare()
    with pytest.raises(TrainingError, match="no-such-program cannot be started: No such file"):
        training.start()


def test_in_docker_the_image_gets_the_folder_and_no_secret_on_its_command_line(
    sagemaker: Sagemaker, s3: S3Client, tmp_path: Path
) -> None:
    arguments = sagemaker.arguments("boxed", Environment={"SEED": "7"})
    training = Training(arguments, "arn", s3, TrainerSettings(tmp_path))
    command = " ".join(training.command)
    assert command.startswith("docker run --rm --name training-boxed-")
    assert command.endswith(" stylebot-cyclegan train")
    assert f"--volume {tmp_path / 'boxed'}:/opt/ml " in command
    assert "--env SEED " in command
    assert "--env AWS_SECRET_ACCESS_KEY " in command
    assert sagemaker.environment["AWS_SECRET_ACCESS_KEY"] not in command
