"""An ECR on this machine: moto answers its API, Debian's docker-registry takes the layers by TLS.

Docker and build.sh are unmodified, and use ECR's own host name: while the registry runs, /etc/hosts
resolves that name to this machine, and Docker trusts the registry's certificate (Docker reads
/etc/docker/certs.d at each request). Both are restored in the end. This needs root.
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

from tests.fakes.aws import ACCOUNT, MANIFEST_TYPE, OCI_MANIFEST_TYPE, REGION
from tests.fakes.servers import wait_until

HOST = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
# What moto's GetAuthorizationToken returns
PASSWORD = f"{ACCOUNT}-auth-token"
CONFIGURATION = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http:
  addr: "127.0.0.1:443"
  secret: any
  tls: {{certificate: {folder}/cert.pem, key: {folder}/key.pem}}
auth: {{htpasswd: {{realm: ecr, path: {folder}/htpasswd}}}}
"""


@dataclass
class Registry:
    """The running registry, asked over HTTPS."""

    certificate: Path

    def get(self, path: str) -> requests.Response:
        answer = requests.get(
            f"https://{HOST}/v2/{path}",
            timeout=10,
            auth=("AWS", PASSWORD),
            verify=str(self.certificate),
            headers={"Accept": f"{MANIFEST_TYPE}, {OCI_MANIFEST_TYPE}"},
        )
        answer.raise_for_status()
        return answer

    def digest(self, repository: str, tag: str) -> str:
        return self.get(f"{repository}/manifests/{tag}").headers["Docker-Content-Digest"]

    def push_again_as_oci(self, repository: str, tag: str, new_tag: str) -> None:
        """Push an image as an engine with containerd's image store does by default.

        The layers and the configuration are the same; only the media types differ.
        """
        manifest = self.get(f"{repository}/manifests/{tag}").json()
        manifest["mediaType"] = OCI_MANIFEST_TYPE
        manifest["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json"
        for layer in manifest["layers"]:
            layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip"
        answer = requests.put(
            f"https://{HOST}/v2/{repository}/manifests/{new_tag}",
            json=manifest,
            timeout=10,
            auth=("AWS", PASSWORD),
            verify=str(self.certificate),
            headers={"Content-Type": OCI_MANIFEST_TYPE},
        )
        answer.raise_for_status()

    def copy_images_to_ecr(self) -> None:
        """Make moto know what was pushed, as ECR itself does."""
        for repository in self.get("_catalog").json()["repositories"]:
            images = ecr_backends[ACCOUNT][REGION].repositories[repository].images
            known_tags = {tag for image in images for tag in image.image_tags}
            for tag in self.get(f"{repository}/tags/list").json()["tags"]:
                if tag not in known_tags:
                    self.copy_image_to_ecr(repository, tag)

    def copy_image_to_ecr(self, repository: str, tag: str) -> None:
        manifest = self.get(f"{repository}/manifests/{tag}")
        ecr = boto3.client("ecr", region_name=REGION)
        ecr.put_image(repositoryName=repository, imageManifest=manifest.text, imageTag=tag)
        image = ecr_backends[ACCOUNT][REGION].repositories[repository].images[-1]
        # moto computes digests of its own.
        image._image_digest = manifest.headers["Docker-Content-Digest"]


@contextmanager
def edited_hosts() -> Iterator[None]:
    """Resolve ECR's host name to this machine."""
    hosts = Path("/etc/hosts")
    # Without the line of an earlier run that was killed before it could take its own away.
    lines = [line for line in hosts.read_text().splitlines() if HOST not in line]
    before = "\n".join(lines) + "\n"
    try:
        # Written in place: in a container the file may be a mount.
        hosts.write_text(f"{before}127.0.0.1 {HOST}\n")
        yield
    finally:
        hosts.write_text(before)


@contextmanager
def trusted(certificate: Path) -> Iterator[None]:
    """Make Docker trust the certificate for ECR's host name.

    A certificate that is there already is from a run that was killed: the account is AWS's own
    example, so that nobody can have a registry there.
    """
    folder = Path("/etc/docker/certs.d") / HOST
    shutil.rmtree(folder, ignore_errors=True)
    # The topmost folder that is created here, and deleted in the end
    created = folder
    while not created.parent.exists():
        created = created.parent
    folder.mkdir(parents=True)
    try:
        shutil.copy(certificate, folder / "ca.crt")
        yield
    finally:
        shutil.rmtree(created)


def write_certificate(folder: Path, host: str = HOST) -> Path:
    """Write a self-signed certificate and its key.pem, and return the certificate's path."""
    certificate = folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate


def write_password(folder: Path) -> None:
    """Write the password's bcrypt hash, the only form that the registry takes.

    Python's standard library has no bcrypt; perl, which every Debian has, uses the one of libc.
    """
    salt = "$2y$05$" + "stylebotstylebotstyle."
    program = ["perl", "-e", "print crypt($ARGV[0], $ARGV[1])", PASSWORD, salt]
    hashed = subprocess.check_output(program, text=True)
    (folder / "htpasswd").write_text(f"AWS:{hashed}\n")


@contextmanager
def registry(folder: Path) -> Iterator[Registry]:
    """Run the registry with its files in a folder."""
    certificate = write_certificate(folder)
    write_password(folder)
    configuration = folder / "config.yml"
    configuration.write_text(CONFIGURATION.format(folder=folder))
    log_file = folder / "log"
    command = ["docker-registry", "serve", str(configuration)]
    with edited_hosts(), trusted(certificate), log_file.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        running = Registry(certificate)

        def has_started_or_ended() -> bool:
            return process.poll() is not None or answers(running)

        try:
            wait_until(has_started_or_ended, 20, "the registry did not start")
            assert process.poll() is None, log_file.read_text()
            yield running
        finally:
            process.terminate()
            process.wait(20)


def answers(running: Registry) -> bool:
    try:
        return running.get("").ok
    except requests.RequestException:
        return False
