"""An ECR on this machine: moto has its API, Debian's docker-registry takes the layers, by TLS, under ECR's own name.

Docker and build.sh are unmodified. While it runs, /etc/hosts leads ECR's name here, and Docker trusts its certificate
(/etc/docker/certs.d is read at each request); both are put back in the end. That takes root.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import requests
from moto.ecr.models import ecr_backends

from tests.fakes.aws import ACCOUNT, REGION
from tests.fakes.servers import wait_until

HOST = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
PASSWORD = f"{ACCOUNT}-auth-token"  # what moto's GetAuthorizationToken gives
CONFIGURATION = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "127.0.0.1:443", secret: any, tls: {{certificate: {folder}/cert.pem, key: {folder}/key.pem}}}}
auth: {{htpasswd: {{realm: ecr, path: {folder}/htpasswd}}}}
"""
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass
class Registry:
    certificate: Path

    def get(self, path: str) -> requests.Response:
        options = {
            "auth": ("AWS", PASSWORD),
            "verify": str(self.certificate),
            "headers": {"Accept": MANIFEST},
        }
        answer = requests.get(f"https://{HOST}/v2/{path}", timeout=10, **options)  # type: ignore[arg-type]
        answer.raise_for_status()
        return answer

    def digest(self, repository: str, tag: str) -> str:
        return self.get(f"{repository}/manifests/{tag}").headers["Docker-Content-Digest"]

    def tell_ecr(self) -> None:
        """ECR's API learns of what was pushed, as ECR itself would know it."""
        ecr, backend = boto3.client("ecr", region_name=REGION), ecr_backends[ACCOUNT][REGION]
        for repository in self.get("_catalog").json()["repositories"]:
            known = {
                tag for image in backend.repositories[repository].images for tag in image.image_tags
            }
            for tag in set(self.get(f"{repository}/tags/list").json()["tags"]) - known:
                manifest = self.get(f"{repository}/manifests/{tag}")
                ecr.put_image(repositoryName=repository, imageManifest=manifest.text, imageTag=tag)
                image = backend.repositories[repository].images[-1]
                image._image_digest = manifest.headers[
                    "Docker-Content-Digest"
                ]  # moto has digests of its own


@contextmanager
def edited_hosts() -> Iterator[None]:
    hosts = Path("/etc/hosts")
    before = hosts.read_bytes()
    try:
        hosts.write_bytes(
            before.rstrip(b"\n") + f"\n127.0.0.1 {HOST}\n".encode()
        )  # in place: it may be a mount
        yield
    finally:
        hosts.write_bytes(before)


@contextmanager
def trusted(certificate: Path) -> Iterator[None]:
    folder = Path("/etc/docker/certs.d")
    made = next(
        (path for path in (Path("/etc/docker"), folder, folder / HOST) if not path.exists()), None
    )
    assert made is not None, f"{folder / HOST} is there already"
    (folder / HOST).mkdir(parents=True)
    try:
        shutil.copy(certificate, folder / HOST / "ca.crt")
        yield
    finally:
        shutil.rmtree(made)


def write_certificate(folder: Path) -> Path:
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        f"/CN={HOST}",
    ]
    command += [
        "-addext",
        f"subjectAltName=DNS:{HOST}",
        "-keyout",
        folder / "key.pem",
        "-out",
        folder / "cert.pem",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "cert.pem"


def write_password(folder: Path) -> None:
    """In the only form that the registry takes, bcrypt; perl is on every Debian."""
    salt = "$2y$05$" + "stylebotstylebotstyle."
    program = ["perl", "-e", "print crypt($ARGV[0], $ARGV[1])", PASSWORD, salt]
    (folder / "htpasswd").write_text(f"AWS:{subprocess.check_output(program, text=True)}\n")


@contextmanager
def registry(folder: Path) -> Iterator[Registry]:
    certificate = write_certificate(folder)
    write_password(folder)
    (folder / "config.yml").write_text(CONFIGURATION.format(folder=folder))
    with edited_hosts(), trusted(certificate), open(folder / "log", "w") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log
        )
        running = Registry(certificate)
        try:
            wait_until(
                lambda: process.poll() is not None or answers(running),
                20,
                "the registry did not start",
            )
            assert process.poll() is None, (folder / "log").read_text()
            yield running
        finally:
            process.terminate()
            process.wait(20)


def answers(running: Registry) -> bool:
    try:
        return running.get("").ok
    except requests.RequestException:
        return False
