"""The bot's token in Systems Manager's Parameter Store, from which ECS gives it to the bot.

Nothing here ever reads the token back. The parameter's description has a fingerprint of it, which
tells whether another token is stored.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import sys
from dataclasses import dataclass

from aws.account import Account
from aws.calls import Answer, delete_if_present, perform
from aws.changes import Change, Changes
from aws.messages import DeployError, say

VARIABLE = "TELEGRAM_TOKEN"
# The bot's number and its secret, as @BotFather gives them
TOKEN = re.compile(r"\d{5,}:[A-Za-z0-9_-]{30,}")
# In hexadecimal digits. A token has more than 200 random bits: these do not help to guess it.
FINGERPRINT_LENGTH = 12
DESCRIPTION = "The token of the Telegram bot. Fingerprint: "


@dataclass(frozen=True)
class Token:
    """A token, or what is known of one that is stored already."""

    fingerprint: str
    # None if it is stored already
    value: str | None = None

    def __repr__(self) -> str:
        return f"Token({self.fingerprint})"


def find_parameter(account: Account) -> Answer | None:
    """Return the description of the parameter, which has no value in it."""
    names = {"Key": "Name", "Option": "Equals", "Values": [account.token_parameter]}
    # AWS may answer with an empty page first.
    pages = account.ssm.get_paginator("describe_parameters").paginate(ParameterFilters=[names])
    for page in pages:
        for parameter in page["Parameters"]:
            found: Answer = parameter
            return found
    return None


def choose_token(account: Account, plan: bool) -> Token:
    """Return the token that the bot will have.

    It comes from the environment, else it is the one that is stored, else somebody is asked for it.
    A plan asks nobody. Raises DeployError for what is no token.
    """
    if given := os.environ.get(VARIABLE, "").strip():
        return describe_token(given)
    parameter = find_parameter(account)
    if parameter is not None:
        return Token(read_fingerprint(parameter))
    if plan:
        return Token("not-known-yet")
    return describe_token(ask_for_token())


def ask_for_token() -> str:
    """Read the token from the terminal, without echo, or else from standard input."""
    say("The bot needs a token. In Telegram, send /newbot to @BotFather, who gives you one.")
    if sys.stdin.isatty():
        return getpass.getpass("Paste the token here (it is not shown): ").strip()
    return sys.stdin.readline().strip()


def describe_token(value: str) -> Token:
    """Return the token with its fingerprint. Raises DeployError for what is no token."""
    if not TOKEN.fullmatch(value):
        raise DeployError(
            "There is no token, or what was given is none: it is like 123456789:AAE... with 35 "
            f"letters and digits. Set {VARIABLE}, write it to standard input, or run up in a "
            "terminal, which asks for it."
        )
    digest = hashlib.sha256(value.encode()).hexdigest()
    return Token(digest[:FINGERPRINT_LENGTH], value)


def read_fingerprint(parameter: Answer) -> str:
    """Return the fingerprint in a parameter's description, or "" if somebody else wrote it."""
    description = str(parameter.get("Description", ""))
    if not description.startswith(DESCRIPTION):
        return ""
    return description.removeprefix(DESCRIPTION)


def ensure_token(account: Account, token: Token) -> Changes:
    """Yield what is missing to have the token stored, encrypted with the account's own key."""
    name = account.token_parameter
    parameter = find_parameter(account)
    if parameter is None:
        yield Change(
            f"store the bot's token in {name}",
            lambda: put_token(account, token, Tags=account.tag_list),
        )
    elif token.value is not None and read_fingerprint(parameter) != token.fingerprint:
        # AWS takes no tags here: it keeps those of the first call.
        yield Change(
            f"replace the bot's token in {name}", lambda: put_token(account, token, Overwrite=True)
        )


def put_token(account: Account, token: Token, **more: object) -> None:
    perform(
        account.clock,
        account.ssm.put_parameter,
        Name=account.token_parameter,
        Type="SecureString",
        Value=token.value,
        Description=DESCRIPTION + token.fingerprint,
        **more,
    )


def remove_token(account: Account) -> Changes:
    """Yield the deletion of the token, if `up` stored it."""
    name = account.token_parameter
    if find_parameter(account) is None:
        return
    tags = account.ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=name)["TagList"]
    if not account.is_ours(tags):
        return
    yield Change(
        f"delete the bot's token in {name}",
        lambda: delete_if_present(account.clock, account.ssm.delete_parameter, Name=name),
    )
