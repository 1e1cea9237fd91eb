"""Reading and writing images by URL, limited in size and time: s3:// and https:// addresses.

ALLOW_HTTP=1 allows http:// too. ALLOW_PRIVATE_HOSTS=1 allows URLs that lead to this machine or its
own network. Otherwise
they are refused: on SageMaker, 169.254.169.254 gives the role's credentials to everyone who can ask
    for them.
"""

import ipaddress
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from containers.common.errors import ErrorCode

from .errors import ApiError, bad_request
from .limits import MAX_FILE_MEGABYTES

# For one transfer as a whole.
TRANSFER_SECONDS = 60
CONNECT_SECONDS = 5
# Without a byte.
READ_SECONDS = 15
MAX_REDIRECTS = 5
CHUNK_BYTES = 1 << 16


def check_url(url: object, name: str) -> str:
    """Return `url` if it is of an allowed kind. name: the field of the request.

    Raises ApiError bad_request.
    """
    if not isinstance(url, str) or not url.isprintable() or not url.strip():
        raise bad_request(
            f"{name} must be an address such as s3://bucket/key or https://host/path."
        )
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError for an invalid port
    except ValueError:
        raise bad_request(f"{name} is not a valid address.") from None

    schemes = ["s3", "https"]
    if setting("ALLOW_HTTP"):
        schemes.append("http")
    if parts.scheme not in schemes:
        prefixes = " or ".join(f"{scheme}://" for scheme in schemes)
        raise bad_request(f"{name} must begin with {prefixes}.")
    if parts.scheme == "s3" and not (parts.hostname and parts.path.strip("/")):
        raise bad_request(f"{name} names no object.")
    if not parts.hostname:
        raise bad_request(f"{name} names no host.")
    if parts.username or parts.password:
        raise bad_request(f"{name} must not hold a user name or password.")
    return url


def read(url: str, name: str) -> bytes:
    """Return the bytes at `url`. name: the field of the request.

    Raises ApiError object_not_found, file_too_large, access_denied, private_address or
    storage_failed.
    """
    if url.startswith("s3://"):
        return read_s3(url, name)
    return read_http(url, name)


def write(url: str, data: bytes, content_type: str, name: str) -> None:
    """Put `data` at `url`. Raises ApiError, as `read` does."""
    if url.startswith("s3://"):
        write_s3(url, data, content_type, name)
    else:
        write_http(url, data, content_type, name)


def without_query(url: str) -> str:
    """Return `url` in a form that may be shown: the query of a signed URL is a secret."""
    return urlsplit(url)._replace(query="", fragment="").geturl()


def extension(url: str) -> str:
    """Return ".png" for s3://bucket/picture.PNG?signature."""
    return PurePosixPath(urlsplit(url).path).suffix.lower()


def setting(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")


# --- s3:// ---


@cache
def s3() -> Any:  # noqa: ANN401 - boto3 makes its clients' classes at run time
    """Return the S3 client.

    boto3 is slow to import, and a server without S3 URLs never needs it.
    """
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": 4},
    )
    # The region only has to be set; S3 itself tells where a bucket is.
    region = os.environ.get("AWS_REGION") or None
    return boto3.client("s3", region_name=region, config=config)


def bucket_and_key(url: str) -> dict[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


def read_s3(url: str, name: str) -> bytes:
    deadline = time.monotonic() + TRANSFER_SECONDS
    with s3_errors(url, name):
        answer = s3().get_object(**bucket_and_key(url))
        check_size(answer["ContentLength"], name)
        chunks = iter(lambda: answer["Body"].read(CHUNK_BYTES), b"")
        return read_all(chunks, deadline, name)


def write_s3(url: str, data: bytes, content_type: str, name: str) -> None:
    with s3_errors(url, name):
        s3().put_object(**bucket_and_key(url), Body=data, ContentType=content_type)


@dataclass(frozen=True)
class ListedObject:
    """An object as a listing of S3 tells it. size: in bytes. etag: another one after a change."""

    url: str
    size: int
    etag: str


def list_s3(url: str, name: str) -> list[ListedObject]:
    """Return the first 1000 objects whose addresses begin with `url`, sorted by key.

    Raises ApiError, as `read` does.
    """
    place = bucket_and_key(url)
    with s3_errors(url, name):
        answer = s3().list_objects_v2(Bucket=place["Bucket"], Prefix=place["Key"])
    objects = []
    for item in answer.get("Contents", ()):
        address = f"s3://{place['Bucket']}/{item['Key']}"
        objects.append(ListedObject(address, item["Size"], item["ETag"]))
    return objects


@contextmanager
def s3_errors(url: str, name: str) -> Iterator[None]:
    """Translate boto3's errors within the block to ApiError."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        raise s3_error(code, url, name) from None
    except NoCredentialsError:
        raise ApiError(
            ErrorCode.ACCESS_DENIED,
            f"{name}: this server has no AWS credentials, which s3:// addresses need. "
            "Send the file itself.",
        ) from None
    except (BotoCoreError, HTTPError, OSError) as error:
        raise unreachable(name, type(error).__name__) from None


def s3_error(code: str, url: str, name: str) -> ApiError:
    """Return the error for a code of S3, such as NoSuchKey."""
    if code in ("NoSuchKey", "NoSuchBucket", "404"):
        return ApiError(ErrorCode.OBJECT_NOT_FOUND, f"{name}: there is nothing at {url}.")
    if code in ("AccessDenied", "403"):
        return ApiError(
            ErrorCode.ACCESS_DENIED,
            f"{name}: S3 denies access to {url}; the model's role needs permission for it.",
        )
    return ApiError(ErrorCode.STORAGE_FAILED, f"{name}: S3 answered {code} for {url}.")


# --- https:// ---


def read_http(url: str, name: str) -> bytes:
    deadline = time.monotonic() + TRANSFER_SECONDS
    for _ in range(MAX_REDIRECTS + 1):
        with http("GET", url, name) as answer:
            if not answer.is_redirect:
                return read_body(answer, deadline, name)
            url = check_url(urljoin(url, answer.headers["Location"]), name)
        if url.startswith("s3://"):
            raise bad_request(f"{name} redirects to S3, which is not followed.")
    raise bad_request(f"{name} redirects more than {MAX_REDIRECTS} times.")


def read_body(answer: requests.Response, deadline: float, name: str) -> bytes:
    check_status(answer, name)
    check_size(int(answer.headers.get("Content-Length", 0) or 0), name)
    # read1 returns what has arrived so far, so that a slow trickle cannot outlast the deadline
    chunks = iter(lambda: answer.raw.read1(CHUNK_BYTES, decode_content=True), b"")
    try:
        return read_all(chunks, deadline, name)
    except (HTTPError, OSError) as error:
        raise unreachable(name, type(error).__name__) from None


def write_http(url: str, data: bytes, content_type: str, name: str) -> None:
    with http("PUT", url, name, data, {"Content-Type": content_type}) as answer:
        check_status(answer, name)


def http(
    method: str,
    url: str,
    name: str,
    data: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> requests.Response:
    """Send one request and return the answer, whose body is not read yet.

    Raises ApiError private_address or storage_failed. Its message never holds str(error), which has
    the URL.
    """
    try:
        return session().request(
            method,
            url,
            data=data,
            headers=headers,
            stream=True,
            allow_redirects=False,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
        )
    except PrivateAddressError:
        raise private_address(name) from None
    except (requests.RequestException, HTTPError, OSError, ValueError) as error:
        if caused_by(error, PrivateAddressError):
            raise private_address(name) from None
        raise unreachable(name, type(error).__name__) from None


def check_status(answer: requests.Response, name: str) -> None:
    if answer.status_code in (404, 410):
        raise ApiError(
            ErrorCode.OBJECT_NOT_FOUND, f"{name}: there is nothing at this address (HTTP 404)."
        )
    if not answer.ok or answer.is_redirect:
        raise ApiError(
            ErrorCode.STORAGE_FAILED, f"{name}: its server answered HTTP {answer.status_code}."
        )


def read_all(chunks: Iterable[bytes], deadline: float, name: str) -> bytes:
    """Join the chunks. Raises ApiError if they are too many or go on after the deadline."""
    data = bytearray()
    for chunk in chunks:
        data += chunk
        check_size(len(data), name)
        if time.monotonic() > deadline:
            raise unreachable(name, f"not done after {TRANSFER_SECONDS} s")
    return bytes(data)


def check_size(size: int, name: str) -> None:
    if size > MAX_FILE_MEGABYTES << 20:
        raise ApiError(
            ErrorCode.FILE_TOO_LARGE,
            f"{name}: the file is larger than {MAX_FILE_MEGABYTES} MB. Send a smaller one.",
        )


def unreachable(name: str, why: str) -> ApiError:
    return ApiError(
        ErrorCode.STORAGE_FAILED,
        f"{name}: its server could not be reached or broke off ({why}).",
    )


def private_address(name: str) -> ApiError:
    return ApiError(
        ErrorCode.PRIVATE_ADDRESS, f"{name} leads to a private address, which is refused."
    )


# --- private addresses ---


class PrivateAddressError(Exception):
    """A connection would lead to this machine or its own network."""


def caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Return whether `error`, one of its causes, or one of their arguments is of this kind."""
    while error is not None:
        if isinstance(error, kind):
            return True
        if any(isinstance(argument, kind) for argument in error.args):
            return True
        error = error.__cause__ or error.__context__
    return False


def check_address(address: str) -> None:
    """Raise PrivateAddressError for an IP address that is not on the public internet."""
    if setting("ALLOW_PRIVATE_HOSTS"):
        return
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = embedded_ipv4(ip) or ip
    if not ip.is_global or ip.is_multicast:
        raise PrivateAddressError


def embedded_ipv4(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address leads to by mapping, 6to4, Teredo or NAT64."""
    if ip.ipv4_mapped:
        return ip.ipv4_mapped
    if ip.sixtofour:
        return ip.sixtofour
    if ip.teredo:
        _, client = ip.teredo
        return client
    if ip in ipaddress.ip_network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return None


class GuardedConnection:
    """Mixed into urllib3's connections: checks where a connection leads before anything is sent.

    The name is resolved and checked first, for a quick answer. Then the address of the real
    connection is checked, since a name may resolve differently the second time.
    """

    host: str
    port: int

    def _new_conn(self) -> socket.socket:
        for *_, address in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            check_address(str(address[0]))
        connection: socket.socket = super()._new_conn()  # type: ignore[misc]
        try:
            check_address(connection.getpeername()[0])
        except PrivateAddressError:
            connection.close()
            raise
        return connection


class GuardedHTTPConnection(GuardedConnection, HTTPConnection):
    pass


class GuardedHTTPSConnection(GuardedConnection, HTTPSConnection):
    pass


class GuardedHTTPPool(HTTPConnectionPool):
    ConnectionCls = GuardedHTTPConnection


class GuardedHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = GuardedHTTPSConnection


class GuardedAdapter(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {
            "http": GuardedHTTPPool,
            "https": GuardedHTTPSPool,
        }


class GuardedSession(requests.Session):
    """A session that leaves redirects to its caller.

    requests reads the whole body of a redirect, without a limit and even with
    allow_redirects=False.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def session() -> requests.Session:
    """Return a new session: sessions are not made to be shared between threads."""
    guarded = GuardedSession()
    # Nothing is decompressed by surprise.
    guarded.headers["Accept-Encoding"] = "identity"
    guarded.mount("http://", GuardedAdapter())
    guarded.mount("https://", GuardedAdapter())
    return guarded
