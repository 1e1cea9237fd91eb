"""Notifications of the end of asynchronous requests, posted to URLs in SNS's envelope.

A notification is an object below sagemaker/notifications/ in S3 from before its request leaves the
queue until it was delivered. So a kill loses none, and may deliver one twice, as SNS may.

The message is SageMaker's:
https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference-check-predictions.html
The envelope is that of SNS for HTTP, without a signature:
https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

import requests

from sagemaker_local.s3 import S3Client, retry_forever
from sagemaker_local.stored import UnreadableError, decode, load_objects

NOTIFICATIONS_PREFIX = "sagemaker/notifications/"
# The longest stored notification: a message with a response of 128 kB in it, twice escaped.
NOTIFICATION_BYTES = 2**20
# SNS sends a message to an HTTP endpoint again three times, 20 s apart, where no policy is set:
# https://docs.aws.amazon.com/sns/latest/dg/sns-message-delivery-retries.html
RETRIES = 3
RETRY_SECONDS = 20.0
POST_SECONDS = 15.0
# A response is put into the message where it has no more bytes.
RESPONSE_BYTES = 128 * 1024

SUCCESS = "SUCCESS_NOTIFICATION_TOPIC"
ERROR = "ERROR_NOTIFICATION_TOPIC"

log = logging.getLogger("sagemaker")


@dataclass(frozen=True)
class NotificationSettings:
    """NotificationConfig of an endpoint configuration: the ARNs of topics, "" for none."""

    success_topic: str = ""
    error_topic: str = ""
    # Of SUCCESS and ERROR, those whose messages have the response in them.
    with_response: tuple[str, ...] = ()


@dataclass(frozen=True)
class Notification:
    """A message for a topic, as it is stored. The types are also its schema."""

    id: str
    topic: str
    message: str

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def timestamp(seconds: float) -> str:
    """Return time.time() as AWS writes it, such as 2026-01-25T22:46:00.608Z."""
    moment = datetime.fromtimestamp(seconds, tz=timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


class Notifier:
    """Stores notifications, and posts them to the URL of their topic. Used by many threads."""

    def __init__(
        self,
        s3: S3Client,
        bucket: str,
        urls: Mapping[str, str],
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """urls: the URL of each topic, by the topic's ARN."""
        self.s3 = s3
        self.bucket = bucket
        self.urls = urls
        self.retry_seconds = retry_seconds
        # Those of each topic that wait, so that one dead URL does not hold up the others.
        self.waiting: dict[str, queue.Queue[Notification]] = {}
        for topic in urls:
            self.waiting[topic] = queue.Queue()

    def start(self) -> None:
        """Deliver what an earlier process did not deliver, and then what is added."""
        if not self.urls:
            return
        stored = load_objects(
            self.s3, self.bucket, NOTIFICATIONS_PREFIX, self.parse, NOTIFICATION_BYTES
        )
        for notification in stored:
            self.put(notification)
        for topic in self.urls:
            threading.Thread(target=self.work, args=[topic], daemon=True).start()

    def parse(self, key: str, data: bytes) -> Notification:
        """Return the notification that is stored at `key`. Raises UnreadableError."""
        notification = decode(data, Notification)
        if key != self.key(notification):
            raise UnreadableError("its id is not the end of its key")
        return notification

    def key(self, notification: Notification) -> str:
        return f"{NOTIFICATIONS_PREFIX}{notification.id}"

    def add(self, notification: Notification) -> None:
        """Store the notification. It is delivered later."""

        def write() -> None:
            self.s3.put_object(
                Bucket=self.bucket, Key=self.key(notification), Body=notification.to_json()
            )

        retry_forever(write)
        self.put(notification)

    def put(self, notification: Notification) -> None:
        if notification.topic in self.waiting:
            self.waiting[notification.topic].put(notification)

    def work(self, topic: str) -> None:
        while True:
            notification = self.waiting[topic].get()
            try:
                self.deliver(notification)
            except Exception:
                # A fault of our own must not stop the deliveries.
                log.exception("notification %s", notification.id)

    def deliver(self, notification: Notification) -> None:
        """Post the notification, several times if need be, and remove it."""
        for attempt in range(1 + RETRIES):
            if attempt:
                time.sleep(self.retry_seconds)
            problem = post(self.urls[notification.topic], notification)
            if not problem:
                break
            log.warning("notification to %s: %s", notification.topic, problem)
        key = self.key(notification)
        retry_forever(lambda: self.s3.delete_object(Bucket=self.bucket, Key=key))


def post(url: str, notification: Notification) -> str:
    """Post the notification in SNS's envelope. Return "", or why it was not taken."""
    body = {
        "Type": "Notification",
        "MessageId": notification.id,
        "TopicArn": notification.topic,
        "Message": notification.message,
        "Timestamp": timestamp(time.time()),
        "SignatureVersion": "1",
        "Signature": "",
        "SigningCertURL": "",
        "UnsubscribeURL": "",
    }
    headers = {
        "Content-Type": "text/plain; charset=UTF-8",
        "User-Agent": "Amazon Simple Notification Service Agent",
        "x-amz-sns-message-type": "Notification",
        "x-amz-sns-message-id": notification.id,
        "x-amz-sns-topic-arn": notification.topic,
    }
    try:
        with requests.post(
            url,
            json.dumps(body).encode(),
            headers=headers,
            timeout=POST_SECONDS,
            allow_redirects=False,
            stream=True,
        ) as answer:
            if answer.ok:
                return ""
            return f"{url} answered {answer.status_code}"
    except requests.RequestException as error:
        return f"{url}: {type(error).__name__}"


def decode_response(data: bytes) -> object:
    """Return a response as it stands in a message: JSON as such, and everything else as text."""
    try:
        response: Any = json.loads(data)
    except (ValueError, RecursionError):
        return data.decode(errors="replace")
    return response
