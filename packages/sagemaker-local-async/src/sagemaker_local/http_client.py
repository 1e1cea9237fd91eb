"""HTTP to model servers, which listen at a port or at a Unix socket."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

UNIX_PREFIX = "unix:"


class UnixConnection(HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def _new_conn(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(self.timeout)
            connection.connect(self.path)
        except TimeoutError:
            connection.close()
            raise ConnectTimeoutError(self, f"{self.path} takes no connection") from None
        except OSError as error:
            connection.close()
            raise NewConnectionError(self, f"{self.path}: {error.strerror}") from None
        return connection


class UnixPool(HTTPConnectionPool):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self.path = path

    def _new_conn(self) -> UnixConnection:
        return UnixConnection(self.path, None)


class UnixAdapter(HTTPAdapter):
    """Sends all requests to one socket, whatever host their URL names."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.pool = UnixPool(path)

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: bool | str | None,
        proxies: Mapping[str, str] | None = None,
        cert: tuple[str, str] | str | None = None,
    ) -> HTTPConnectionPool:
        return self.pool

    def close(self) -> None:
        self.pool.close()


def open_session(server: str) -> requests.Session:
    """Return a session for `server`: http://HOST:PORT, or unix:PATH. It uses no proxy."""
    session = requests.Session()
    session.trust_env = False  # no proxy, no .netrc
    if server.startswith(UNIX_PREFIX):
        session.mount("http://", UnixAdapter(server.removeprefix(UNIX_PREFIX)))
    return session


def base_url(server: str) -> str:
    """Return what comes before the path in a URL for the session of `server`."""
    if server.startswith(UNIX_PREFIX):
        return "http://localhost"
    return server.rstrip("/")
