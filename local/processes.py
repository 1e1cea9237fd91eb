"""Processes of this machine, and the ports that they take."""

import contextlib
import random
import socket

# Below the ephemeral ports, as are those 10000 above, which SeaweedFS opens too.
PORTS = range(20000, 22700)


class StackError(Exception):
    """It cannot go on; the message says why and what to do."""


def free_port() -> int:
    """A free port, as is the one 10000 above it."""
    while True:
        port = random.choice(PORTS)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10000))
            return port
