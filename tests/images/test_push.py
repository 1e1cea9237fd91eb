"""build.sh --push: real pushes by Docker to a registry with ECR's login, and build.sh's messages.

The bot's image is the real one. The images of the two models have 4 GB, which takes minutes to
compress: instead of them, build.sh builds small images of the same names from another Dockerfile.
The messages are tested with a stand-in for the command docker.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest

from tests.fakes import aws
from tests.fakes.registry import HOST, PASSWORD, Registry, registry
from tests.fakes.servers import ROOT
from tests.images.test_images import Bench, bench, docker, engine  # noqa: F401 - fixtures

NAMES = ("nst", "cyclegan", "bot")
TAG = "push-test"
Finished = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def account() -> Iterator[dict[str, str]]:
    """The environment of an empty AWS account."""
    with aws.account() as url, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
            patch.delenv(name, raising=False)
        for name, value in aws.environment(url).items():
            patch.setenv(name, value)
        yield dict(os.environ)


# ---------------------------------------------------------------- real pushes


@pytest.fixture(scope="module")
def ecr(
    engine: None,  # noqa: F811
    account: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Registry]:
    """A registry. Skipped where something for it is missing, but never in CI."""
    if problem := find_problem():
        if os.environ.get("CI") == "true":
            pytest.fail(problem)
        pytest.skip(problem)
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def find_problem() -> str:
    """Return why no registry can run here, or ""."""
    missing = [name for name in ("docker-registry", "openssl", "perl") if not shutil.which(name)]
    if missing:
        return f"{', '.join(missing)} not installed"
    if os.getuid() != 0:
        return "this needs root"
    return ""


def client_that_builds() -> str:
    """Return the docker command that build.sh chooses."""
    found = subprocess.check_output(["bash", "-c", "type -aP docker"], text=True).split()
    for client in found:
        buildx = subprocess.run([client, "buildx", "version"], capture_output=True)
        if buildx.returncode == 0:
            return client
        version = subprocess.check_output([client, "--version"], text=True).split()[2]
        if 18 <= int(version.split(".")[0]) <= 22:
            return client
    raise AssertionError(f"none of {found} can build")


SMALL_DOCKER = """#!/bin/bash
arguments=()
for argument in "$@"; do
  case $argument in
    containers/nst/Dockerfile | containers/cyclegan/Dockerfile) argument={folder}/Dockerfile ;;
  esac
  arguments+=("$argument")
done
exec {client} "${{arguments[@]}}"
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a docker command that builds small images for the two models."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY bot.py /\nARG BASE_IMAGE\n")
    script = SMALL_DOCKER.format(folder=folder, client=client_that_builds())
    (folder / "docker").write_text(script)
    (folder / "docker").chmod(0o755)
    return folder


def push(account: dict[str, str], small: Path) -> Finished:
    environment = {
        **account,
        "PATH": f"{small}:{account['PATH']}",
        "DOCKER_CONFIG": str(small / "config"),
    }
    return subprocess.run(
        ["./build.sh", "--push", "--tag", TAG],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )


@pytest.fixture(scope="module")
def pushed(ecr: Registry, account: dict[str, str], small: Path) -> Iterator[Finished]:
    """The first push and what it printed. The images are deleted in the end."""
    before = {name: docker("images", "--quiet", f"stylebot-{name}:latest") for name in NAMES}
    done = push(account, small)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    ecr.copy_images_to_ecr()
    yield done
    for name in NAMES:
        delete_image(name, latest_before=before[name])


def delete_image(name: str, latest_before: str) -> None:
    """Delete a pushed image with all its names; give "latest" back to the image that had it."""
    latest = f"stylebot-{name}:latest"
    if latest_before:
        docker("tag", latest_before, latest)
    else:
        docker("rmi", "--force", latest)
    images = docker("images", "--quiet", "--no-trunc", f"{HOST}/stylebot-{name}").split()
    docker("rmi", "--force", f"stylebot-{name}:{TAG}", *registry_names(images))


def registry_names(images: list[str]) -> list[str]:
    """Return all names that images have in the registry, by tag and by digest."""
    names: list[str] = []
    for image in set(images):
        [found] = json.loads(docker("image", "inspect", image))
        names += found["RepoTags"] + found["RepoDigests"]
    return [name for name in names if name.startswith(HOST)]


def test_a_push_creates_the_repositories_and_prints_the_digests(
    pushed: Finished, ecr: Registry
) -> None:
    for name in NAMES:
        digest = ecr.digest(f"stylebot-{name}", TAG)
        assert f"{HOST}/stylebot-{name}:{TAG}  {digest}" in pushed.stdout

    client = boto3.client("ecr")
    repositories = client.describe_repositories()["repositories"]
    found = {repository["repositoryName"]: repository for repository in repositories}
    assert set(found) == {f"stylebot-{name}" for name in NAMES}
    for name, repository in found.items():
        assert repository["imageScanningConfiguration"]["scanOnPush"] is True
        assert repository["imageTagMutability"] == "IMMUTABLE"
        policy = client.get_lifecycle_policy(repositoryName=name)["lifecyclePolicyText"]
        selections = [rule["selection"] for rule in json.loads(policy)["rules"]]
        kept = [(selection["tagStatus"], selection["countNumber"]) for selection in selections]
        assert kept == [("untagged", 1)]


@pytest.mark.usefixtures("pushed")
def test_a_push_leaves_no_password_with_docker(small: Path) -> None:
    config = json.loads((small / "config" / "config.json").read_text())
    assert HOST not in config.get("auths", {})


@pytest.mark.usefixtures("pushed")
def test_the_bots_image_comes_back_from_the_registry_and_runs(
    ecr: Registry, tmp_path: Path
) -> None:
    image = f"{HOST}/stylebot-bot@{ecr.digest('stylebot-bot', TAG)}"
    environment = {**os.environ, "DOCKER_CONFIG": str(tmp_path)}
    subprocess.run(
        ["docker", "login", "--username", "AWS", "--password-stdin", HOST],
        input=PASSWORD,
        env=environment,
        text=True,
        check=True,
        capture_output=True,
    )
    docker("pull", image, env=environment)

    [description] = json.loads(docker("image", "inspect", image))
    assert description["Architecture"] == "amd64"
    assert description["Os"] == "linux"
    command = ["docker", "run", "--rm", "--read-only", image]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert "TELEGRAM_TOKEN is not set" in ran.stderr


@pytest.mark.usefixtures("pushed")
def test_a_second_push_pushes_nothing(account: dict[str, str], small: Path, ecr: Registry) -> None:
    again = push(account, small)
    assert again.returncode == 0, f"{again.stdout}{again.stderr}"
    for name in NAMES:
        assert f"{HOST}/stylebot-{name}:{TAG} exists already." in again.stdout
        assert ecr.digest(f"stylebot-{name}", TAG) in again.stdout
    assert "Pushing" not in again.stdout
    assert "create the repository" not in again.stderr


@pytest.mark.usefixtures("pushed")
def test_what_was_pushed_is_what_runs(account: dict[str, str], ecr: Registry) -> None:
    command = ["./deploy.py", "up", "--plan"]
    planned = subprocess.run(command, cwd=ROOT, env=account, capture_output=True, text=True)
    assert planned.returncode == 0, planned.stderr
    for name in ("nst", "cyclegan"):
        digest = ecr.digest(f"stylebot-{name}", TAG)
        assert f"of the image stylebot-{name}@{digest[:19]}" in planned.stdout


@pytest.mark.usefixtures("pushed")
def test_docker_pushes_the_manifest_that_sagemaker_takes(
    account: dict[str, str], ecr: Registry
) -> None:
    client = boto3.client("ecr")
    for name in NAMES:
        [details] = client.describe_images(
            repositoryName=f"stylebot-{name}", imageIds=[{"imageTag": TAG}]
        )["imageDetails"]
        assert details["imageManifestMediaType"] == aws.MANIFEST_TYPE

    # An engine with another default
    ecr.push_again_as_oci("stylebot-nst", TAG, "oci")
    ecr.copy_images_to_ecr()
    command = ["./deploy.py", "up", "--plan", "--image-tag", "oci"]
    refused = subprocess.run(command, cwd=ROOT, env=account, capture_output=True, text=True)
    assert refused.returncode == 1
    assert aws.OCI_MANIFEST_TYPE in refused.stderr
    assert "containerd-snapshotter" in refused.stderr


@pytest.mark.usefixtures("pushed")
def test_another_image_under_a_tag_that_is_taken_is_refused(
    account: dict[str, str], small: Path, ecr: Registry
) -> None:
    before = ecr.digest("stylebot-nst", TAG)
    other = "FROM scratch\nCOPY containers/__init__.py /\nARG BASE_IMAGE\n"
    (small / "Dockerfile").write_text(other)
    refused = push(account, small)
    assert refused.returncode == 1
    assert f"{HOST}/stylebot-nst:{TAG} exists already and is another image" in refused.stderr
    assert "--tag NAME" in refused.stderr
    assert ecr.digest("stylebot-nst", TAG) == before


# ---------------------------------------------------------------- messages


class DenyingHandler(BaseHTTPRequestHandler):
    """AWS for credentials without any permission. Only GetCallerIdentity needs none."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        user = f"arn:aws:iam::{aws.ACCOUNT}:user/me"
        if b"GetCallerIdentity" in body:
            result = f"<Arn>{user}</Arn><UserId>A</UserId><Account>{aws.ACCOUNT}</Account>"
            identity = f"<R><GetCallerIdentityResult>{result}</GetCallerIdentityResult></R>"
            self.answer(200, identity.encode())
            return

        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        message = f"User: {user} is not authorized to perform: ecr:{operation}"
        error = {"__type": "AccessDeniedException", "message": message}
        self.answer(400, json.dumps(error).encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def denying_aws() -> Iterator[str]:
    """The URL of AWS for credentials without any permission."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), DenyingHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


STAND_IN = """#!/bin/bash
echo "$*" >>"$CALLS/calls"
case "$1" in
  --version) echo "Docker version 20.10.24, build 0" ;;
  version) echo 20.10.24 ;;
  info) echo / ;;
  buildx) exit 1 ;;
  login)
    cat >"$CALLS/password"
    if [ -n "$NO_LOGIN" ]; then
      echo "Error: dial tcp: no route to host" >&2
      exit 1
    fi
    ;;
  push)
    if [ -n "$NO_PUSH" ]; then
      echo "denied: requested access to the resource is denied" >&2
      exit 1
    fi
    ;;
  image)
    if [[ $* == *RepoDigests* ]]; then
      echo "${*: -1}" | sed 's/:[^:]*$/@sha256:0123/'
    fi
    ;;
esac
"""


@pytest.fixture
def stand_in(bench: Bench, account: dict[str, str]) -> Bench:  # noqa: F811
    """build.sh with a docker command that records its calls, and an empty AWS account."""
    aws.clear(account["AWS_ENDPOINT_URL"])
    bench.command("docker", STAND_IN)
    (bench.folder / "cat").symlink_to("/bin/cat")
    return bench


def test_push_logs_in_by_ecrs_password_and_only_where_it_is_needed(stand_in: Bench) -> None:
    done = stand_in.build("--push", "--tag", "v1")
    assert done.returncode == 0, done.stderr
    calls = (stand_in.folder / "calls").read_text().splitlines()
    assert f"login --username AWS --password-stdin {HOST}" in calls
    assert calls[-1] == f"logout {HOST}"
    assert (stand_in.folder / "password").read_text().strip() == PASSWORD
    assert "auth-token" not in done.stdout + done.stderr + "".join(calls)
    pushes = [call for call in calls if call.startswith("push ")]
    assert pushes == [f"push {HOST}/stylebot-{name}:v1" for name in NAMES]
    for name in NAMES:
        assert f"{HOST}/stylebot-{name}:v1  sha256:0123" in done.stdout


def test_push_takes_region_and_prefix(stand_in: Bench) -> None:
    done = stand_in.build("--push", "--tag", "v1", "--region", "us-west-2", "--prefix", "art")
    assert done.returncode == 0, done.stderr
    assert f"{aws.ACCOUNT}.dkr.ecr.us-west-2.amazonaws.com/art-nst:v1" in done.stdout
    repositories = boto3.client("ecr", region_name="us-west-2").describe_repositories()
    names = {repository["repositoryName"] for repository in repositories["repositories"]}
    assert names == {"art-nst", "art-cyclegan", "art-bot"}


def test_a_build_without_push_asks_nobody(stand_in: Bench) -> None:
    assert stand_in.build("--tag", "v1", AWS_ENDPOINT_URL="http://127.0.0.1:9").returncode == 0
    assert "login" not in (stand_in.folder / "calls").read_text()


def test_a_tree_that_differs_from_its_commit_says_so(stand_in: Bench) -> None:
    stand_in.command("git", "#!/bin/bash\necho abc1234-dirty\n")
    done = stand_in.build("--push")
    assert done.returncode == 0, done.stderr
    assert "Files differ from the commit: the images are tagged abc1234-dirty." in done.stderr
    assert f"{HOST}/stylebot-nst:abc1234-dirty" in done.stdout


NO_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
NO_NETWORK = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}


@pytest.mark.parametrize(
    ("environment", "cause", "remedy"),
    [
        (NO_CREDENTIALS, "Unable to locate credentials", "aws configure"),
        ({"AWS_DEFAULT_REGION": ""}, "No region is set", "--region eu-west-1"),
        ({"AWS_DEFAULT_REGION": "eu-wst-1"}, "no SageMaker in a region eu-wst-1", "eu-west-1"),
        (NO_NETWORK, "Could not connect", "Check the network"),
    ],
)
def test_push_says_before_the_build_what_is_wrong_with_aws(
    stand_in: Bench, environment: dict[str, str], cause: str, remedy: str
) -> None:
    done = stand_in.build("--push", "--tag", "v1", **environment)
    assert done.returncode == 1
    assert cause in done.stderr
    assert remedy in done.stderr
    assert stand_in.builds() == []


def test_push_names_the_missing_permission(stand_in: Bench, denying_aws: str) -> None:
    done = stand_in.build("--push", "--tag", "v1", AWS_ENDPOINT_URL=denying_aws)
    assert done.returncode == 1
    assert "not authorized to perform: ecr:DescribeRepositories" in done.stderr
    assert "./deploy.py policy deployer" in done.stderr
    assert "Traceback" not in done.stderr


ENGINE_WITH_OCI = """#!/bin/bash
if [ "$1" = push ]; then
  exec {python} -c '
import boto3, json, sys
repository, tag = sys.argv[1].rpartition("/")[2].split(":")
digest = "sha256:" + 64 * "0"
part = dict(digest=digest, size=1)
manifest = dict(schemaVersion=2, mediaType="{type}", config=part, layers=[part])
text = json.dumps(manifest)
boto3.client("ecr").put_image(repositoryName=repository, imageManifest=text, imageTag=tag)
' "$2"
fi
exec {folder}/docker-stand-in "$@"
"""


def test_an_engine_that_pushes_oci_manifests_is_told_at_once(stand_in: Bench) -> None:
    (stand_in.folder / "docker").rename(stand_in.folder / "docker-stand-in")
    script = ENGINE_WITH_OCI.format(
        python=sys.executable, folder=stand_in.folder, type=aws.OCI_MANIFEST_TYPE
    )
    stand_in.command("docker", script)
    done = stand_in.build("--push", "--tag", "v1")
    assert done.returncode == 1
    assert f"stylebot-nst has a manifest of the type {aws.OCI_MANIFEST_TYPE}" in done.stderr
    assert "./build.sh --push --tag NAME" in done.stderr
    assert "Next:" not in done.stdout


LOGIN_ERROR = f"Docker could not log in to {HOST}: Error: dial tcp: no route to host"


@pytest.mark.parametrize(
    ("environment", "cause", "remedy"),
    [
        ({"NO_LOGIN": "yes"}, LOGIN_ERROR, "To fix this, check"),
        ({"NO_PUSH": "yes"}, "stylebot-nst:v1 was not pushed", "docker system prune"),
    ],
)
def test_push_says_what_docker_could_not_do(
    stand_in: Bench, environment: dict[str, str], cause: str, remedy: str
) -> None:
    done = stand_in.build("--push", "--tag", "v1", **environment)
    assert done.returncode == 1
    assert cause in done.stderr
    assert remedy in done.stderr
