"""The parts of compose.yaml that are no image of their own: `python -m local.compose PART`.

    hold        nothing; it keeps the network of all
    storage     SeaweedFS; at its first start it makes all keys
    sagemaker   packages/sagemaker-local-async: SageMaker in front of the model servers
    chat        local/telegram
    painters    keeps the catalog of the painters, and says where the chat is

All containers share one network namespace, so that 127.0.0.1 is theirs alone: every part listens
there, as with ./local.sh. Only the chat listens at all addresses, because Docker forwards to it
from 127.0.0.1 of the machine. The keys are files in a volume of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import requests
from botocore.exceptions import BotoCoreError, ClientError

from bot import FAILURE_PREFIX, MODELS, OUTPUT_PREFIX
from local.address import Address, make_key, read_address, write_address
from local.files import write_private
from local.model_servers import TRAINER_COMMAND
from local.painters import Painters, sagemaker_client, write_training_template
from local.processes import say
from local.seaweedfs import credentials_file, s3_client, s3_environment, storage_command
from local.stack import BUCKET
from local.telegram.store import BUTTON_PICTURES
from local.thumbnails import Thumbnails

DATA = Path("/data")
KEYS = Path("/keys")
S3_PORT = 8333
SAGEMAKER_PORT = 8090
MODEL_PORTS = {"nst": 8081, "cyclegan": 8082}
SAGEMAKER_URL = f"http://127.0.0.1:{SAGEMAKER_PORT}"
# Exists once the bot may start. compose.yaml looks for it.
READY = Path("/tmp/ready")
RETRY_SECONDS = 1.0


def storage() -> None:
    make_keys()
    objects = DATA / "s3"
    objects.mkdir(exist_ok=True)
    logs = DATA / "logs"
    logs.mkdir(exist_ok=True)
    program, *options = storage_command(objects, credentials_file(KEYS), S3_PORT)
    # It says so much that nobody would see the address of the chat: only errors go to the terminal.
    options.remove("-logtostderr=true")
    replace_process([program, "-logtostderr=false", f"-logdir={logs}", *options], {})


def make_keys() -> None:
    """Write the keys of the storage, the bot and the page, unless an earlier start did."""
    environment = s3_environment(credentials_file(KEYS), S3_PORT)
    lines = [
        "[default]",
        f"aws_access_key_id = {environment['AWS_ACCESS_KEY_ID']}",
        f"aws_secret_access_key = {environment['AWS_SECRET_ACCESS_KEY']}",
    ]
    # boto3 in the other images reads this file.
    write_private(KEYS / "credentials", "\n".join(lines).encode())
    token = KEYS / "token"
    if not token.exists():
        write_private(token, f"1:{secrets.token_urlsafe(24)}".encode())
    path = KEYS / "address.json"
    kept = read_address(path)
    write_address(path, Address(chat_port(), kept.key if kept else make_key()))


def chat_port() -> int:
    """Return the port of the page on the machine, and in the container."""
    return int(os.environ["CHAT_PORT"])


def find_address() -> Address:
    address = read_address(KEYS / "address.json")
    assert address, "the storage writes it before the other parts start"
    return address


def sagemaker() -> None:
    command = [
        sys.executable,
        "-m",
        "sagemaker_local",
        f"--port={SAGEMAKER_PORT}",
        "--signed",
        f"--output=s3://{BUCKET}/{OUTPUT_PREFIX}",
        f"--failure=s3://{BUCKET}/{FAILURE_PREFIX}",
        f"--training={DATA / 'training'}",
        f"--trainer={' '.join(TRAINER_COMMAND)}",
    ]
    command += [f"--endpoint={name}=http://127.0.0.1:{MODEL_PORTS[name]}" for name in MODELS]
    replace_process(command, s3_environment(credentials_file(KEYS), S3_PORT))


def chat() -> None:
    address = find_address()
    command = [
        sys.executable,
        "-m",
        "local.telegram",
        f"--port={address.port}",
        f"--data={DATA / 'chat'}",
        "--any-address",
    ]
    token = (KEYS / "token").read_text()
    replace_process(command, {"TELEGRAM_TOKEN": token, "CHAT_KEY": address.key})


def painters() -> None:
    """Keep the painters and their pictures up to date until SIGTERM."""
    environment = s3_environment(credentials_file(KEYS), S3_PORT)
    sagemaker = sagemaker_client("sagemaker", environment, SAGEMAKER_URL)
    wait_for(lambda: bool(sagemaker.list_endpoints()["Endpoints"]))
    write_training_template(s3_client(environment), BUCKET)
    folder = DATA / "models"
    folder.mkdir(exist_ok=True)
    keeper = Painters(folder, BUCKET, environment, SAGEMAKER_URL)
    has_catalog = keeper.has_catalog()
    keeper.start()
    Thumbnails(DATA / "chat" / BUTTON_PICTURES, BUCKET, environment).start()
    # Without a catalog the bot offers the authors' painters, which may not be there.
    wait_for(lambda: has_catalog or keeper.has_answer.is_set())
    READY.touch()
    say(f"The chat: {find_address().page}")
    signal.pause()


def wait_for(is_true: Callable[[], bool]) -> None:
    """Wait as long as it takes; what a call cannot reach yet comes up later."""
    while True:
        try:
            if is_true():
                return
        except (BotoCoreError, ClientError, requests.RequestException):
            pass
        time.sleep(RETRY_SECONDS)


def replace_process(command: Sequence[str], environment: dict[str, str]) -> None:
    """Become the program, which then gets Docker's signals."""
    sys.stdout.flush()
    os.execve(command[0], list(command), os.environ | environment)


def hold() -> None:
    """Keep the network namespace of all parts."""
    signal.pause()


PARTS = {
    "hold": hold,
    "storage": storage,
    "sagemaker": sagemaker,
    "chat": chat,
    "painters": painters,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m local.compose",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", choices=list(PARTS))
    part = parser.parse_args().part
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.umask(0o077)
    with contextlib.suppress(KeyboardInterrupt):
        PARTS[part]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
