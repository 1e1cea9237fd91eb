"""Releases: a new image has to paint before it stays, and rollback and history."""

import re
import threading

import boto3
import pytest

from aws.account import open_account
from aws.history import Release, change_history, read_history
from tests.fakes import aws as fake
from tests.fakes.clock import fake_clock
from tests.system.aws.helpers import (
    BUCKET,
    Deploy,
    KilledError,
    Wire,
    clear_and_push_images,
    describe_endpoint,
    list_keys,
)
from tests.system.aws.test_sleep import ASLEEP, scaling_of

NST = "stylebot-nst"
HISTORY = "releases/stylebot-nst.json"


def serving(model: str = "nst") -> str:
    config: str = describe_endpoint(model)["EndpointConfigName"]
    return config


def push_new(fault: str = "", content: str = "new") -> None:
    """Push another image of nst, good or bad."""
    digest = fake.push("nst", content, content=content)
    if fault:
        fake.bad_images[digest] = fault


def names_of_models() -> list[str]:
    models = boto3.client("sagemaker").list_models()["Models"]
    names = [model["ModelName"] for model in models]
    return sorted(name for name in names if name.startswith(f"{NST}-"))


def history_lines(deploy: Deploy, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Return what the command history prints about nst, the newest release first."""
    capfd.readouterr()
    assert deploy("history") == 0
    text = capfd.readouterr().out.partition("stylebot-cyclegan:")[0]
    return [line.strip() for line in text.splitlines()[1:]]


# ---------------------------------------------------------------- releases


@pytest.mark.usefixtures("pushed")
def test_a_release_from_zero_instances_is_painted_by_new_ones(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    fake.put_to_sleep(NST)
    old = serving()
    push_new()
    fake.painted.clear()
    wire.calls.clear()
    assert deploy("up") == 0
    assert serving() != old
    assert {config for name, config in fake.painted if name == NST} == {serving()}
    update = wire.calls.index("sagemaker:UpdateEndpoint")
    first_picture = wire.calls.index("sagemaker-runtime:InvokeEndpointAsync", update)
    deletions = [call for call in wire.calls[:first_picture] if call.startswith("sagemaker:Delete")]
    assert not deletions, "something was deleted before the proof"
    assert scaling_of("nst") == ASLEEP
    newest, oldest = history_lines(deploy, capfd)
    assert newest.endswith("proven, SERVING")
    assert serving() in newest
    assert old in oldest
    assert oldest.endswith("proven")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", newest)
    assert re.search(r"sha256:\w{12}  ml\.g4dn\.xlarge, ml\.g6\.xlarge", newest)


@pytest.mark.usefixtures("pushed")
@pytest.mark.parametrize("fault", ["error", "wrong size", "no picture", "silence"])
@pytest.mark.parametrize("is_asleep", [True, False])
def test_a_bad_image_is_taken_back(
    fault: str,
    is_asleep: bool,
    deploy: Deploy,
    wire: Wire,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert deploy("up") == 0
    if is_asleep:
        fake.put_to_sleep(NST)
    old = serving()
    models = names_of_models()
    push_new(fault)
    wire.calls.clear()
    assert deploy("up") == 1
    printed = capfd.readouterr().err
    assert f"{NST}: THE RELEASE OF {NST}-" in printed
    assert f"went back to {old}, which serves as before." in printed
    assert "Traceback" not in printed
    assert serving() == old
    # SageMaker itself went back: the old instances were still there.
    assert wire.calls.count("sagemaker:UpdateEndpoint") == 1
    assert set(models) < set(names_of_models())
    assert scaling_of("nst") == ASLEEP
    newest, oldest = history_lines(deploy, capfd)
    assert "gone back: " in newest
    assert oldest.endswith("proven, SERVING")

    # A mended image is taken, and what went back is deleted.
    push_new(content="mended")
    assert deploy("up") == 0
    assert len(names_of_models()) == 2
    assert deploy("status") == 0


@pytest.mark.usefixtures("pushed")
def test_pictures_of_old_instances_prove_nothing(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    old = serving()
    push_new()
    fake.old_instances_paint.add(NST)
    assert deploy("up") == 1
    assert "an old instance has painted the test picture" in capfd.readouterr().err
    assert serving() == old


@pytest.mark.usefixtures("pushed")
@pytest.mark.parametrize("event", ["goes off", "is deleted"])
def test_an_alarm_ends_a_release(
    event: str, deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    old = serving()
    push_new()

    def act() -> None:
        cloudwatch = boto3.client("cloudwatch")
        if event == "is deleted":
            cloudwatch.delete_alarms(AlarmNames=[f"{NST}-faults"])
            return
        cloudwatch.set_alarm_state(AlarmName=f"{NST}-faults", StateValue="ALARM", StateReason="5xx")

    fake.at_bake.append(act)
    assert deploy("up") == 1
    assert f"The alarm {NST}-faults has gone off" in capfd.readouterr().err
    assert serving() == old
    assert "gone back" in history_lines(deploy, capfd)[0]


@pytest.mark.usefixtures("pushed")
def test_a_first_release_that_does_not_paint_is_an_error(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    push_new("error")
    assert deploy("up") == 1
    assert "there is no earlier release to go back to" in capfd.readouterr().err
    assert "failed: " in history_lines(deploy, capfd)[0]
    assert deploy("status") == 1
    assert "serves without a proof that it paints (failed)" in capfd.readouterr().out
    push_new(content="mended")
    assert deploy("up") == 0


@pytest.mark.usefixtures("pushed")
def test_what_was_deployed_before_there_was_a_history_can_be_returned_to(
    deploy: Deploy,
) -> None:
    assert deploy("up") == 0
    old = serving()
    boto3.client("s3").delete_object(Bucket=BUCKET, Key=HISTORY)
    push_new("error")
    assert deploy("up") == 1
    assert serving() == old


@pytest.mark.usefixtures("pushed")
def test_the_last_good_image_stays_in_ecr(deploy: Deploy) -> None:
    assert deploy("up") == 0
    for number in range(12):
        fake.push("nst", f"new{number}", content=f"new{number}")
    assert deploy("up") == 0
    found = boto3.client("ecr").describe_images(repositoryName=NST)["imageDetails"]
    tags = {tag for image in found for tag in image["imageTags"]}
    assert {"abc", "new11"} < tags
    assert "new0" not in tags
    assert deploy("rollback", "nst") == 0
    assert deploy("status") == 0


# ---------------------------------------------------------------- interruptions


@pytest.mark.parametrize("is_bad", [False, True])
def test_a_release_killed_after_any_change_ends_the_same_when_it_is_run_again(
    is_bad: bool, url: str, deploy: Deploy, wire: Wire
) -> None:
    kill_release_after_changes(url, deploy, wire, is_bad, every=6)


def kill_release_after_changes(
    url: str, deploy: Deploy, wire: Wire, is_bad: bool, every: int
) -> None:
    """Kill a release after every change whose number is a multiple of `every`, and check the end.

    A bad image must be taken back, also by the next `up`.
    """

    def begin() -> None:
        clear_and_push_images(url, wire, deploy)
        assert deploy("up") == 0
        fake.put_to_sleep(NST, "stylebot-cyclegan")
        push_new("error" if is_bad else "")
        wire.changes_made = 0

    code = 1 if is_bad else 0
    begin()
    old = serving()
    assert deploy("up") == code
    changes = wire.changes_made
    whole = fake.snapshot()
    assert changes > 10
    for count in range(1, changes, every):
        begin()
        wire.kill_after = count
        with pytest.raises(KilledError):
            deploy("up")
        wire.kill_after = None
        assert deploy("up") == code, f"killed after {count} changes"
        assert (serving() == old) == is_bad
        ended = fake.snapshot()
        assert ended.keys() == whole.keys(), f"killed after {count} changes"


@pytest.mark.usefixtures("pushed")
def test_a_bad_image_that_stayed_because_up_was_killed_is_taken_back_by_the_next_up(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    old = serving()
    push_new("error")
    wire.kill_at = "InvokeEndpointAsync"
    with pytest.raises(KilledError):
        deploy("up")
    wire.kill_at = None
    wire.kill_after = None
    while describe_endpoint("nst")["EndpointStatus"] != "InService":
        pass
    assert serving() != old
    assert "running, SERVING" in history_lines(deploy, capfd)[0]
    assert deploy("status") == 1
    wire.calls.clear()
    assert deploy("up") == 1
    assert wire.calls.count("sagemaker:UpdateEndpoint") == 1
    assert serving() == old


@pytest.mark.usefixtures("pushed")
def test_somebody_elses_release_is_waited_for_and_not_taken_back(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    fake.push("nst", "other", content="other")
    fake.push("cyclegan", "other", content="abc")
    push_new()

    codes: list[int] = []
    fake.at_bake.append(lambda: codes.append(deploy("up", "--image-tag", "other", "--plan")))
    assert deploy("up") == 0
    assert codes == [0]
    printed = capfd.readouterr()
    assert "would wait for the endpoint stylebot-nst, which is Updating" in printed.out
    assert "FAILED" not in printed.err


@pytest.mark.usefixtures("pushed")
def test_an_update_that_somebody_else_begins_a_moment_earlier_is_told(
    deploy: Deploy, session: boto3.Session, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    push_new()
    fake.push("nst", "other", content="other")
    fake.push("cyclegan", "other", content="abc")
    raced: list[bool] = []

    def release_first(**_: object) -> None:
        if not raced:
            raced.append(True)
            sagemaker = boto3.client("sagemaker")
            config = sagemaker.describe_endpoint_config(EndpointConfigName=serving())
            sagemaker.create_endpoint_config(
                EndpointConfigName="theirs",
                ProductionVariants=config["ProductionVariants"],
                AsyncInferenceConfig=config["AsyncInferenceConfig"],
            )
            sagemaker.update_endpoint(
                EndpointName=NST,
                EndpointConfigName="theirs",
                DeploymentConfig={
                    "BlueGreenUpdatePolicy": {
                        "TrafficRoutingConfiguration": {
                            "Type": "ALL_AT_ONCE",
                            "WaitIntervalInSeconds": 0,
                        }
                    }
                },
            )

    session.events.register("before-call.sagemaker.UpdateEndpoint", release_first)
    try:
        assert deploy("up") == 1
    finally:
        session.events.unregister("before-call.sagemaker.UpdateEndpoint", release_first)
    assert serving() == "theirs"
    assert f"{NST} serves theirs, which somebody else has released." in capfd.readouterr().err


@pytest.mark.usefixtures("pushed")
def test_two_deployers_lose_no_record_of_each_others(
    deploy: Deploy, session: boto3.Session
) -> None:
    assert deploy("up") == 0
    account = open_account("stylebot", session=session, clock=fake_clock())

    def add(number: int) -> None:
        release = Release(f"config-{number}", "", "", [], started=float(number))
        change_history(account, NST, lambda history: history.releases.append(release))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    configs = {release.config for release in read_history(account, NST).releases}
    assert {f"config-{number}" for number in range(6)} < configs


# ---------------------------------------------------------------- rollback and history


@pytest.mark.usefixtures("pushed")
def test_rollback_returns_to_the_last_good_release_and_proves_it(
    deploy: Deploy, wire: Wire, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    old = serving()
    cyclegan = serving("cyclegan")
    push_new()
    assert deploy("up") == 0
    fake.painted.clear()
    assert deploy("rollback", "nst") == 0
    assert serving() == old
    assert serving("cyclegan") == cyclegan
    assert fake.painted[-1] == (NST, old)
    assert "The next `up` releases the newest image again" in capfd.readouterr().err
    assert scaling_of("nst") == ASLEEP
    newest, middle, _ = history_lines(deploy, capfd)
    assert newest.endswith("proven, SERVING")
    assert middle.endswith("gone back: rolled back by hand")

    # Not forward to what was taken back
    assert deploy("rollback", "nst") == 1
    assert "no earlier release is left that has worked" in capfd.readouterr().err


@pytest.mark.usefixtures("pushed")
def test_rollback_to_another_instance_type_scales_again(deploy: Deploy) -> None:
    assert deploy("up") == 0
    old = serving()
    assert deploy("up", "--instance-type", "nst=ml.g5.xlarge") == 0
    assert deploy("rollback") == 0
    assert serving() == old
    assert scaling_of("nst") == ASLEEP


@pytest.mark.usefixtures("pushed")
def test_rollback_ends_a_release_that_is_under_way(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    old = serving()
    push_new()
    codes = []
    fake.at_bake.append(lambda: codes.append(deploy("rollback", "nst")))
    assert deploy("up") == 1
    assert codes == [0]
    assert serving() == old
    assert "gone back" in history_lines(deploy, capfd)[0]


def test_rollback_and_history_without_anything(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("rollback") == 1
    assert "There is no endpoint stylebot-nst" in capfd.readouterr().err
    assert deploy("history") == 0
    assert "no release is recorded" in capfd.readouterr().out


@pytest.mark.usefixtures("pushed")
def test_a_history_that_cannot_be_read_is_told(
    deploy: Deploy, capfd: pytest.CaptureFixture[str]
) -> None:
    assert deploy("up") == 0
    boto3.client("s3").put_object(Bucket=BUCKET, Key=HISTORY, Body=b'{"version": 2}')
    assert deploy("history") == 1
    assert "Use the version that wrote it, or delete the object" in capfd.readouterr().err


@pytest.mark.usefixtures("pushed")
def test_the_history_outlives_down_but_not_a_purge(deploy: Deploy) -> None:
    assert deploy("up") == 0
    assert deploy("down", "--yes") == 0
    assert HISTORY in list_keys("releases/")
    assert deploy("up") == 0
    assert deploy("rollback") == 1
    assert deploy("down", "--purge", "--yes") == 0
    assert boto3.client("s3").list_buckets()["Buckets"] == []
