"""What build.sh --push asks for: the commands repositories and login-password."""

from functools import partial

from aws.account import Account
from aws.calls import find_created
from aws.changes import apply
from aws.messages import DeployError, output
from aws.registry import (
    IMAGES,
    docker_password,
    ensure_repository,
    find_digests,
    find_image,
    find_repository,
    require_docker_manifest,
)
from bot import MODELS


def repositories(account: Account, tag: str) -> int:
    """Create the missing repositories, and print a line for each image.

    A line has the image's name, the repository's address, and the digests of the manifest and the
    configuration that ECR has under the tag, or "-" and "-" if it has none.
    Raises DeployError if SageMaker would refuse the image that has the tag.
    """
    for image in IMAGES:
        apply(ensure_repository(account, image))
        repository = find_created(account.clock, partial(find_repository, account, image))
        if repository is None:
            raise DeployError(f"The repository of {image} was deleted meanwhile. Try again.")
        if image in MODELS and (pushed := find_image(account, image, tag)):
            require_docker_manifest(account, image, pushed)
        digests = find_digests(account, image, tag)
        line = f"{image} {repository['repositoryUri']}"
        if digests is None:
            output(f"{line} - -")
        else:
            output(f"{line} {digests.manifest} {digests.configuration}")
    return 0


def login_password(account: Account) -> int:
    """Print the password for `docker login --username AWS --password-stdin`."""
    output(docker_password(account))
    return 0
