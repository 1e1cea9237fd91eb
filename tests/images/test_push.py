"""build.sh --push: real pushes by Docker through ECR's login to a registry; its messages, with a stand-in for Docker.

The bot's image is the real one. The two models' images have 4 GB, which takes minutes to compress: pushed here are
small ones of the same names, which build.sh builds from another Dockerfile.
"""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest

from tests.fakes import aws
from tests.fakes.registry import HOST, Registry, registry
from tests.fakes.servers import ROOT
from tests.images.test_images import Bench, bench, docker, engine  # noqa: F401 - fixtures

NAMES = ("nst", "cyclegan", "bot")
TAG = "push-test"


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
    """Skipped where this is not root or the registry is missing, but never in CI."""
    missing = [name for name in ("docker-registry", "openssl", "perl") if not shutil.which(name)]
    problem = (
        f"{', '.join(missing)} not installed"
        if missing
        else "this takes root"
        if os.getuid()
        else ""
    )
    if problem and os.environ.get("CI") == "true":
        pytest.fail(problem)
    if problem:
        pytest.skip(problem)
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def client_that_builds() -> str:
    """The docker command that build.sh takes."""
    found = subprocess.check_output(["bash", "-c", "type -aP docker"], text=True).split()
    for client in found:
        version = subprocess.check_output([client, "--version"], text=True).split()[2]
        if subprocess.run([client, "buildx", "version"], capture_output=True).returncode == 0:
            return client
        if 18 <= int(version.split(".")[0]) <= 22:
            return client
    raise AssertionError(f"none of {found} can build")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a docker command that builds small images for the two models; all else is Docker's."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY locks/bot.txt /\nARG BASE_IMAGE\n")
    script = f"""#!/bin/bash
arguments=()
for argument in "$@"; do
  case $argument in containers/nst/Dockerfile | containers/cyclegan/Dockerfile) argument={folder}/Dockerfile ;; esac
  arguments+=("$argument")
done
exec {client_that_builds()} "${{arguments[@]}}"
"""
    (folder / "docker").write_text(script)
    (folder / "docker").chmod(0o755)
    return folder


def push(account: dict[str, str], small: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = {
        **account,
        "PATH": f"{small}:{account['PATH']}",
        "DOCKER_CONFIG": str(small / "config"),
    }
    command = ["./build.sh", "--push", "--tag", TAG, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=500
    )


@pytest.fixture(scope="module")
def pushed(
    ecr: Registry, account: dict[str, str], small: Path
) -> Iterator[subprocess.CompletedProcess[str]]:
    """What the first push says."""
    before = {name: docker("images", "--quiet", f"stylebot-{name}:latest") for name in NAMES}
    done = push(account, small)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    ecr.tell_ecr()
    yield done
    for name in NAMES:
        if before[name]:  # `latest` was another image's name
            docker("tag", before[name], f"stylebot-{name}:latest")
        else:
            docker("rmi", "--force", f"stylebot-{name}:latest")
        pushed_ones = docker("images", "--quiet", "--no-trunc", f"{HOST}/stylebot-{name}").split()
        docker("rmi", "--force", f"stylebot-{name}:{TAG}", *names_of(pushed_ones))


def names_of(images: list[str]) -> list[str]:
    """All names that images have in the registry, by tag and by digest: without them an image goes."""
    found = [json.loads(docker("image", "inspect", image))[0] for image in set(images)]
    names = [name for image in found for name in image["RepoTags"] + image["RepoDigests"]]
    return [name for name in names if name.startswith(HOST)]


def test_a_push_makes_the_repositories_and_prints_the_digests(
    pushed: subprocess.CompletedProcess[str], ecr: Registry
) -> None:
    for name in NAMES:
        digest = ecr.digest(f"stylebot-{name}", TAG)
        assert f"{HOST}/stylebot-{name}:{TAG}  {digest}" in pushed.stdout
    client = boto3.client("ecr")
    found = {one["repositoryName"]: one for one in client.describe_repositories()["repositories"]}
    assert set(found) == {f"stylebot-{name}" for name in NAMES}
    for name, repository in found.items():
        assert repository["imageScanningConfiguration"]["scanOnPush"] is True
        assert repository["imageTagMutability"] == "IMMUTABLE"
        rules = json.loads(client.get_lifecycle_policy(repositoryName=name)["lifecyclePolicyText"])[
            "rules"
        ]
        kinds = [
            (rule["selection"]["tagStatus"], rule["selection"]["countNumber"]) for rule in rules
        ]
        assert kinds == [("untagged", 1), ("any", 10)]


@pytest.mark.usefixtures("pushed")
def test_a_push_leaves_no_password_with_docker(small: Path) -> None:
    kept = json.loads((small / "config" / "config.json").read_text())
    assert HOST not in kept.get("auths", {})


@pytest.mark.usefixtures("pushed")
def test_the_bots_image_comes_back_from_the_registry_and_runs(
    ecr: Registry, tmp_path: Path
) -> None:
    address = f"{HOST}/stylebot-bot@{ecr.digest('stylebot-bot', TAG)}"
    login = ["docker", "login", "--username", "AWS", "--password-stdin", HOST]
    settings = {**os.environ, "DOCKER_CONFIG": str(tmp_path)}
    subprocess.run(
        login,
        input=f"{aws.ACCOUNT}-auth-token",
        env=settings,
        text=True,
        check=True,
        capture_output=True,
    )
    docker("pull", address, env=settings)
    about = json.loads(docker("image", "inspect", address))[0]
    assert (about["Architecture"], about["Os"]) == ("amd64", "linux")
    ran = subprocess.run(
        ["docker", "run", "--rm", "--read-only", address], capture_output=True, text=True
    )
    assert "TELEGRAM_TOKEN is not set" in ran.stderr


@pytest.mark.usefixtures("pushed")
def test_a_second_push_pushes_nothing(account: dict[str, str], small: Path, ecr: Registry) -> None:
    again = push(account, small)
    assert again.returncode == 0, f"{again.stdout}{again.stderr}"
    for name in NAMES:
        assert f"{HOST}/stylebot-{name}:{TAG} is there already." in again.stdout
        assert ecr.digest(f"stylebot-{name}", TAG) in again.stdout
    assert "Pushing" not in again.stdout
    assert "create the repository" not in again.stderr


@pytest.mark.usefixtures("pushed")
def test_what_was_pushed_is_what_runs(account: dict[str, str], ecr: Registry) -> None:
    planned = subprocess.run(
        ["./deploy.py", "up", "--plan"], cwd=ROOT, env=account, capture_output=True, text=True
    )
    assert planned.returncode == 0, planned.stderr
    for name in ("nst", "cyclegan"):
        assert (
            f"of the image stylebot-{name}@{ecr.digest(f'stylebot-{name}', TAG)[:19]}"
            in planned.stdout
        )


@pytest.mark.usefixtures("pushed")
def test_another_image_under_a_tag_that_is_taken_is_refused(
    account: dict[str, str], small: Path, ecr: Registry
) -> None:
    before = ecr.digest("stylebot-nst", TAG)
    (small / "Dockerfile").write_text("FROM scratch\nCOPY bot.py /\nARG BASE_IMAGE\n")
    refused = push(account, small)
    assert refused.returncode == 1
    assert f"{HOST}/stylebot-nst:{TAG} is there already, and is another image" in refused.stderr
    assert "--tag NAME" in refused.stderr
    assert ecr.digest("stylebot-nst", TAG) == before


# ---------------------------------------------------------------- its messages, with a stand-in for Docker


class Refusing(BaseHTTPRequestHandler):
    """AWS for credentials that may do nothing: everything is refused but to ask who one is."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if b"GetCallerIdentity" in body:
            arn = f"<Arn>arn:aws:iam::{aws.ACCOUNT}:user/me</Arn><UserId>A</UserId><Account>{aws.ACCOUNT}</Account>"
            answer = f"<R><GetCallerIdentityResult>{arn}</GetCallerIdentityResult></R>".encode()
            return self.answer(200, answer)
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        message = f"User: arn:aws:iam::{aws.ACCOUNT}:user/me is not authorized to perform: ecr:{operation}"
        return self.answer(
            400, json.dumps({"__type": "AccessDeniedException", "message": message}).encode()
        )

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
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
  login) cat >"$CALLS/password"; [ -z "$NO_LOGIN" ] || { echo "Error: dial tcp: no route to host" >&2; exit 1; } ;;
  push) [ -z "$NO_PUSH" ] || { echo "denied: requested access to the resource is denied" >&2; exit 1; } ;;
  image) [[ $* != *RepoDigests* ]] || echo "${*: -1}" | sed 's/:[^:]*$/@sha256:0123/' ;;
esac
"""


@pytest.fixture
def stand_in(bench: Bench, account: dict[str, str]) -> Bench:  # noqa: F811
    aws.forget_everything(account["AWS_ENDPOINT_URL"])
    bench.command("docker", STAND_IN)
    (bench.folder / "cat").symlink_to("/bin/cat")
    return bench


def test_push_logs_in_by_ecrs_password_and_only_where_it_is_needed(stand_in: Bench) -> None:
    done = stand_in.build("--push", "--tag", "v1")
    assert done.returncode == 0, done.stderr
    calls = (stand_in.folder / "calls").read_text().splitlines()
    assert f"login --username AWS --password-stdin {HOST}" in calls
    assert calls[-1] == f"logout {HOST}"
    assert (stand_in.folder / "password").read_text().strip() == f"{aws.ACCOUNT}-auth-token"
    assert "auth-token" not in done.stdout + done.stderr + "".join(calls)
    assert [call for call in calls if call.startswith("push ")] == [
        f"push {HOST}/stylebot-{name}:v1" for name in NAMES
    ]
    for name in NAMES:
        assert f"{HOST}/stylebot-{name}:v1  sha256:0123" in done.stdout


def test_push_takes_region_and_prefix(stand_in: Bench) -> None:
    done = stand_in.build("--push", "--tag", "v1", "--region", "us-west-2", "--prefix", "art")
    assert done.returncode == 0, done.stderr
    assert f"{aws.ACCOUNT}.dkr.ecr.us-west-2.amazonaws.com/art-nst:v1" in done.stdout
    found = boto3.client("ecr", region_name="us-west-2").describe_repositories()["repositories"]
    assert {one["repositoryName"] for one in found} == {"art-nst", "art-cyclegan", "art-bot"}


def test_a_build_without_push_asks_nobody(stand_in: Bench) -> None:
    assert stand_in.build("--tag", "v1", AWS_ENDPOINT_URL="http://127.0.0.1:9").returncode == 0
    assert "login" not in (stand_in.folder / "calls").read_text()


def test_a_tree_that_differs_from_its_commit_says_so(stand_in: Bench) -> None:
    stand_in.command("git", "#!/bin/bash\necho abc1234-dirty\n")
    done = stand_in.build("--push")
    assert done.returncode == 0, done.stderr
    assert "Files differ from the commit: the images are tagged abc1234-dirty." in done.stderr
    assert f"{HOST}/stylebot-nst:abc1234-dirty" in done.stdout


@pytest.mark.parametrize(
    ("environment", "cause", "mend"),
    [
        (
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
            "Unable to locate credentials",
            "aws configure",
        ),
        ({"AWS_DEFAULT_REGION": ""}, "No region is set", "--region eu-west-1"),
        ({"AWS_DEFAULT_REGION": "eu-wst-1"}, "no SageMaker in a region eu-wst-1", "eu-west-1"),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"},
            "Could not connect",
            "Check the network",
        ),
    ],
)
def test_push_says_before_the_build_what_is_wrong_with_aws(
    stand_in: Bench, environment: dict[str, str], cause: str, mend: str
) -> None:
    done = stand_in.build("--push", "--tag", "v1", **environment)
    assert done.returncode == 1
    assert cause in done.stderr
    assert mend in done.stderr
    assert stand_in.builds() == []


def test_push_names_the_missing_permission(stand_in: Bench, refusing: str) -> None:
    done = stand_in.build("--push", "--tag", "v1", AWS_ENDPOINT_URL=refusing)
    assert done.returncode == 1
    assert "not authorized to perform: ecr:DescribeRepositories" in done.stderr
    assert "./deploy.py policy deployer" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("environment", "cause", "mend"),
    [
        (
            {"NO_LOGIN": "yes"},
            f"Docker could not log in to {HOST}: Error: dial tcp: no route to host",
            "Mend: check",
        ),
        ({"NO_PUSH": "yes"}, "stylebot-nst:v1 was not pushed", "docker system prune"),
    ],
)
def test_push_says_what_docker_could_not_do(
    stand_in: Bench, environment: dict[str, str], cause: str, mend: str
) -> None:
    done = stand_in.build("--push", "--tag", "v1", **environment)
    assert done.returncode == 1
    assert cause in done.stderr
    assert mend in done.stderr
