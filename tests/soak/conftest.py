"""How long the soak tests run: see docs/reliability.md."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("soak")
    group.addoption("--scenarios", type=int, default=4, help="of tests/soak/test_scenarios.py")
    group.addoption("--first-seed", type=int, default=1, help="of the first scenario")
