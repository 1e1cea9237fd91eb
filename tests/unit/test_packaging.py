"""pyproject.toml, the lock files and the images name the same packages."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

tomllib = pytest.importorskip("tomllib", reason="tomllib needs Python 3.11")

ROOT = Path(__file__).parents[2]
LOCKS = ("bot", "torch", "containers", "storage")


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)["project"]
    return table


def extra(name: str) -> list[str]:
    """Return the requirements of an extra; "" is for the project's own dependencies."""
    if not name:
        return list(project()["dependencies"])
    return list(project()["optional-dependencies"][name])


def locked(name: str) -> dict[str, set[str]]:
    """Return the versions of each package in a lock file; there can be one for each Python."""
    versions: dict[str, set[str]] = {}
    for line in (ROOT / "locks" / f"{name}.txt").read_text().splitlines():
        if match := re.match(r"([a-z0-9-]+)==(\S+)", line):
            versions.setdefault(match[1], set()).add(match[2])
    return versions


def normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("bot", [""]),
        ("torch", ["torch"]),
        ("containers", ["", "serving"]),
        ("storage", ["storage"]),
    ],
)
def test_a_lock_has_what_pyproject_asks_for(lock: str, extras: list[str]) -> None:
    versions = locked(lock)
    for name in extras:
        for requirement in extra(name):
            package = normalize(re.split(r"[=<>!~;\[ ]", requirement)[0])
            assert package in versions, f"{package} is missing: run ./lock.sh"
            if pin := re.search(r"==([^;\s]+)", requirement):
                assert versions[package] == {pin[1]}, f"{package} differs: run ./lock.sh"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_of_a_lock_has_a_hash(lock: str) -> None:
    text = (ROOT / "locks" / f"{lock}.txt").read_text()
    packages = [block for block in re.split(r"\n(?=\S)", text) if "==" in block.split("\n")[0]]
    assert packages
    for package in packages:
        assert "--hash=sha256:" in package


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_index_and_no_folder(lock: str) -> None:
    text = (ROOT / "locks" / f"{lock}.txt").read_text()
    for trace in ("index-url", "find-links", "://", "+cpu", " @ "):
        assert trace not in text


def test_the_images_layers_have_the_same_versions() -> None:
    torch = locked("torch")
    for package, versions in locked("containers").items():
        assert torch.get(package, versions) == versions


def test_all_images_compare_hashes() -> None:
    dockerfiles = [*(ROOT / "containers").glob("*/Dockerfile"), ROOT / "local" / "Dockerfile"]
    assert len(dockerfiles) == 4
    for dockerfile in dockerfiles:
        text = dockerfile.read_text()
        assert text.count("pip install ") == text.count("--require-hashes --requirement /locks/")


def test_the_wheel_has_the_bot_and_nothing_else(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE", "bot.py"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        code = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert code == ["bot.py"]
