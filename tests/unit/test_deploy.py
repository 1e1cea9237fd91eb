"""deploy.py itself: it creates .venv where boto3 is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import deploy


class RestartedError(Exception):
    """Stands for the program that os.execv starts."""


def test_without_boto3_it_installs_the_packages_and_restarts_in_venv(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / ".venv/bin/python"
    commands: list[list[str]] = []
    restarted: list[list[str]] = []

    def run(command: list[object], **_: object) -> None:
        commands.append([str(part) for part in command])

    def execv(program: Path, arguments: list[str]) -> None:
        assert program == python
        restarted.append(arguments)
        raise RestartedError

    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setattr(deploy, "ROOT", tmp_path)
    monkeypatch.setattr(deploy, "VENV_PYTHON", python)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(sys, "argv", ["./deploy.py", "status"])
    with pytest.raises(RestartedError):
        deploy.main()

    create, install = commands
    assert create == [sys.executable, "-m", "venv", str(tmp_path / ".venv")]
    assert install[:4] == [str(python), "-m", "pip", "install"]
    assert restarted == [[str(python), "./deploy.py", "status"]]


def test_a_bootstrap_that_fails_says_what_to_do(tmp_path: Path) -> None:
    """Run in an empty folder by a Python without boto3, whose pip finds no index."""
    for name in ("deploy.py", "locks/bot.txt"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((deploy.ROOT / name).read_bytes())
    done = subprocess.run(
        [sys.executable, "-S", str(tmp_path / "deploy.py"), "status"],
        env={
            "PATH": os.environ["PATH"],
            "PIP_INDEX_URL": "http://127.0.0.1:9/",
            "PIP_RETRIES": "0",
            "PIP_CONFIG_FILE": os.devnull,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "could not be installed into .venv" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_boto3_that_is_too_old_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    assert deploy.has_packages()
    monkeypatch.setattr(boto3, "__version__", "1.43.9")
    assert not deploy.has_packages()
