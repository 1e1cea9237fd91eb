"""The policy documents with the names of the tests' deployment, filled in apart from aws/."""

import json
from string import Template
from typing import Any

from tests.fakes.aws import ACCOUNT, BUCKET, REGION
from tests.fakes.servers import ROOT

FOLDER = ROOT / "aws" / "policies"
NAMES = {
    "partition": "aws",
    "account": ACCOUNT,
    "region": REGION,
    "prefix": "stylebot",
    "bucket": BUCKET,
    "role": f"stylebot-execution-{REGION}",
    "bot": f"stylebot-bot-{REGION}",
}
Statement = dict[str, Any]


def read_document(name: str) -> dict[str, Any]:
    text = (FOLDER / f"{name}.json").read_text()
    document: dict[str, Any] = json.loads(Template(text).substitute(NAMES))
    return document


def read_statements(name: str) -> list[Statement]:
    statements: list[Statement] = read_document(name)["Statement"]
    return statements


def as_list(value: str | list[str]) -> list[str]:
    """Return a list: a policy may have a single string where it may have a list."""
    if isinstance(value, str):
        return [value]
    return list(value)


def allowed_actions(name: str) -> set[str]:
    """Return all actions in a policy's statements."""
    actions: set[str] = set()
    for statement in read_statements(name):
        actions.update(as_list(statement["Action"]))
    return actions
