"""./deploy.py against an AWS account on this machine, see tests/fakes/aws.py."""

from collections.abc import Iterator

import boto3
import pytest

from aws.command_line import main
from tests.fakes import aws as fake
from tests.fakes.clock import fake_clock
from tests.system.aws.helpers import Deploy, Wire, push_images


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with fake.account() as url:
        yield url


@pytest.fixture(scope="session")
def session() -> boto3.Session:
    """One for all tests: boto3 needs a second to read the services' descriptions."""
    return boto3.Session(region_name=fake.REGION)


@pytest.fixture(autouse=True)
def wire(url: str, session: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """An empty account, and what boto3 sends to it."""
    fake.clear(url)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in fake.environment(url).items():
        monkeypatch.setenv(name, value)

    wire = Wire()
    session.events.register("before-call", wire.before_call)
    session.events.register("before-send", wire.before_send)
    session.events.register("after-call", wire.after_call)
    yield wire
    session.events.unregister("before-call", wire.before_call)
    session.events.unregister("before-send", wire.before_send)
    session.events.unregister("after-call", wire.after_call)


@pytest.fixture
def deploy(session: boto3.Session) -> Deploy:
    """Run ./deploy.py in this process, with a clock that does not wait."""
    clock = fake_clock()

    def run(*arguments: str) -> int:
        return main(list(arguments), session, clock)

    return run


@pytest.fixture
def pushed(deploy: Deploy) -> None:
    """Images in ECR."""
    assert deploy("repositories", "abc") == 0
    push_images()
