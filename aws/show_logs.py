"""The command logs: what the models and the bot have written, the oldest line first."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from aws.account import Account
from aws.follow import INTERRUPTED
from aws.logs import log_group_name, read_events
from aws.messages import DeployError, output, say
from bot import MODELS

BOT = "bot"
SOURCES = (BOT, *MODELS)
FOLLOW_SECONDS = 5.0
# CloudWatch shows a line up to so long after it was written.
LATE = timedelta(seconds=60)


def show_logs(account: Account, source: str | None, since: timedelta, follow: bool) -> int:
    """Print the lines of one source, or of all. With `follow` go on until Ctrl-C.

    Returns the exit code. Raises DeployError if the log of `source` does not exist.
    """
    sources = [source] if source else list(SOURCES)
    for name in sources:
        if read_events(account, find_group(account, name), datetime.now(timezone.utc)) is None:
            explain_missing(account, name, is_wanted=source is not None)

    start = datetime.now(timezone.utc) - since
    # The ids of the lines that have been printed, and when they were written
    printed: dict[str, datetime] = {}
    try:
        while True:
            print_lines(account, sources, start, printed)
            if not follow:
                return 0
            account.clock.sleep(FOLLOW_SECONDS)
            start = max(start, max(printed.values(), default=start) - LATE)
            printed = {key: time for key, time in printed.items() if time >= start}
    except KeyboardInterrupt:
        return INTERRUPTED


def find_group(account: Account, source: str) -> str:
    if source == BOT:
        return account.bot_log_group
    return log_group_name(account.endpoint_name(source))


def explain_missing(account: Account, source: str, is_wanted: bool) -> None:
    """Say that a log does not exist. Raises DeployError if it is the one that is asked for."""
    text = f"There is no log group {find_group(account, source)}"
    if source == BOT:
        text += (
            ": the bot does not run on ECS. Elsewhere it writes to its standard error; see "
            "journalctl -u stylebot, or docker logs."
        )
    else:
        text += ". ./deploy.py up creates it."
    if is_wanted:
        raise DeployError(text)
    say(text)


def print_lines(
    account: Account, sources: list[str], start: datetime, printed: dict[str, datetime]
) -> None:
    """Print the lines since `start` that are not in `printed`, and put them into it."""
    lines = []
    for source in sources:
        for event in read_events(account, find_group(account, source), start) or []:
            if event["eventId"] in printed:
                continue
            written = datetime.fromtimestamp(event["timestamp"] / 1000, timezone.utc)
            printed[event["eventId"]] = written
            lines.append((written, source, event["message"]))
    width = max(len(source) for source in sources)
    for written, source, message in sorted(lines):
        output(f"{written:%Y-%m-%d %H:%M:%S} {source:{width}} {printable(message)}")


def printable(message: str) -> str:
    """Return a message that cannot control the terminal."""
    return "".join(character if character.isprintable() else " " for character in message).rstrip()
