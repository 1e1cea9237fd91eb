"""The process that decodes strangers' pictures: `python -m containers.serving.decoder_process FD`.

FD is its connection to the server. It holds Pillow, and neither PyTorch nor Flask. For each picture
it forks a child, which decodes this one picture in a sandbox and ends: the child has nothing of
other pictures, and all its memory comes back.

A request is a JSON object such as {"longest": 2048, "what": "content image", "bytes": 12345}, and
the file's bytes. The answer is an object such as {"size": [64, 48]}, and the pixels as RGB; or
{"error": "image_unreadable", "message": "..."}. Before each object comes its length.

When the child ends without an answer, this process ends too, with an exit code that tells why. When
the server closes the connection, or ends in whatever way, both end.
"""

import gc
import io
import json
import os
import select
import signal
import socket
import struct
import sys

from PIL import AvifImagePlugin, Image
from pillow_heif import options as heif_options

from . import decoder_sandbox, images
from .errors import ApiError

# Exit codes.
DIED = 3
TOO_COSTLY = 4
NO_CHILD = 5

# What the process says when it can decode.
READY = b"R"
# Of the JSON object that follows.
LENGTH = struct.Struct("!I")
SAMPLE_SIZE = (32, 32)


def main() -> int:
    """Decode until the server closes the connection. Return the exit code."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    # The server decides when this process ends, also if a signal goes to all processes
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    decoder_sandbox.prepare()
    warm_up()
    # The children share what is there now, and live for one picture only
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        connection.sendall(READY)
    except ConnectionError:
        return 0
    while True:
        code = decode_in_child(connection)
        if code is not None:
            return code


def warm_up() -> None:
    """Decode a picture of each format: the children cannot open the files that this needs."""
    # A picture gets one core
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    heif_options.DECODE_THREADS = 1
    for file_format in images.FORMATS:
        try:
            decode_sample(file_format)
        except (KeyError, OSError, ApiError):
            # This build of Pillow has no such format
            continue


def decode_sample(file_format: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", SAMPLE_SIZE, "teal").save(buffer, file_format, icc_profile=images.SRGB_BYTES)
    images.decode(buffer.getvalue(), min(SAMPLE_SIZE) // 2)


def decode_in_child(connection: socket.socket) -> int | None:
    """Let a child wait for a request and answer it. Return None, or an exit code for this process.

    So the child is ready before the request comes.
    """
    # Nothing is written to the pipe. Its end says that the child has ended, in whatever way.
    alive, held_by_child = os.pipe()
    try:
        child = os.fork()
    except OSError:
        return NO_CHILD
    if child == 0:
        os.close(alive)
        run_child(connection)

    os.close(held_by_child)
    poll = select.poll()
    poll.register(alive, select.POLLIN)
    # Only for its end, as 0 says: a request is for the child to read
    poll.register(connection, 0)
    is_closed = alive not in [descriptor for descriptor, _ in poll.poll()]
    if is_closed:
        os.kill(child, signal.SIGKILL)
    os.close(alive)
    _, status = os.waitpid(child, 0)
    if is_closed:
        return 0
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return None
    # The kernel ends a process with SIGKILL when memory runs out
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return TOO_COSTLY
    return DIED


def run_child(connection: socket.socket) -> None:
    """Answer one request and end the process."""
    code = DIED
    try:
        decoder_sandbox.enter()
        # Makes the child's own copy of the memory that every decoding changes
        decode_sample("JPEG")
        answer(connection)
        code = 0
    finally:
        os._exit(code)


def answer(connection: socket.socket) -> None:
    """Read a request, decode, and write the answer."""
    with connection.makefile("rb") as file:
        [length] = LENGTH.unpack(file.read(LENGTH.size))
        request = json.loads(file.read(length))
        data = file.read(request["bytes"])
    try:
        image = images.decode(data, request["longest"], request["what"])
    except ApiError as error:
        send(connection, {"error": error.code.value, "message": error.message})
        return
    send(connection, {"size": image.size}, image.tobytes())


def send(connection: socket.socket, fields: dict[str, object], pixels: bytes = b"") -> None:
    text = json.dumps(fields).encode()
    connection.sendall(LENGTH.pack(len(text)) + text)
    connection.sendall(pixels)


if __name__ == "__main__":
    sys.exit(main())
