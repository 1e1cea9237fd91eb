"""The command remote-build, for `build.sh --remote`: the images are built by CodeBuild, not here.

The files that git tracks go to the bucket as a zip file. In CodeBuild, build.sh itself builds the
images from them and pushes them to ECR, with a role that can do nothing else.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from functools import partial

from aws import bucket, identity, logs, registry
from aws.account import ROOT, Account
from aws.bucket import BUILDS_PREFIX, with_kept_tags
from aws.calls import Answer, delete_if_present, find, find_created, is_subset, perform
from aws.changes import Change, Changes, apply
from aws.messages import DeployError, output, say

# 4 CPUs and 7 GB of memory, with a disk large enough for the three images
COMPUTE_TYPE = "BUILD_GENERAL1_MEDIUM"
# US dollars for a minute, in us-east-1
MINUTE_PRICE = 0.01
IMAGE = "aws/codebuild/amazonlinux-x86_64-standard:5.0"
TIMEOUT_MINUTES = 60
POLL_SECONDS = 5
# A zip file knows no times before 1980.
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
BUILDSPEC = """version: 0.2
env:
  shell: bash
phases:
  install:
    runtime-versions:
      python: 3.12
  build:
    commands:
      - chmod +x build.sh deploy.py
      - >-
        ./build.sh --push --tag "$TAG" --base-image "$BASE_IMAGE"
        --region "$REGION" --prefix "$PREFIX"
"""


def remote_build(account: Account, tag: str, revision: str, base_image: str) -> int:
    """Run the command and return its exit code.

    `revision` is git's commit, for the images' labels. Raises DeployError if the build fails, or if
    another image has the tag already.
    """
    account = with_kept_tags(account)
    for image in registry.IMAGES:
        apply(registry.ensure_repository(account, image))
        find_created(account.clock, partial(registry.find_repository, account, image))
    digests = {image: registry.find_digests(account, image, tag) for image in registry.IMAGES}
    if all(digests.values()):
        say(f"ECR has the images {tag} already.")
        return print_digests(account, tag)
    if any(digests.values()) and tag.endswith("-dirty"):
        raise DeployError(
            f"ECR has some images with the tag {tag} already, perhaps of other files. Commit your "
            "changes, or choose another tag: ./build.sh --remote --tag NAME."
        )

    apply(identity.ensure_boundary(account))
    apply(bucket.ensure_bucket(account))
    apply(identity.ensure_build_role(account))
    apply(logs.ensure_group(account, account.build_log_group))
    apply(ensure_project(account))

    key = f"{BUILDS_PREFIX}{tag}.zip"
    build = find_running_build(account, tag)
    if build is None:
        build = start_build(account, key, tag, revision, base_image)
    else:
        say(f"CodeBuild is building {tag} already; this is its log:")
    # Ctrl-C ends only the watching: the build still needs its source.
    ended = follow_build(account, build["id"])
    account.s3.delete_object(Bucket=account.bucket, Key=key)
    if ended["buildStatus"] != "SUCCEEDED":
        raise DeployError(explain_failure(account, ended))
    return print_digests(account, tag)


def print_digests(account: Account, tag: str) -> int:
    """Print what build.sh prints after a push. Raises DeployError if an image is missing."""
    for image in registry.IMAGES:
        repository = registry.find_repository(account, image)
        look = partial(registry.find_digests, account, image, tag)
        digests = find_created(account.clock, look)
        if repository is None or digests is None:
            raise DeployError(f"The build has ended, but ECR has no image {image}:{tag}.")
        output(f"{repository['repositoryUri']}:{tag}  {digests.manifest}")
    output(f"Next: ./deploy.py up --region {account.region} --prefix {account.prefix}")
    return 0


# ---------------------------------------------------------------- project


def find_project(account: Account) -> Answer | None:
    name = account.build_project
    projects: list[Answer] = account.codebuild.batch_get_projects(names=[name])["projects"]
    if not projects:
        return None
    return projects[0]


def describe_wanted_project(account: Account) -> Answer:
    """Return the arguments that CreateProject and UpdateProject share."""
    return {
        "name": account.build_project,
        "source": {
            "type": "S3",
            # Each build names its own file in the place of this one.
            "location": f"{account.bucket}/{BUILDS_PREFIX}source.zip",
            "buildspec": BUILDSPEC,
        },
        "artifacts": {"type": "NO_ARTIFACTS"},
        "environment": {
            "type": "LINUX_CONTAINER",
            "image": IMAGE,
            "computeType": COMPUTE_TYPE,
            # Docker runs inside the container.
            "privilegedMode": True,
        },
        "serviceRole": account.build_role_arn,
        "timeoutInMinutes": TIMEOUT_MINUTES,
        "logsConfig": {
            "cloudWatchLogs": {"status": "ENABLED", "groupName": account.build_log_group}
        },
    }


def ensure_project(account: Account) -> Changes:
    """Yield what is missing to have the CodeBuild project."""
    wanted = describe_wanted_project(account)
    project = find_project(account)
    tags = account.lower_case_tag_list
    if project is None:
        yield Change(
            f"create the CodeBuild project {account.build_project}",
            lambda: perform(account.clock, account.codebuild.create_project, **wanted, tags=tags),
        )
    elif not is_subset(wanted, project):
        yield Change(
            f"change the CodeBuild project {account.build_project}",
            lambda: perform(account.clock, account.codebuild.update_project, **wanted),
        )


def remove_project(account: Account) -> Changes:
    """Yield the deletion of the CodeBuild project, if `build.sh --remote` created it."""
    project = find_project(account)
    if project is None or not account.is_ours(project.get("tags")):
        return
    name = account.build_project
    yield Change(
        f"delete the CodeBuild project {name}",
        lambda: delete_if_present(account.clock, account.codebuild.delete_project, name=name),
    )


# ---------------------------------------------------------------- one build


def zip_tracked_files() -> bytes:
    """Return a zip file of what git tracks, as it is in this checkout, changes included.

    Raises DeployError if this is not a checkout.
    """
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise DeployError(
            "build.sh --remote sends what git tracks, and this is no checkout of git. Clone the "
            "repository, or build here: ./build.sh --push."
        ) from error

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(listed.decode().split("\0")):
            path = ROOT / name
            # A file that was deleted here is tracked until the next commit.
            if name and path.is_file():
                archive.writestr(zipfile.ZipInfo(name, ZIP_TIME), path.read_bytes())
    return buffer.getvalue()


def start_build(account: Account, key: str, tag: str, revision: str, base_image: str) -> Answer:
    """Upload the source, start the build and return its description."""
    source = zip_tracked_files()
    say(f"upload {len(source) / 1e6:.1f} MB of tracked files to s3://{account.bucket}/{key}")
    account.s3.put_object(Bucket=account.bucket, Key=key, Body=source)
    variables = {
        "TAG": tag,
        "REVISION": revision,
        "BASE_IMAGE": base_image,
        "REGION": account.region,
        "PREFIX": account.prefix,
    }
    say(f"build {tag} in CodeBuild: usually 10 to 20 minutes, ${MINUTE_PRICE:.2f} each")
    # The same request a second time, as after a lost answer, starts no second build.
    start = f"{tag} {account.clock.monotonic()}".encode() + source
    answer = perform(
        account.clock,
        account.codebuild.start_build,
        projectName=account.build_project,
        sourceTypeOverride="S3",
        sourceLocationOverride=f"{account.bucket}/{key}",
        environmentVariablesOverride=[
            {"name": name, "value": value, "type": "PLAINTEXT"} for name, value in variables.items()
        ],
        idempotencyToken=hashlib.sha256(start).hexdigest(),
    )
    build: Answer = answer["build"]
    return build


def find_running_build(account: Account, tag: str) -> Answer | None:
    """Return a build of that tag that an interrupted command has left running."""
    for build in list_running_builds(account):
        if tag_of(build) == tag:
            return build
    return None


def list_running_builds(account: Account) -> list[Answer]:
    """Return the builds that run, the newest first."""
    found = find(account.codebuild.list_builds_for_project, projectName=account.build_project)
    # The newest first. BatchGetBuilds takes no more than 100.
    ids = (found or {"ids": []})["ids"][:20]
    if not ids:
        return []
    builds = account.codebuild.batch_get_builds(ids=ids)["builds"]
    return [build for build in builds if build["buildStatus"] == "IN_PROGRESS"]


def tag_of(build: Answer) -> str:
    """Return the tag of the images that a build makes."""
    variables = {
        item["name"]: item["value"] for item in build["environment"]["environmentVariables"]
    }
    return str(variables.get("TAG", ""))


def remove_builds(account: Account) -> Changes:
    """Yield the end of each build that runs: its images would come after all is removed."""
    for build in list_running_builds(account):
        yield Change(f"stop the build {tag_of(build)}", partial(stop_build, account, build["id"]))


def stop_build(account: Account, identifier: str) -> None:
    delete_if_present(account.clock, account.codebuild.stop_build, id=identifier)


def follow_build(account: Account, identifier: str) -> Answer:
    """Print the log while the build runs. Return the description of the build that has ended."""
    token: dict[str, str] = {}
    while True:
        builds = account.codebuild.batch_get_builds(ids=[identifier])["builds"]
        # For a moment, CodeBuild may not show it.
        build: Answer = builds[0] if builds else {"buildStatus": "IN_PROGRESS"}
        token = print_log(account, build, token)
        if build["buildStatus"] != "IN_PROGRESS":
            return build
        account.clock.sleep(POLL_SECONDS)


def print_log(account: Account, build: Answer, token: dict[str, str]) -> dict[str, str]:
    """Print what the build has written since the last call, which returned `token`."""
    stream = build.get("logs", {}).get("streamName")
    if not stream:
        return token
    while True:
        found = find(
            account.logs.get_log_events,
            logGroupName=account.build_log_group,
            logStreamName=stream,
            startFromHead=True,
            **token,
        )
        if found is None:
            return token
        for event in found["events"]:
            say(event["message"].rstrip())
        following = {"nextToken": found["nextForwardToken"]}
        # The last page names itself as the next one.
        if following == token or not found["events"]:
            return following
        token = following


def explain_failure(account: Account, build: Answer) -> str:
    """Return what CodeBuild says about the phase that failed, and what to do."""
    lines = [f"The build has ended with {build['buildStatus']}."]
    for phase in build.get("phases", []):
        for context in phase.get("contexts", []):
            if message := context.get("message"):
                lines.append(f"{phase['phaseType']}: {message}")
    lines.append(
        f"The lines above say why, and the log group {account.build_log_group} has them for "
        f"{logs.RETENTION_DAYS} days. Then run ./build.sh --remote again."
    )
    return "\n  ".join(lines)
