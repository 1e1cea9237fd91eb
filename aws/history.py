"""The releases of each endpoint: releases/ENDPOINT.json in the bucket, and the command history.

A release is an endpoint configuration that an endpoint was given. It is recorded before the
endpoint is changed, as `running`, and afterwards how it ended. So `up`, killed at any moment, finds
what it has begun; which configuration serves is asked from SageMaker, never from here. Each write
is conditional on what was read (If-Match), so that two deployers lose no record of each other's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from typing import Literal

import msgspec
from botocore.exceptions import ClientError
from msgspec import Struct, field

from aws.account import Account
from aws.calls import Answer, find, find_created
from aws.configs import find_config, instance_types_of
from aws.endpoints import find_endpoint, pending_config
from aws.messages import DeployError, output
from aws.models import find_model
from bot import MODELS

RELEASES_PREFIX = "releases/"
# Older records are dropped.
KEPT_RELEASES = 50
WRITE_ATTEMPTS = 20
# No release takes longer.
RUNNING_SECONDS = 3 * 3600
# What S3 answers if somebody else has written meanwhile
CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")

State = Literal["running", "proven", "gone back", "failed"]
RUNNING: State = "running"
PROVEN: State = "proven"
GONE_BACK: State = "gone back"
FAILED: State = "failed"


class Release(Struct):
    """One release of an endpoint."""

    config: str
    model: str
    # With the digest
    image: str
    instance_types: list[str]
    # In seconds since 1970
    started: float
    # The endpoint configuration to return to if it fails; "" if there is none
    previous: str = ""
    state: State = RUNNING
    ended: float | None = None
    # Why it went back or failed
    reason: str = ""


class History(Struct):
    """The releases of one endpoint, the oldest first."""

    version: Literal[1] = 1
    releases: list[Release] = field(default_factory=list)
    # The instance types that AWS has refused as pools, see aws/capacity.py
    refused_types: list[str] = field(default_factory=list)

    def find(self, config: str) -> Release | None:
        """Return the last release of that endpoint configuration."""
        for release in reversed(self.releases):
            if release.config == config:
                return release
        return None

    def is_proven(self, config: str) -> bool:
        release = self.find(config)
        return release is not None and release.state == PROVEN

    def last_good(self, besides: str) -> Release | None:
        """Return the newest release that has painted its pictures and was not taken back since."""
        for release in reversed(self.releases):
            if release.config != besides and self.is_proven(release.config):
                return release
        return None


def kept_releases(history: History, config: str) -> list[Release]:
    """Return the releases whose configuration, model and image must stay while `config` serves.

    These are the last good one before it, for a rollback, and those that somebody else may be
    making just now.
    """
    recently = time.time() - RUNNING_SECONDS
    kept = [
        release
        for release in history.releases
        if release.state == RUNNING and release.started > recently
    ]
    kept += [release for release in [history.find(config), history.last_good(config)] if release]
    return kept


def history_key(endpoint: str) -> str:
    return f"{RELEASES_PREFIX}{endpoint}.json"


def read_history(account: Account, endpoint: str) -> History:
    """Return the endpoint's history, empty if there is none.

    Raises DeployError if the object is none that this version can read.
    """
    history, _ = read_with_etag(account, endpoint)
    return history


def read_with_etag(account: Account, endpoint: str) -> tuple[History, str]:
    """Return the history and the ETag of its object, "" if there is none."""
    key = history_key(endpoint)
    found = find(account.s3.get_object, Bucket=account.bucket, Key=key)
    if found is None:
        return History(), ""
    try:
        history = msgspec.json.decode(found["Body"].read(), type=History)
    except msgspec.MsgspecError as error:
        raise DeployError(
            f"s3://{account.bucket}/{key} is no history of releases that this version can read: "
            f"{error}. Use the version that wrote it, or delete the object: then the configuration "
            "that serves now counts as the last good one."
        ) from error
    return history, found["ETag"]


def change_history(account: Account, endpoint: str, change: Callable[[History], None]) -> None:
    """Apply `change` to the endpoint's history. It may run more than once, on what S3 has then."""
    for _ in range(WRITE_ATTEMPTS):
        history, etag = read_with_etag(account, endpoint)
        before = msgspec.json.encode(history)
        change(history)
        history.releases = history.releases[-KEPT_RELEASES:]
        body = msgspec.json.encode(history)
        if body == before:
            return
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        try:
            account.s3.put_object(
                Bucket=account.bucket, Key=history_key(endpoint), Body=body, **condition
            )
            return
        except ClientError as error:
            if error.response["Error"]["Code"] not in CONFLICTS:
                raise
    raise DeployError(f"Somebody else keeps writing {history_key(endpoint)}. Run up again.")


def begin(account: Account, endpoint: str, release: Release) -> None:
    """Record that a release begins; once, if an earlier run has recorded it and was killed."""

    def add(history: History) -> None:
        last = history.releases[-1] if history.releases else None
        if last is None or last.state != RUNNING or last.config != release.config:
            history.releases.append(release)

    change_history(account, endpoint, add)


def finish(account: Account, endpoint: str, config: str, state: State, reason: str = "") -> None:
    """Record how the last release of an endpoint configuration ended."""
    now = time.time()

    def end(history: History) -> None:
        release = history.find(config)
        if release is None or (release.state, release.reason) == (state, reason):
            return
        release.state = state
        release.reason = reason
        release.ended = now

    change_history(account, endpoint, end)


def describe_release(account: Account, config: str, previous: str = "") -> Release:
    """Return the record of an endpoint configuration, as SageMaker describes it."""
    clock = account.clock
    # Both may have been created a moment ago.
    found = find_created(clock, partial(find_config, account, config))
    variant: Answer = (found or {"ProductionVariants": [{}]})["ProductionVariants"][0]
    model = variant.get("ModelName", "")
    image = ""
    if model and (described := find_created(clock, partial(find_model, account, model))):
        image = described["PrimaryContainer"].get("Image", "")
    return Release(
        config=config,
        model=model,
        image=image,
        instance_types=instance_types_of(variant),
        started=time.time(),
        previous=previous,
    )


def is_proven_since(account: Account, endpoint: str, moment: float) -> bool:
    """Return whether the last release has painted its pictures since then."""
    releases = read_history(account, endpoint).releases
    if not releases or releases[-1].state != PROVEN:
        return False
    return (releases[-1].ended or 0.0) >= moment


# ---------------------------------------------------------------- the command history


def print_history(account: Account) -> int:
    """Print the releases of both endpoints, the newest first. Return the exit code."""
    for model in MODELS:
        name = account.endpoint_name(model)
        history = read_history(account, name)
        endpoint = find_endpoint(account, name)
        serving = endpoint["EndpointConfigName"] if endpoint else ""
        pending = pending_config(endpoint)
        output(f"{name}:")
        for release in reversed(history.releases):
            output(f"  {describe_line(history, release, serving, pending)}")
        if not history.releases:
            output("  no release is recorded")
    return 0


def describe_line(history: History, release: Release, serving: str, pending: str) -> str:
    """Return when a release began, its configuration, image and types, and what became of it."""
    is_last = history.find(release.config) is release
    state: str = release.state
    if release.state == RUNNING and not (is_last and release.config in (serving, pending)):
        state = "never finished"
    if is_last and release.config == serving:
        state += ", SERVING"
    digest = release.image.partition("@")[2][:19] or "image unknown"
    started = datetime.fromtimestamp(release.started, timezone.utc)
    line = (
        f"{started:%Y-%m-%d %H:%M} UTC  {release.config}  {digest}  "
        f"{', '.join(release.instance_types)}  {state}"
    )
    if release.reason:
        line += f": {release.reason}"
    return line
