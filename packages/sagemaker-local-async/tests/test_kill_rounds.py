"""Nothing that was accepted is lost when the program and the model server are killed with -9."""

from __future__ import annotations

from pathlib import Path

import pytest

from kill_rounds import run


def test_no_accepted_request_is_lost_or_answered_twice(tmp_path: Path) -> None:
    report = run(tmp_path, rounds=4, requests=150)
    print(report)
    assert report.problems == []
    assert report.outputs + report.failures + report.given_up == report.accepted >= 150


@pytest.mark.long
def test_no_request_of_ten_thousand_is_lost_in_two_hundred_rounds(tmp_path: Path) -> None:
    report = run(tmp_path, rounds=200, requests=10_000)
    print(report)
    assert report.problems == []
    assert report.outputs + report.failures + report.given_up == report.accepted >= 10_000
