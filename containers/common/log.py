"""The log: one JSON object on a line of standard output for each event."""

import json
import sys


def write_log(event: str, **fields: object) -> None:
    """Write one line. The caller names every field: never a URL or pixels, which may be secret."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()
