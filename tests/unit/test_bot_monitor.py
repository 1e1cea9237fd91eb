"""The bot tells CloudWatch that it is alive, and the admins which alarms go off."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

import bot
from tests.fakes.memory_s3 import MemoryS3
from tests.unit.test_bot_doors import no_trainer
from tests.unit.test_bot_kill_points import CONFIG, Bucket, Endpoint, Fate, Killed

Json = Any  # whatever JSON can hold
ANNA = 1
BORIS = 2
TWO_ADMINS = replace(CONFIG, admins=frozenset({ANNA, BORIS}), deployment="stylebot")


class CloudWatch:
    """boto3's client, as far as the bot calls it."""

    def __init__(self) -> None:
        self.real = boto3.client("cloudwatch", region_name="us-east-1")
        self.on: set[str] = set()
        self.beats: list[Json] = []
        self.error: ClientError | None = None
        self.refused = ""

    def check(self, operation: str, values: Json) -> None:
        shape = self.real.meta.service_model.operation_model(operation).input_shape
        report = ParamValidator().validate(values, shape)
        assert not report.has_errors(), report.generate_report()
        if self.error and operation == self.refused:
            raise self.error

    def put_metric_data(self, **values: Json) -> None:
        self.check("PutMetricData", values)
        self.beats.append(values)

    def describe_alarms(self, **values: Json) -> Json:
        self.check("DescribeAlarms", values)
        alarms = []
        for name in values["AlarmNames"]:
            alarms.append({"AlarmName": name, "StateValue": "ALARM" if name in self.on else "OK"})
        return {"MetricAlarms": alarms}


class Telegram(bot.TelegramClient):
    """Telegram with one chat for each admin."""

    def __init__(self, fate: Fate) -> None:
        super().__init__("https://api.telegram.org", "42:token")
        self.fate = fate
        self.said: dict[int, list[str]] = {ANNA: [], BORIS: []}
        self.errors: dict[int, int] = {}

    def call(
        self, method: str, files: Json = None, read_timeout: float = 30, **values: Json
    ) -> Json:
        chat = values["chat_id"]
        if code := self.errors.get(chat):
            raise bot.TelegramError(method, code, "no")
        self.said[chat].append(values["text"])
        self.fate.happened(f"{method} {chat}")
        return bot.SentMessage(1)


class World:
    """What outlives the bot."""

    def __init__(self, kills: frozenset[int] = frozenset()) -> None:
        self.s3 = MemoryS3()
        self.fate = Fate(kills)
        self.telegram = Telegram(self.fate)
        self.cloudwatch = CloudWatch()
        self.start_bot()

    def start_bot(self) -> None:
        s3 = Bucket(self.s3, self.fate)
        endpoint = Endpoint(self.s3, Fate())
        one = bot.Bot(TWO_ADMINS, self.telegram, s3, endpoint, no_trainer, lambda: self.cloudwatch)
        assert one.monitor
        self.bot = one
        self.monitor = one.monitor

    def look(self) -> None:
        """Look once; a bot that is killed is started again."""
        try:
            self.monitor.look(is_alive=True)
        except Killed:
            self.start_bot()
            self.look()


@pytest.fixture
def world() -> World:
    return World()


def test_each_admin_is_told_once_of_each_change(world: World) -> None:
    world.look()
    assert world.telegram.said == {ANNA: [], BORIS: []}

    world.cloudwatch.on = {"nst-idle", "cyclegan-failing"}
    for _ in range(3):
        world.look()
        world.start_bot()
    [words] = world.telegram.said[ANNA]
    assert words.splitlines() == [
        "Alarm: the model of the endpoint cyclegan fails; see ./deploy.py logs.",
        "Alarm: the endpoint nst has had an instance without work for hours, which costs money; "
        "see ./deploy.py status.",
    ]
    assert world.telegram.said[BORIS] == [words]

    world.cloudwatch.on = {"nst-idle", "nst-backlog"}
    world.look()
    assert world.telegram.said[ANNA][1].splitlines() == [
        "Alarm: a picture has waited at the endpoint nst for half an hour; see ./deploy.py status.",
        "Over: the model of the endpoint cyclegan fails; see ./deploy.py logs.",
    ]


def test_an_admin_is_told_in_the_language_of_what_they_wrote(world: World) -> None:
    world.bot.handler.languages[BORIS] = "ru"
    world.look()
    world.start_bot()
    world.cloudwatch.on = {"nst-failing"}
    world.look()
    assert world.telegram.said[BORIS] == [
        "Тревога: модель эндпоинта nst работает с ошибками; см. ./deploy.py logs."
    ]
    assert world.telegram.said[ANNA][0].startswith("Alarm: ")


@pytest.mark.parametrize("code", [400, 403])
def test_an_admin_who_cannot_be_told_does_not_hold_up_the_other(code: int, world: World) -> None:
    world.telegram.errors[ANNA] = code
    world.cloudwatch.on = {"nst-failing"}
    world.look()
    assert len(world.telegram.said[BORIS]) == 1


def test_what_telegram_does_not_take_now_is_told_later(world: World) -> None:
    world.telegram.errors[ANNA] = 500
    world.cloudwatch.on = {"nst-failing"}
    world.look()
    assert len(world.telegram.said[BORIS]) == 1, "the other one does not wait"
    world.telegram.errors.clear()
    world.look()
    assert len(world.telegram.said[ANNA]) == 1
    assert len(world.telegram.said[BORIS]) == 1


@pytest.mark.parametrize("kill", range(4))
def test_a_kill_loses_no_alarm(kill: int) -> None:
    world = World(frozenset({kill}))
    world.cloudwatch.on = {"nst-failing"}
    world.look()
    world.look()
    assert world.fate.kills.issubset(range(len(world.fate.effects)))
    for said in world.telegram.said.values():
        assert 1 <= len(said) <= 2
        assert len(set(said)) == 1


def test_the_heart_beats_while_telegram_answers(world: World) -> None:
    world.monitor.look(is_alive=False)
    assert world.cloudwatch.beats == []
    world.monitor.look(is_alive=True)
    [beat] = world.cloudwatch.beats
    assert beat["Namespace"] == "stylebot"
    [metric] = beat["MetricData"]
    assert metric["Dimensions"] == [{"Name": "Deployment", "Value": "stylebot"}]

    assert not world.bot.dispatcher.is_alive()


def test_a_cloudwatch_that_refuses_does_not_end_the_monitor(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    about = {"Error": {"Code": "AccessDenied", "Message": "not authorized"}}
    world.cloudwatch.error = ClientError(about, "PutMetricData")
    world.cloudwatch.on = {"nst-failing"}
    world.cloudwatch.refused = "PutMetricData"
    world.look()
    assert "not authorized" in caplog.text
    assert len(world.telegram.said[ANNA]) == 1, "the alarm is told all the same"

    world.cloudwatch.refused = "DescribeAlarms"
    world.look()
    assert len(world.cloudwatch.beats) == 1


def test_without_the_setting_nothing_is_asked_of_cloudwatch() -> None:
    s3 = MemoryS3()
    one = bot.Bot(CONFIG, Telegram(Fate()), s3, Endpoint(s3, Fate()), no_trainer, no_trainer)
    assert one.monitor is None
