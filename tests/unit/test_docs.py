"""README and docs/ name files, sections, commands and options that exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        ROOT / "examples" / "README.md",
        ROOT / "packages" / "sagemaker-local-async" / "README.md",
    ]
)
# Where a module that `python -m` runs is.
SOURCES = (ROOT, ROOT / "packages" / "sagemaker-local-async" / "src")
FOLDERS = "aws|benchmarks|containers|docs|examples|local|locks|tests"
PATH_IN_TEXT = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})(?:/[\w.-]+)*/[\w-]+\.[a-z]+\b")
# Folders of architecture.md's layout whose every module has a line.
PACKAGES = {
    "aws": ROOT / "aws",
    "containers": ROOT / "containers",
    "local": ROOT / "local",
    "packages/sagemaker-local-async": SOURCES[1] / "sagemaker_local",
}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def links(page: Path) -> list[str]:
    """Return the targets of links and images that stay in this repository."""
    text = page.read_text()
    targets = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'src="([^"]+)"', text)]
    return [target for target in targets if "://" not in target]


def anchors(page: Path) -> set[str]:
    """Return the ids that GitHub gives to the page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# ---- files and sections ----


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} does not exist"
        if anchor:
            assert anchor in anchors(target), f"{link}: there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_is_named_exists(page: Path) -> None:
    missing = [
        path for path in PATH_IN_TEXT.findall(page.read_text()) if not (ROOT / path).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_test_that_is_named_exists(page: Path) -> None:
    for file, test in re.findall(r"(tests/[\w/]+\.py)::(\w+)", page.read_text()):
        assert f"\ndef {test}(" in (ROOT / file).read_text(), f"{file} has no test {test}"


def test_the_readme_has_at_most_200_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


# ---- the layout in architecture.md ----


def layout(package: str) -> set[str]:
    """Return the files in the table under the heading of a package, relative to it."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    [section] = re.findall(rf"^### {package}[/:].*?(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    cells = re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE)
    return {name for cell in cells for name in cell.split(", ") if "." in name}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_layout_has_a_line_for_every_module(package: str) -> None:
    folder = PACKAGES[package]
    modules = {str(path.relative_to(folder)) for path in folder.rglob("*.py")}
    modules = {name for name in modules if Path(name).name not in ("__init__.py", "__main__.py")}
    assert sorted(modules - layout(package)) == [], "docs/architecture.md has no line about these"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_layout_names_no_file_that_is_gone(package: str) -> None:
    gone = [name for name in layout(package) if not (PACKAGES[package] / name).exists()]
    assert sorted(gone) == []


# ---- commands ----


@dataclass(frozen=True)
class Command:
    """A command of this project, as a page shows it."""

    page: str
    line: str
    program: tuple[str, ...]
    arguments: tuple[str, ...]

    def options(self) -> list[str]:
        found = [argument for argument in self.arguments if re.match(r"--[a-z]", argument)]
        options = [option.partition("=")[0] for option in found]
        return [option for option in options if option != "--help"]


def shell_lines(page: Path) -> list[str]:
    """Return the commands of the page: in ```sh blocks and in `code` spans."""
    text = page.read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`((?:\./|(?:\.venv/bin/)?python )[^`<]+)`", text)

    parts: list[str] = []
    for line in lines:
        parts.extend(re.split(r"&&|\|\||\s\|\s|>\S+", line.partition(" #")[0]))
    return [part.strip() for part in parts if part.strip()]


def parse(page: Path, line: str) -> Command | None:
    """Return the command in the line, or None if it is none of this project's."""
    try:
        words = shlex.split(re.sub(r"\$\([^)]*\)", "", line))
    except ValueError:
        return None
    while words and (words[0] == "env" or "=" in words[0]):
        words = words[1:]
    if not words:
        return None
    if words[0].startswith("./"):
        return Command(name_of(page), line, (words[0],), tuple(words[1:]))
    if "your_program.py" in words:
        return None
    is_python = Path(words[0]).name in ("python", "python3")
    if is_python and words[1:2] == ["-m"]:
        return Command(name_of(page), line, ("-m", words[2]), tuple(words[3:]))
    if is_python and len(words) > 1:
        return Command(name_of(page), line, (words[1],), tuple(words[2:]))
    return None


def commands() -> list[Command]:
    found = [parse(page, line) for page in PAGES for line in shell_lines(page)]
    return list(dict.fromkeys(command for command in found if command))


@cache
def help_of(*program: str) -> str:
    """Return what the program prints with --help; bot.py, which has no help, is read instead."""
    if program == ("bot.py",):
        return (ROOT / "bot.py").read_text()
    command = list(program)
    if program[0] == "-m" or program[0].endswith(".py"):
        command = [sys.executable, *program]
    done = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_pages_show_commands() -> None:
    assert len(commands()) > 30


@pytest.mark.parametrize("command", commands(), ids=lambda command: command.line)
def test_a_command_that_is_shown_exists(command: Command) -> None:
    if command.program[0] == "-m":
        modules = [folder / command.program[1].replace(".", "/") for folder in SOURCES]
        files = [(module.with_suffix(".py"), module / "__main__.py") for module in modules]
        assert any(file.exists() for pair in files for file in pair)
    else:
        program = ROOT / command.program[0]
        assert program.is_file()
        assert os.access(program, os.X_OK) or program.suffix == ".py"


@pytest.mark.parametrize(
    "command",
    [command for command in commands() if command.options()],
    ids=lambda command: command.line,
)
def test_its_options_exist(command: Command) -> None:
    program = command.program
    if program == ("./deploy.py",) and command.arguments[0].islower():
        # Its commands have options of their own.
        program = (*program, command.arguments[0])
    for option in command.options():
        assert option in help_of(*program)
