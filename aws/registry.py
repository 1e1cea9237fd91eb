"""The repositories in ECR, and the images in them."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aws.account import Account
from aws.calls import Answer, delete_if_present, find, is_subset, perform
from aws.changes import Change, Changes
from aws.messages import DeployError
from bot import MODELS

IMAGES = (*MODELS, "bot")
# How many images `up` keeps, besides the one that is used
KEPT_IMAGES = 10
# BatchDeleteImage takes no more; the next `up` goes on.
DELETED_IMAGES_LIMIT = 100
# The only manifest that SageMaker takes. Docker engines with containerd's image store write OCI's.
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True)
class Image:
    """An image in ECR."""

    # With the digest: REGISTRY/REPOSITORY@sha256:...
    uri: str
    gigabytes: float
    # The media type of its manifest, such as MANIFEST_TYPE
    manifest_type: str = ""

    @property
    def short_name(self) -> str:
        """Return the repository and the digest's first 12 digits."""
        name, _, digest = self.uri.rpartition("/")[2].partition("@")
        return f"{name}@{digest[:19]}"


@dataclass(frozen=True)
class Digests:
    """What ECR has under a tag."""

    manifest: str
    configuration: str


def find_repository(account: Account, image: str) -> Answer | None:
    name = account.repository_name(image)
    found = find(account.ecr.describe_repositories, repositoryNames=[name])
    if found is None:
        return None
    repository: Answer = found["repositories"][0]
    return repository


def find_image(account: Account, image: str, tag: str | None) -> Image | None:
    """Return the image with that tag or, without a tag, the newest. None if there is none."""
    arguments: dict[str, Any] = {"repositoryName": account.repository_name(image)}
    if tag:
        arguments["imageIds"] = [{"imageTag": tag}]
    found = find(account.ecr.describe_images, **arguments) or {"imageDetails": []}
    tagged = [details for details in found["imageDetails"] if details.get("imageTags")]
    repository = find_repository(account, image)
    if not tagged or not repository:
        return None

    newest = max(tagged, key=pushed_at)
    return Image(
        uri=f"{repository['repositoryUri']}@{newest['imageDigest']}",
        gigabytes=newest.get("imageSizeInBytes", 0) / 1e9,
        manifest_type=newest.get("imageManifestMediaType", ""),
    )


def require_docker_manifest(account: Account, image: str, found: Image) -> None:
    """Raise DeployError if SageMaker would refuse the image because of its manifest."""
    if found.manifest_type in ("", MANIFEST_TYPE):
        return
    raise DeployError(
        f"{account.repository_name(image)} has a manifest of the type {found.manifest_type}, which "
        f"SageMaker refuses: it takes {MANIFEST_TYPE}.\n"
        "Push it with this version of build.sh, which asks for that type, under another tag: "
        "./build.sh --push --tag NAME. If that gives the same, turn off the engine's containerd "
        'image store ({"features": {"containerd-snapshotter": false}} in /etc/docker/daemon.json, '
        "then restart Docker), and push again."
    )


def pushed_at(details: Answer) -> datetime:
    time: datetime = details["imagePushedAt"]
    return time


def find_image_details(account: Account, image: str, digest: str) -> Answer | None:
    """Return ECR's description of an image: its tags and when it was pushed."""
    found = find(
        account.ecr.describe_images,
        repositoryName=account.repository_name(image),
        imageIds=[{"imageDigest": digest}],
    )
    if not found or not found["imageDetails"]:
        return None
    details: Answer = found["imageDetails"][0]
    return details


def find_digests(account: Account, image: str, tag: str) -> Digests | None:
    """Return the digests of the image that has the tag."""
    found = account.ecr.batch_get_image(
        repositoryName=account.repository_name(image), imageIds=[{"imageTag": tag}]
    )
    if not found["images"]:
        return None
    tagged = found["images"][0]
    manifest = json.loads(tagged.get("imageManifest", "{}"))
    return Digests(
        manifest=tagged["imageId"]["imageDigest"],
        configuration=manifest.get("config", {}).get("digest", "-"),
    )


def ensure_repository(account: Account, image: str) -> Changes:
    """Yield what is missing to have the repository, with a rule that deletes what has no tag."""
    ecr = account.ecr
    name = account.repository_name(image)
    if find_repository(account, image) is None:
        yield Change(
            f"create the repository {name}",
            lambda: perform(
                account.clock,
                ecr.create_repository,
                repositoryName=name,
                imageScanningConfiguration={"scanOnPush": True},
                imageTagMutability="IMMUTABLE",
                tags=account.tag_list,
            ),
        )

    wanted = account.policy_document("images")
    found = find(ecr.get_lifecycle_policy, repositoryName=name)
    if found and is_subset(json.loads(wanted), json.loads(found["lifecyclePolicyText"])):
        return
    yield Change(
        f"delete untagged images of {name} after a day",
        lambda: perform(
            account.clock,
            ecr.put_lifecycle_policy,
            repositoryName=name,
            lifecyclePolicyText=wanted,
        ),
    )


def remove_old_images(account: Account, image: str, used: Collection[str]) -> Changes:
    """Yield the deletion of tagged images but the last ten and those with the digests `used`.

    A rule of ECR would not know which image an endpoint needs that has no instance now, or to
    which one a release may have to go back.
    """
    name = account.repository_name(image)
    pages = account.ecr.get_paginator("describe_images").paginate(
        repositoryName=name, filter={"tagStatus": "TAGGED"}
    )
    found = [details for page in pages for details in page["imageDetails"]]
    found.sort(key=pushed_at, reverse=True)
    old = [
        {"imageDigest": details["imageDigest"]}
        for details in found[KEPT_IMAGES:]
        if details["imageDigest"] not in used
    ]
    if old:
        yield Change(
            f"delete {len(old)} old images of {name}",
            lambda: account.ecr.batch_delete_image(
                repositoryName=name, imageIds=old[:DELETED_IMAGES_LIMIT]
            ),
        )


def remove_repository(account: Account, image: str) -> Changes:
    """Yield the deletion of the repository and its images, if `build.sh --push` created it."""
    ecr = account.ecr
    name = account.repository_name(image)
    repository = find_repository(account, image)
    if repository is None:
        return
    tags = ecr.list_tags_for_resource(resourceArn=repository["repositoryArn"])["tags"]
    if not account.is_ours(tags):
        return
    yield Change(
        f"delete the repository {name} with all its images",
        lambda: delete_if_present(
            account.clock, ecr.delete_repository, repositoryName=name, force=True
        ),
    )


def docker_password(account: Account) -> str:
    """Return the password of the user AWS for `docker login`. It is valid for twelve hours."""
    data = account.ecr.get_authorization_token()["authorizationData"][0]
    user_and_password = base64.b64decode(data["authorizationToken"]).decode()
    return user_and_password.partition(":")[2]
