"""The files that a training learns from: found, checked before anything is spent, and uploaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

from aws.account import Account
from aws.changes import run_in_parallel
from aws.messages import DeployError, say

# Position, bytes and suffix of each format that the trainer reads
SIGNATURES = (
    (0, b"\xff\xd8\xff", ".jpg"),
    (0, b"\x89PNG\r\n\x1a\n", ".png"),
    (8, b"WEBP", ".webp"),
    (0, b"BM", ".bmp"),
    (0, b"II*\0", ".tif"),
    (0, b"MM\0*", ".tif"),
    (4, b"ftypavif", ".avif"),
    (4, b"ftypheic", ".heic"),
    (4, b"ftypmif1", ".heic"),
)
# PyTorch's checkpoints: a ZIP file or, before version 1.6, a pickle
CHECKPOINT_SIGNATURES = (b"PK\x03\x04", b"\x80\x02")
# Files that macOS and Windows put into each folder are no pictures, and not worth a word.
SILENT = (".ds_store", "thumbs.db", "desktop.ini")
# A training instance has a disk of 30 GB.
MAX_BYTES = 20 * 10**9
# The trainer takes no fewer.
FEWEST_PICTURES = 3
UPLOAD_THREADS = 8
# Objects under training/ expire after 30 days. A younger one is not uploaded again.
FRESH = timedelta(days=7)


@dataclass(frozen=True)
class InputFile:
    """A file that a training reads."""

    path: Path
    # Its key in the bucket, below the job's folder, such as style/00001.jpg
    key: str
    bytes: int
    sha256: str


def find_suffix(path: Path) -> str | None:
    """Return the suffix of the format that the file's first bytes tell; None if it is no picture.

    Raises DeployError if the file cannot be read.
    """
    head = read_head(path)
    for position, signature, suffix in SIGNATURES:
        if head[position:].startswith(signature):
            return suffix
    return None


def read_head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise DeployError(f"{path} cannot be read: {error.strerror}.") from None


def read_style_pictures(paths: list[Path]) -> list[InputFile]:
    """Return the channel style. Raises DeployError if one of the files is no picture."""
    files = []
    for number, path in enumerate(paths, 1):
        suffix = find_suffix(path)
        if suffix is None:
            raise DeployError(
                f"{path} is no picture. A training needs a JPEG, PNG, WebP, AVIF, HEIC, TIFF or "
                "BMP file."
            )
        files.append(describe_file(path, f"style/{number:05}{suffix}"))
    return files


def read_folder(folder: Path, channel: str, option: str) -> list[InputFile]:
    """Return the pictures in a folder and its folders. Files that are no pictures are told.

    Raises DeployError if there are too few pictures.
    """
    if not folder.is_dir():
        raise DeployError(f"{option} {folder} is no folder.")
    files: list[InputFile] = []
    for path in sorted(folder.rglob("*")):
        is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if is_hidden or not path.is_file() or path.name.lower() in SILENT:
            continue
        suffix = find_suffix(path)
        if suffix is None:
            say(f"{path} is no picture, and is left out.")
            continue
        files.append(describe_file(path, f"{channel}/{len(files) + 1:05}{suffix}"))
    if len(files) < FEWEST_PICTURES:
        raise DeployError(
            f"{option} {folder} has {len(files)} pictures in it; a training needs at least "
            f"{FEWEST_PICTURES}, and is better with a hundred."
        )
    return files


def read_checkpoint(path: Path) -> list[InputFile]:
    """Return the channel from. Raises DeployError if the file is no checkpoint of PyTorch."""
    if not read_head(path).startswith(CHECKPOINT_SIGNATURES):
        raise DeployError(f"--from {path} is no checkpoint. It must be a file style_NAME.pth.")
    return [describe_file(path, "from/painter.pth")]


def describe_file(path: Path, key: str) -> InputFile:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
            size = file.tell()
    except OSError as error:
        raise DeployError(f"{path} cannot be read: {error.strerror}.") from None
    return InputFile(path, key, size, digest.hexdigest())


def check_size(files: list[InputFile]) -> None:
    """Raise DeployError if the files do not fit on a training instance."""
    total = sum(file.bytes for file in files)
    if total > MAX_BYTES:
        raise DeployError(
            f"The pictures have {total / 1e9:.0f} GB; at most {MAX_BYTES / 1e9:.0f} GB fit on a "
            "training instance. Take fewer, or smaller ones: 1000 pixels are enough."
        )


def find_fingerprint(painter: str, minutes: float, files: list[InputFile]) -> str:
    """Return eight hexadecimal digits that are the same for the same painter, time and files."""
    contents = [painter, f"{minutes:g}", [[file.key, file.sha256] for file in files]]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:8]


# ---------------------------------------------------------------- upload


def upload(account: Account, folder: str, files: list[InputFile]) -> None:
    """Put the files into that folder of the bucket, except those that are there already.

    The folder's name has the fingerprint of the files in it, so what is there is the same.
    """
    present = set(list_fresh_keys(account, folder))
    missing = [file for file in files if folder + file.key not in present]
    if not missing:
        return
    megabytes = sum(file.bytes for file in missing) / 1e6
    say(f"upload {megabytes:.1f} MB to s3://{account.bucket}/{folder}")
    parts = [missing[start::UPLOAD_THREADS] for start in range(UPLOAD_THREADS)]
    run_in_parallel([partial(put_files, account, folder, part) for part in parts if part])


def list_fresh_keys(account: Account, folder: str) -> Iterator[str]:
    oldest = datetime.now(timezone.utc) - FRESH
    paginator = account.s3.get_paginator("list_objects_v2")
    for page in paginator.paginate(Bucket=account.bucket, Prefix=folder):
        for item in page.get("Contents", []):
            if item["LastModified"] > oldest:
                yield item["Key"]


def put_files(account: Account, folder: str, files: list[InputFile]) -> None:
    for file in files:
        with file.path.open("rb") as body:
            account.s3.put_object(Bucket=account.bucket, Key=folder + file.key, Body=body)
