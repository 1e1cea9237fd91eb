"""The bucket: private, encrypted, reachable by TLS only, and with objects that expire."""

import json
from dataclasses import replace

from aws.account import TAG, Account
from aws.calls import Answer, delete_if_present, find, is_subset, perform
from aws.changes import Change, Changes
from bot import (
    ASYNC_PREFIX,
    CHATS_PREFIX,
    JOBS_PREFIX,
    QUARANTINE_PREFIX,
    TRAINING_PREFIX,
    UPDATES_PREFIX,
)

# The source of a remote build
BUILDS_PREFIX = "builds/"
# The bot deletes a job's pictures when it has delivered them; this is what it could not delete.
# A chat's state expires after 30 days without a message. What a training read and wrote is kept for
# as long, to look at it; the painter itself is under models/, where nothing expires.
# What the bot could not read stays for as long, for whoever looks for the reason.
# A remote build deletes its source, unless the command that watches it was interrupted.
EXPIRATION_DAYS = {
    JOBS_PREFIX: 1,
    ASYNC_PREFIX: 1,
    UPDATES_PREFIX: 1,
    BUILDS_PREFIX: 1,
    CHATS_PREFIX: 30,
    TRAINING_PREFIX: 30,
    QUARANTINE_PREFIX: 30,
}
DELETE_OBJECTS_LIMIT = 1000


def find_bucket(account: Account) -> Answer | None:
    return find(account.s3.head_bucket, Bucket=account.bucket)


def with_kept_tags(account: Account) -> Account:
    """Return the account with the tags that an earlier `up --tags` gave, if this one gives none."""
    if set(account.tags) != {TAG}:
        return account
    found = find(account.s3.get_bucket_tagging, Bucket=account.bucket)
    if found is None or not account.is_ours(found["TagSet"]):
        return account
    tags = {tag["Key"]: tag["Value"] for tag in found["TagSet"]}
    return replace(account, tags={**tags, **account.tags})


def ensure_bucket(account: Account) -> Changes:
    """Yield what is missing to have the bucket with all its settings."""
    s3 = account.s3
    bucket = account.bucket
    if find_bucket(account) is None:
        configuration: Answer = {"Tags": account.tag_list}
        # S3 refuses a location constraint in its oldest region.
        if account.region != "us-east-1":
            configuration["LocationConstraint"] = account.region
        yield Change(
            f"create the bucket {bucket}",
            lambda: perform(
                account.clock,
                s3.create_bucket,
                Bucket=bucket,
                CreateBucketConfiguration=configuration,
            ),
        )

    yield from ensure_tags(account)
    yield from ensure_no_public_access(account)
    yield from ensure_encryption(account)
    yield from ensure_expiration(account)
    yield from ensure_tls_only(account)


def ensure_tags(account: Account) -> Changes:
    s3 = account.s3
    wanted = {"TagSet": account.tag_list}
    found = find(s3.get_bucket_tagging, Bucket=account.bucket)
    if is_subset(wanted, found):
        return
    yield Change(
        f"tag the bucket {account.bucket}",
        lambda: perform(
            account.clock, s3.put_bucket_tagging, Bucket=account.bucket, Tagging=wanted
        ),
    )


def ensure_no_public_access(account: Account) -> Changes:
    s3 = account.s3
    wanted = {
        "BlockPublicAcls": True,
        "IgnorePublicAcls": True,
        "BlockPublicPolicy": True,
        "RestrictPublicBuckets": True,
    }
    found = find(s3.get_public_access_block, Bucket=account.bucket)
    if found and is_subset(wanted, found["PublicAccessBlockConfiguration"]):
        return
    yield Change(
        f"block public access to the bucket {account.bucket}",
        lambda: perform(
            account.clock,
            s3.put_public_access_block,
            Bucket=account.bucket,
            PublicAccessBlockConfiguration=wanted,
        ),
    )


def ensure_encryption(account: Account) -> Changes:
    s3 = account.s3
    wanted = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    found = find(s3.get_bucket_encryption, Bucket=account.bucket)
    if found and is_subset(wanted, found["ServerSideEncryptionConfiguration"]):
        return
    yield Change(
        f"encrypt the bucket {account.bucket}",
        lambda: perform(
            account.clock,
            s3.put_bucket_encryption,
            Bucket=account.bucket,
            ServerSideEncryptionConfiguration=wanted,
        ),
    )


def ensure_expiration(account: Account) -> Changes:
    s3 = account.s3
    wanted = {"Rules": [expiration_rule(prefix) for prefix in EXPIRATION_DAYS]}
    found = find(s3.get_bucket_lifecycle_configuration, Bucket=account.bucket)
    if is_subset(wanted, found):
        return
    yield Change(
        f"let old objects in the bucket {account.bucket} expire",
        lambda: perform(
            account.clock,
            s3.put_bucket_lifecycle_configuration,
            Bucket=account.bucket,
            LifecycleConfiguration=wanted,
        ),
    )


def expiration_rule(prefix: str) -> Answer:
    return {
        "ID": prefix.rstrip("/"),
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "Expiration": {"Days": EXPIRATION_DAYS[prefix]},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }


def ensure_tls_only(account: Account) -> Changes:
    s3 = account.s3
    wanted = account.policy_document("bucket")
    found = find(s3.get_bucket_policy, Bucket=account.bucket)
    if found and is_subset(json.loads(wanted), json.loads(found["Policy"])):
        return
    yield Change(
        f"deny requests to the bucket {account.bucket} without TLS",
        lambda: perform(account.clock, s3.put_bucket_policy, Bucket=account.bucket, Policy=wanted),
    )


def remove_bucket(account: Account) -> Changes:
    """Yield the deletion of the bucket and all its objects, if `up` created it."""
    found = find(account.s3.get_bucket_tagging, Bucket=account.bucket)
    if found is None or not account.is_ours(found["TagSet"]):
        return
    yield Change(
        f"delete the bucket {account.bucket} with all chats, jobs and painters",
        lambda: delete_bucket(account),
    )


def delete_bucket(account: Account) -> None:
    """Delete all objects, then the bucket."""
    pages = account.s3.get_paginator("list_objects_v2").paginate(Bucket=account.bucket)
    for page in pages:
        delete_objects(account, [item["Key"] for item in page.get("Contents", [])])
    delete_if_present(account.clock, account.s3.delete_bucket, Bucket=account.bucket)


def delete_objects(account: Account, keys: list[str]) -> None:
    for start in range(0, len(keys), DELETE_OBJECTS_LIMIT):
        some_keys = keys[start : start + DELETE_OBJECTS_LIMIT]
        objects = [{"Key": key} for key in some_keys]
        account.s3.delete_objects(Bucket=account.bucket, Delete={"Objects": objects, "Quiet": True})
