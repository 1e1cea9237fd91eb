"""What is left after `down`: AWS is searched for the tag, in all services at once."""

from __future__ import annotations

import re
from collections.abc import Iterator

from aws.account import TAG, Account
from aws.calls import Client

# AWS goes on to list for a while what was deleted.
LAG_SECONDS = 180.0
POLL_SECONDS = 10.0
# Nobody can delete these. They are a history, and cost nothing.
HISTORY = re.compile(
    r":sagemaker:[^:]*:[^:]*:(training-job|transform-job)/|:ecs:[^:]*:[^:]*:task-definition/"
)


def find_left(account: Account, kept: list[str]) -> list[str]:
    """Return the ARNs with our tag that AWS lists still, after waiting some minutes for it.

    `kept` has the ARNs of what shall stay.
    """
    deadline = account.clock.monotonic() + LAG_SECONDS
    while True:
        left = sorted(set(search(account)).difference(kept))
        if not left or account.clock.monotonic() >= deadline:
            return left
        account.clock.sleep(POLL_SECONDS)


def search(account: Account) -> Iterator[str]:
    """Yield the ARNs of everything that has our tag, except histories.

    What has no region is listed in one region of the partition. The same prefix may be in use in
    several regions; names without a region end with the deployment's.
    """
    for arn in list_tagged(account, account.tagging):
        if not HISTORY.search(arn):
            yield arn
    for arn in list_tagged(account, account.global_tagging):
        has_no_region = arn.split(":")[3] == ""
        if has_no_region and arn.endswith(f"-{account.region}"):
            yield arn


def list_tagged(account: Account, client: Client) -> Iterator[str]:
    pages = client.get_paginator("get_resources").paginate(
        TagFilters=[{"Key": TAG, "Values": [account.prefix]}]
    )
    for page in pages:
        for item in page["ResourceTagMappingList"]:
            yield item["ResourceARN"]
