"""Nothing that was accepted is lost when the program and the model server are killed with -9."""

from __future__ import annotations

from pathlib import Path

from kill_rounds import run


def test_no_accepted_request_is_lost_or_answered_twice(tmp_path: Path) -> None:
    report = run(tmp_path, rounds=4, requests=150)
    print(report)
    assert report.problems == []
    assert report.outputs + report.failures + report.given_up == report.accepted >= 150
