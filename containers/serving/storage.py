"""Pictures by address: s3:// through boto3, https:// through requests, each bounded in size and time.

ALLOW_HTTP=1 takes http:// too. ALLOW_PRIVATE_HOSTS=1 lets an address lead to this machine or its own network, which is
refused otherwise: on SageMaker, 169.254.169.254 hands out the role's credentials to whoever can ask for it.
"""

import ipaddress
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from .errors import RequestError, bad_request

MEGABYTES = 64
SECONDS = 60
CONNECT_SECONDS = 5
SILENT_SECONDS = 15
REDIRECTS = 5
CHUNK = 1 << 16


def check_url(url: object, name: str) -> str:
    """`url` if it is of a kind that is taken; `name` is the request's field. Raises RequestError 400."""
    if not isinstance(url, str) or not url.isprintable() or not url.strip():
        raise bad_request(
            f"{name} must be an address such as s3://bucket/key or https://host/path."
        )
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for a port that is none
    except ValueError:
        raise bad_request(f"{name} is not a valid address.") from None
    schemes = ("s3", "https", "http") if setting("ALLOW_HTTP") else ("s3", "https")
    if parts.scheme not in schemes:
        raise bad_request(
            f"{name} must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}."
        )
    if not parts.hostname or (parts.scheme == "s3" and not parts.path.strip("/")):
        raise bad_request(f"{name} names no {'object' if parts.scheme == 's3' else 'host'}.")
    if parts.username or parts.password:
        raise bad_request(f"{name} must not hold a user name or password.")
    return url


def read(url: str, name: str) -> bytes:
    """The bytes at `url`. Raises RequestError: 400 unreachable or refused, 404 not there, 413 above 64 MB."""
    return read_s3(url, name) if url.startswith("s3://") else read_http(url, name)


def write(url: str, data: bytes, content_type: str, name: str) -> None:
    """Puts `data` at `url`. Raises RequestError 400 where it cannot be put there."""
    if url.startswith("s3://"):
        write_s3(url, data, content_type, name)
    else:
        write_http(url, data, content_type, name)


def without_query(url: str) -> str:
    """`url` as it may be told: the query of a signed address is a secret."""
    return urlsplit(url)._replace(query="", fragment="").geturl()


def extension(url: str) -> str:
    """ ".png" for s3://bucket/picture.PNG?signature."""
    return PurePosixPath(urlsplit(url).path).suffix.lower()


def setting(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")


# --- s3:// ---


@cache
def s3() -> Any:  # noqa: ANN401 - boto3 makes its clients' classes at run time
    import boto3  # here, as it is slow to import and a server without S3 addresses never needs it
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=SILENT_SECONDS,
        retries={"total_max_attempts": 4},
    )
    # The region only has to be set; S3 itself says where a bucket is.
    return boto3.client("s3", region_name=os.environ.get("AWS_REGION") or None, config=config)


def bucket_and_key(url: str) -> dict[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


def read_s3(url: str, name: str) -> bytes:
    deadline = time.monotonic() + SECONDS
    with s3_faults(url, name):
        answer = s3().get_object(**bucket_and_key(url))
        check_size(answer["ContentLength"], name)
        return read_all(iter(lambda: answer["Body"].read(CHUNK), b""), deadline, name)


def write_s3(url: str, data: bytes, content_type: str, name: str) -> None:
    with s3_faults(url, name):
        s3().put_object(**bucket_and_key(url), Body=data, ContentType=content_type)


@contextmanager
def s3_faults(url: str, name: str) -> Iterator[None]:
    """Raises RequestError for whatever boto3 raises within."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except ClientError as error:
        raise s3_error(error, url, name) from None
    except NoCredentialsError:
        raise no_credentials(name) from None
    except (BotoCoreError, HTTPError, OSError) as error:
        raise unreachable(name, type(error).__name__) from None


def no_credentials(name: str) -> RequestError:
    return RequestError(
        400,
        "access_denied",
        f"{name}: this server has no AWS credentials, which s3:// addresses need. Send the file itself.",
    )


def s3_error(error: Any, url: str, name: str) -> RequestError:  # noqa: ANN401 - botocore's ClientError
    code = error.response.get("Error", {}).get("Code", "unknown")
    if code in ("NoSuchKey", "NoSuchBucket", "404"):
        return RequestError(404, "object_not_found", f"{name}: there is nothing at {url}.")
    if code in ("AccessDenied", "403"):
        return RequestError(
            400,
            "access_denied",
            f"{name}: S3 denies access to {url}; the model's role needs permission for it.",
        )
    return RequestError(400, "storage_failed", f"{name}: S3 answered {code} for {url}.")


# --- https:// ---


def read_http(url: str, name: str) -> bytes:
    deadline = time.monotonic() + SECONDS
    for _ in range(REDIRECTS + 1):
        with http("GET", url, name) as answer:
            if not answer.is_redirect:
                check_status(answer, name)
                check_size(int(answer.headers.get("Content-Length", 0) or 0), name)
                try:
                    # read1 returns what has come so far, so that a trickle cannot outlast the deadline
                    return read_all(
                        iter(lambda: answer.raw.read1(CHUNK, decode_content=True), b""),
                        deadline,
                        name,
                    )
                except (HTTPError, OSError) as error:
                    raise unreachable(name, type(error).__name__) from None
            url = check_url(urljoin(url, answer.headers["Location"]), name)
            if url.startswith("s3://"):
                raise bad_request(f"{name} redirects to S3, which is not followed.")
    raise bad_request(f"{name} redirects more than {REDIRECTS} times.")


def write_http(url: str, data: bytes, content_type: str, name: str) -> None:
    with http("PUT", url, name, data=data, headers={"Content-Type": content_type}) as answer:
        check_status(answer, name)


def http(method: str, url: str, name: str, **options: Any) -> requests.Response:  # noqa: ANN401 - requests' own
    timeout = (CONNECT_SECONDS, SILENT_SECONDS)
    try:
        return session().request(
            method, url, stream=True, allow_redirects=False, timeout=timeout, **options
        )
    except PrivateAddressError:
        raise private_address(name) from None
    except (
        requests.RequestException,
        HTTPError,
        OSError,
        ValueError,
    ) as error:  # never str(error): it holds the URL
        if caused_by(error, PrivateAddressError):
            raise private_address(name) from None
        raise unreachable(name, type(error).__name__) from None


def check_status(answer: requests.Response, name: str) -> None:
    if answer.status_code in (404, 410):
        raise RequestError(
            404, "object_not_found", f"{name}: there is nothing at this address (HTTP 404)."
        )
    if not answer.ok or answer.is_redirect:
        raise RequestError(
            400, "storage_failed", f"{name}: its server answered HTTP {answer.status_code}."
        )


def read_all(chunks: Any, deadline: float, name: str) -> bytes:  # noqa: ANN401 - an iterator of bytes
    data = bytearray()
    for chunk in chunks:
        data += chunk
        check_size(len(data), name)
        if time.monotonic() > deadline:
            raise unreachable(name, f"not done after {SECONDS} s")
    return bytes(data)


def check_size(size: int, name: str) -> None:
    if size > MEGABYTES << 20:
        raise RequestError(
            413,
            "file_too_large",
            f"{name}: the file is larger than {MEGABYTES} MB. Send a smaller one.",
        )


def unreachable(name: str, why: str) -> RequestError:
    return RequestError(
        400, "storage_failed", f"{name}: its server could not be reached or broke off ({why})."
    )


def private_address(name: str) -> RequestError:
    return RequestError(
        400, "private_address", f"{name} leads to a private address, which is refused."
    )


class PrivateAddressError(Exception):
    """A connection that would lead to this machine or its own network."""


def caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind) or any(isinstance(argument, kind) for argument in error.args):
            return True
        error = error.__cause__ or error.__context__
    return False


def check_address(address: str) -> None:
    """Raises PrivateAddressError for an IP address that is not on the public internet."""
    if setting("ALLOW_PRIVATE_HOSTS"):
        return
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1]) or nat64(ip) or ip
    if not ip.is_global or ip.is_multicast:
        raise PrivateAddressError


def nat64(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if ip in ipaddress.ip_network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return None


class Guarded:
    """Mixed into urllib3's connections: looks where a connection leads before anything is sent through it.

    The name is resolved and checked first, for a prompt answer; then the address that was really connected to, since
    a name may resolve differently the second time.
    """

    def _new_conn(self) -> socket.socket:
        for *_, address in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):  # type: ignore[attr-defined]
            check_address(str(address[0]))
        connection = super()._new_conn()  # type: ignore[misc]
        try:
            check_address(connection.getpeername()[0])
        except PrivateAddressError:
            connection.close()
            raise
        return connection


class GuardedHTTPConnection(Guarded, HTTPConnection):
    pass


class GuardedHTTPSConnection(Guarded, HTTPSConnection):
    pass


class GuardedHTTPPool(HTTPConnectionPool):
    ConnectionCls = GuardedHTTPConnection


class GuardedHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = GuardedHTTPSConnection


class GuardedAdapter(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - requests' own
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {
            "http": GuardedHTTPPool,
            "https": GuardedHTTPSPool,
        }


def session() -> requests.Session:
    """A session of its own for each call: sessions are not made to be shared between threads."""
    guarded = requests.Session()
    guarded.mount("http://", GuardedAdapter())
    guarded.mount("https://", GuardedAdapter())
    return guarded
