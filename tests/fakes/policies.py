"""The policy documents with the names of the tests' deployment, filled in apart from aws/."""

import json
from fnmatch import fnmatchcase
from string import Template
from typing import Any

from tests.fakes.aws import ACCOUNT, BUCKET, REGION
from tests.fakes.servers import ROOT

FOLDER = ROOT / "aws" / "policies"
NAMES = {
    "partition": "aws",
    "dns_suffix": "amazonaws.com",
    "account": ACCOUNT,
    "region": REGION,
    "prefix": "stylebot",
    "bucket": BUCKET,
    "role": f"stylebot-execution-{REGION}",
    "bot": f"stylebot-bot-{REGION}",
    "build": f"stylebot-build-{REGION}",
    "bot_execution": f"stylebot-bot-execution-{REGION}",
    "boundary": f"stylebot-boundary-{REGION}",
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


def is_allowed(
    names: list[str], action: str, resource: str, context: dict[str, str] | None = None
) -> bool:
    """Return whether policies, of Allow statements only, allow an action, as IAM evaluates them.

    `context` has the values of condition keys.
    """
    for name in names:
        for statement in read_statements(name):
            assert statement["Effect"] == "Allow"
            if (
                action in as_list(statement["Action"])
                and any(fnmatchcase(resource, item) for item in as_list(statement["Resource"]))
                and meets_conditions(statement.get("Condition", {}), context or {})
            ):
                return True
    return False


def meets_conditions(condition: dict[str, Any], context: dict[str, str]) -> bool:
    """Return whether all conditions are met. A key that the request does not have meets none."""
    for operator, keys in condition.items():
        assert operator in ("StringEquals", "StringLike", "ArnEquals"), operator
        for key, values in keys.items():
            value = context.get(key)
            if value is None or not any(fnmatchcase(value, item) for item in as_list(values)):
                return False
    return True


def example_request(statement: Statement) -> tuple[list[str], dict[str, str]]:
    """Return resources and a context that a statement allows."""
    context = {}
    for keys in statement.get("Condition", {}).values():
        for key, values in keys.items():
            context[key] = as_list(values)[0].replace("*", "x")
    return [item.replace("*", "x") for item in as_list(statement["Resource"])], context


def allowed_actions(name: str) -> set[str]:
    """Return all actions in a policy's statements."""
    actions: set[str] = set()
    for statement in read_statements(name):
        actions.update(as_list(statement["Action"]))
    return actions
