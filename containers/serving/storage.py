"""Reading and writing images by URL, limited in size and time: s3:// and https:// addresses.

ALLOW_HTTP=1 allows http:// too. ALLOW_PRIVATE_HOSTS=1 allows URLs that lead to this machine or its
own network. Otherwise they are refused: on SageMaker, 169.254.169.254 gives the role's credentials
to everyone who can ask for them.
"""

import http.client
import io
import ipaddress
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import certifi
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from containers.common.errors import ErrorCode

from .errors import ApiError, bad_request
from .limits import MAX_FILE_MEGABYTES, MIN_BYTES_PER_SECOND

# For one transfer as a whole: with all its redirects, or all its attempts.
TRANSFER_SECONDS = 60.0
# A source that has sent less than MIN_BYTES_PER_SECOND on average is given up after this already.
START_SECONDS = 15.0
RESOLVE_SECONDS = 10.0
CONNECT_SECONDS = 5.0
# Without a byte.
READ_SECONDS = 15.0
# Of one answer, with all that comes before it, such as 100 Continue.
MAX_HEADER_BYTES = 1 << 16
MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
CHUNK_BYTES = 1 << 16
HEADERS = {"Accept": "*/*", "User-Agent": "stylebot"}
# Before S3 is asked again, growing by the factor 2.
FIRST_PAUSE_SECONDS = 0.2
LAST_PAUSE_SECONDS = 5.0
LISTING_SECONDS = 10.0

T = TypeVar("T")


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


def read(url: str, name: str, seconds: float | None = None) -> bytes:
    """Return the bytes at `url`. name: the field of the request.

    seconds: that this may take; None: as long as a transfer may.
    Raises ApiError object_not_found, file_too_large, access_denied, private_address or
    storage_failed.
    """
    if seconds is None:
        seconds = TRANSFER_SECONDS
    if url.startswith("s3://"):
        return read_s3(url, name, seconds)
    return read_http(url, name, seconds)


def write(
    url: str, data: bytes, content_type: str, name: str, seconds: float | None = None
) -> None:
    """Put `data` at `url`. Raises ApiError, as `read` does.

    seconds: that this may take; None: as long as a transfer may.
    """
    if seconds is None:
        seconds = TRANSFER_SECONDS
    if url.startswith("s3://"):
        write_s3(url, data, content_type, name, seconds)
    else:
        write_http(url, data, content_type, name, seconds)


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

    # `with_retries` tries again: it knows of bodies that break off, and of the time that is left
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": 1},
    )
    # The region only has to be set; S3 itself tells where a bucket is.
    region = os.environ.get("AWS_REGION") or None
    return boto3.client("s3", region_name=region, config=config)


def bucket_and_key(url: str) -> dict[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


def read_s3(url: str, name: str, seconds: float) -> bytes:
    """Return an object as it was at one moment: each attempt reads it from its beginning."""

    def read_object(client: Any) -> bytes:  # noqa: ANN401 - see s3()
        answer = client.get_object(**bucket_and_key(url))
        with closing(answer["Body"]) as body:
            if "ContentLength" not in answer:
                raise ConnectionError("The headers broke off.")
            check_size(answer["ContentLength"], name)
            data: bytes = body.read()
        return data

    return with_retries(read_object, url, name, seconds)


def write_s3(url: str, data: bytes, content_type: str, name: str, seconds: float) -> None:
    def put_object(client: Any) -> None:  # noqa: ANN401 - see s3()
        client.put_object(**bucket_and_key(url), Body=data, ContentType=content_type)

    with_retries(put_object, url, name, seconds)


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

    def list_objects(client: Any) -> dict[str, Any]:  # noqa: ANN401 - see s3()
        answer: dict[str, Any] = client.list_objects_v2(Bucket=place["Bucket"], Prefix=place["Key"])
        return answer

    answer = with_retries(list_objects, url, name, LISTING_SECONDS)
    objects = []
    for item in answer.get("Contents", ()):
        address = f"s3://{place['Bucket']}/{item['Key']}"
        objects.append(ListedObject(address, item["Size"], item["ETag"]))
    return objects


def with_retries(call: Callable[[Any], T], url: str, name: str, seconds: float) -> T:
    """Return `call(client of S3)`. After a fault that may pass, call again while there is time.

    Raises ApiError.
    """
    with s3_errors(url, name):
        client = s3()
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        with s3_errors(url, name):
            try:
                return within(deadline - time.monotonic(), partial(call, client))
            except Exception as error:
                if not may_pass(error) or time.monotonic() + pause > deadline:
                    raise
        time.sleep(pause)
        pause = min(2 * pause, LAST_PAUSE_SECONDS)


def may_pass(error: Exception) -> bool:
    """Return whether the same call of S3 may succeed a little later."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        # S3 answers RequestTimeout with 400
        code = error.response.get("Error", {}).get("Code")
        return bool(status >= 500 or status == 429 or code == "RequestTimeout")
    broke_off = (
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
        exceptions.ResponseStreamingError,
        exceptions.FlexibleChecksumError,
        HTTPError,
        OSError,
    )
    return isinstance(error, broke_off)


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return `call()`. Raises TransferError if it takes longer.

    For calls that know no deadline for all that they do. Such a call is left behind in a thread of
    its own, which ends by the shorter time limits of its own steps.
    """
    outcome: futures.Future[T] = futures.Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="transfer", daemon=True).start()
    try:
        return outcome.result(timeout=seconds)
    except futures.TimeoutError:
        raise TransferError("was too slow") from None


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
    except TransferError as error:
        raise storage_failed(name, str(error)) from None
    except (BotoCoreError, HTTPError, OSError) as error:
        raise unreachable(name, error) from None


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


def read_http(url: str, name: str, seconds: float) -> bytes:
    transfer = Transfer(seconds, START_SECONDS)
    for _ in range(MAX_REDIRECTS + 1):
        with exchange("GET", url, transfer, name) as answer:
            location = answer.headers["Location"]
            if answer.status not in REDIRECTS or location is None:
                return read_body(answer, transfer, name)
        url = redirected(url, location, name)
    raise bad_request(f"{name} redirects more than {MAX_REDIRECTS} times.")


def redirected(url: str, location: str, name: str) -> str:
    """Return the address that `url` redirects to. Raises ApiError bad_request."""
    target = f"The address that {name} redirects to"
    try:
        # http.client decodes headers as Latin-1
        address = urljoin(url, location.encode("latin-1").decode())
    except ValueError:
        raise bad_request(f"{target} is not a valid address.") from None
    if address.startswith("s3://"):
        raise bad_request(f"{name} redirects to S3, which is not followed.")
    return check_url(address, target)


def write_http(url: str, data: bytes, content_type: str, name: str, seconds: float) -> None:
    transfer = Transfer(seconds, seconds)
    headers = {"Content-Type": content_type}
    with exchange("PUT", url, transfer, name, data, headers) as answer:
        check_status(answer, name)


def read_body(answer: http.client.HTTPResponse, transfer: "Transfer", name: str) -> bytes:
    check_status(answer, name)
    if answer.status not in (200, 203):
        raise TransferError(f"answered HTTP {answer.status}, without the file")
    check_size(body_length(answer) or 0, name)
    limit = MAX_FILE_MEGABYTES << 20
    # What stands around the chunks of a body is small, in an honest answer
    transfer.allow(limit + limit // 8 + CHUNK_BYTES)
    data = bytearray()
    while chunk := answer.read(CHUNK_BYTES):
        data += chunk
        check_size(len(data), name)
    if answer.length:
        raise TransferError("broke off")
    return bytes(data)


def body_length(answer: http.client.HTTPResponse) -> int | None:
    """Return the number of bytes that the answer announces, if it does.

    Raises TransferError for an answer whose body would not be the file itself.
    """
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise TransferError("compressed the file, which it was not asked for")
    if "Transfer-Encoding" in answer.headers:
        if not answer.chunked:
            raise TransferError("sent the file in an unknown transfer encoding")
        return None
    lengths = set(answer.headers.get_all("Content-Length", []))
    if not lengths:
        return None
    length = lengths.pop().strip()
    # int() would take 0_5 and digits of other scripts
    if lengths or not re.fullmatch("[0-9]{1,18}", length):
        raise TransferError("sent a Content-Length that is not a number")
    return int(length)


def check_status(answer: http.client.HTTPResponse, name: str) -> None:
    if answer.status in (404, 410):
        raise ApiError(
            ErrorCode.OBJECT_NOT_FOUND, f"{name}: there is nothing at this address (HTTP 404)."
        )
    if not 200 <= answer.status < 300:
        raise TransferError(f"answered HTTP {answer.status}")


def check_size(size: int, name: str) -> None:
    if size > MAX_FILE_MEGABYTES << 20:
        raise ApiError(
            ErrorCode.FILE_TOO_LARGE,
            f"{name}: the file is larger than {MAX_FILE_MEGABYTES} MB. Send a smaller one.",
        )


def storage_failed(name: str, what: str) -> ApiError:
    return ApiError(ErrorCode.STORAGE_FAILED, f"{name}: its server {what}.")


def unreachable(name: str, error: Exception) -> ApiError:
    """The message never holds str(error), which may have the URL."""
    kind = type(error).__name__
    return storage_failed(name, f"could not be reached or broke off ({kind})")


def private_address(name: str) -> ApiError:
    return ApiError(
        ErrorCode.PRIVATE_ADDRESS, f"{name} leads to a private address, which is refused."
    )


# --- one request, with limits ---


class TransferError(Exception):
    """A server fails to serve. The message goes on after "its server"."""


class Transfer:
    """The limits of one transfer over all its connections: what may still come, and until when.

    seconds: for all of it.
    start_seconds: for all of it, if less than MIN_BYTES_PER_SECOND come on average. So a slow
        source cannot hold a place for long, and a slow line can still bring a photograph.
    """

    def __init__(self, seconds: float, start_seconds: float) -> None:
        self.started = time.monotonic()
        self.seconds = seconds
        self.start_seconds = start_seconds
        self.received = 0
        self.limit = 0

    def allow(self, size: int) -> None:
        """Let `size` further bytes come. A little more may, as they come in blocks."""
        self.limit = self.received + size

    def count(self, size: int) -> None:
        self.received += size

    def check_bytes(self) -> None:
        if self.received >= self.limit:
            raise TransferError("sent more than a file and its headers")

    def seconds_left(self, at_most: float) -> float:
        """Return the seconds for the next step. Raises TransferError if there are none."""
        seconds = self.start_seconds + self.received / MIN_BYTES_PER_SECOND
        left = self.started + min(seconds, self.seconds) - time.monotonic()
        if left <= 0:
            raise TransferError("was too slow")
        return min(left, at_most)


@contextmanager
def exchange(
    method: str,
    url: str,
    transfer: Transfer,
    name: str,
    data: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[http.client.HTTPResponse]:
    """Send one request and yield the answer, whose body is not read yet.

    What is not read of it never is: the connection ends with the block. Raises ApiError
    private_address or storage_failed, also for what goes wrong within the block.
    """
    try:
        with closing(open_connection(url, transfer)) as connection:
            # A server may refuse a file before it has read all of it
            with suppress(BrokenPipeError):
                connection.request(method, target_of(url), data, {**HEADERS, **(headers or {})})
            transfer.allow(MAX_HEADER_BYTES)
            with connection.getresponse() as answer:
                yield answer
    except PrivateAddressError:
        raise private_address(name) from None
    except TransferError as error:
        raise storage_failed(name, str(error)) from None
    except (http.client.HTTPException, HTTPError, OSError, ValueError) as error:
        raise unreachable(name, error) from None


def target_of(url: str) -> str:
    """Return the path and the query, with %20 for a space and the like."""
    return parse_url(url).request_uri


def open_connection(url: str, transfer: Transfer) -> "LimitedConnection":
    """Raises ValueError or LocationValueError for a host that is no name."""
    parts = parse_url(url)
    host = (parts.host or "").strip("[]")
    if parts.scheme == "https":
        return LimitedHTTPSConnection(host, parts.port, transfer)
    return LimitedConnection(host, parts.port, transfer)


class LimitedConnection(http.client.HTTPConnection):
    """A connection within the limits of its transfer, to no private address."""

    def __init__(self, host: str, port: int | None, transfer: Transfer) -> None:
        super().__init__(host, port or self.default_port)
        self.transfer = transfer
        self.response_class = partial(LimitedResponse, transfer=transfer)  # type: ignore[assignment]

    def connect(self) -> None:
        self.sock = connected_socket(self.host, self.port, self.transfer)

    def send(self, data: Any) -> None:  # noqa: ANN401 - as http.client has it
        if self.sock is None:
            self.connect()
        # For all of `data`, not for each of its packets
        self.sock.settimeout(self.transfer.seconds_left(TRANSFER_SECONDS))
        super().send(data)


class LimitedHTTPSConnection(LimitedConnection):
    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(self.transfer.seconds_left(CONNECT_SECONDS))
        self.sock = tls_context().wrap_socket(self.sock, server_hostname=self.host)


@cache
def tls_context() -> ssl.SSLContext:
    """Return the settings of TLS; the authorities are those that the package requests trusts."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where()
    return ssl.create_default_context(cafile=bundle)


def connected_socket(host: str, port: int, transfer: Transfer) -> socket.socket:
    """Connect to the first address of a host that answers.

    The name is resolved once, and only an address that was checked is connected to: a name may
    resolve differently the second time. Raises PrivateAddressError, TransferError and OSError.
    """
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = within(transfer.seconds_left(RESOLVE_SECONDS), look_up)
    addresses = [str(address[0]) for *_, address in found]
    for address in addresses:
        check_address(address)

    failure = OSError("The name has no address.")
    for address in addresses:
        try:
            seconds = transfer.seconds_left(CONNECT_SECONDS)
            connection = socket.create_connection((address, port), seconds)
        except OSError as error:
            failure = error
            continue
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    raise failure


class LimitedResponse(http.client.HTTPResponse):
    """An answer whose bytes and seconds count from its status line on.

    http.client itself limits a line and the number of headers, but not how long they take, nor the
    answers of status 100 before it, nor what follows the last chunk.
    """

    def __init__(self, sock: socket.socket, transfer: Transfer, method: str | None = None) -> None:
        super().__init__(sock, method=method)
        source = LimitedSource(sock, self.fp.detach(), transfer)
        self.fp = io.BufferedReader(source, CHUNK_BYTES)


class LimitedSource(io.RawIOBase):
    """What comes from a socket. raw: the socket as a file, which is closed with this one."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase, transfer: Transfer) -> None:
        self.sock = sock
        self.raw = raw
        self.transfer = transfer

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 - as io has it
        self.transfer.check_bytes()
        self.sock.settimeout(self.transfer.seconds_left(READ_SECONDS))
        size: int | None = self.raw.readinto(buffer)
        self.transfer.count(size or 0)
        return size

    def close(self) -> None:
        self.raw.close()
        super().close()


# --- private addresses ---


# All addresses of the public internet. `is_global` is true for others too, such as 64:ff9b:1::/48.
PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
# Not all of it is private to `is_global`. A cloud has its credentials at 192.0.0.192.
PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")


class PrivateAddressError(Exception):
    """A connection would lead to this machine or its own network."""


def check_address(address: str) -> None:
    """Raise PrivateAddressError for an IP address that is not on the public internet."""
    if setting("ALLOW_PRIVATE_HOSTS"):
        return
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = embedded_ipv4(ip) or ip
    if isinstance(ip, ipaddress.IPv6Address) and ip not in PUBLIC_IPV6:
        raise PrivateAddressError
    if ip in PROTOCOLS or not ip.is_global or ip.is_multicast:
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
