"""The command line of `python -m local.telegram`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import secrets
import sqlite3
import sys
from pathlib import Path

from werkzeug.serving import make_server

import local.telegram
from local.telegram.server import create_app
from local.telegram.store import Store

TOKEN = r"[0-9]{1,15}:[\w-]+"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m local.telegram",
        description=local.telegram.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, required=True, help="on 127.0.0.1")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="where chats and files are stored"
    )
    parser.add_argument(
        "--any-address",
        action="store_true",
        help="listen at all addresses, for a container whose port Docker publishes at 127.0.0.1; "
        "callers still have to name it 127.0.0.1 or localhost",
    )
    arguments = parser.parse_args()

    token = os.environ.get("TELEGRAM_TOKEN", "")
    if not re.fullmatch(TOKEN, token, re.ASCII):
        print(
            "Set TELEGRAM_TOKEN to the bot's token: a number, a colon, and letters, as 42:secret",
            file=sys.stderr,
        )
        return 2
    key = os.environ.get("CHAT_KEY") or secrets.token_urlsafe(24)

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # At a lower level it logs each address, and so the token.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)

    try:
        store = Store(arguments.data)
    except (OSError, sqlite3.Error) as error:
        print(f"{arguments.data} cannot be used: {error}. Choose another: --data", file=sys.stderr)
        return 2
    app = create_app(store, token, key, arguments.port)
    # Ends the program with a message where the port is taken.
    host = "0.0.0.0" if arguments.any_address else "127.0.0.1"
    server = make_server(host, arguments.port, app, threaded=True)
    if "CHAT_KEY" not in os.environ:
        print(f"The chat: http://127.0.0.1:{arguments.port}/#{key}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
