"""The page in one piece, and what a browser may do with it."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

FOLDER = Path(__file__).with_name("page")
SCRIPT = re.compile(r'<script src="([\w-]+\.js)"></script>')
STYLE = re.compile(r'<link rel="stylesheet" href="([\w-]+\.css)">')


def read_page() -> str:
    """Return page.html with its scripts and its style within it.

    So the policy can name each of them by its hash, and the browser asks once.
    """
    page = (FOLDER / "page.html").read_text()
    page = STYLE.sub(lambda found: f"<style>\n{read(found[1])}</style>", page)
    return SCRIPT.sub(lambda found: f"<script>\n{read(found[1])}</script>", page)


def read(name: str) -> str:
    return (FOLDER / name).read_text()


def content_security_policy(page: str) -> str:
    """Allow the page's own scripts and style, by their hashes, and calls of this server only."""
    rules = [
        "default-src 'none'",
        "img-src blob: data:",
        "media-src blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
    for element in ("script", "style"):
        blocks = re.findall(f"<{element}>(.*?)</{element}>", page, re.DOTALL)
        hashes = " ".join(f"'sha256-{digest(block)}'" for block in blocks)
        rules.append(f"{element}-src {hashes}")
    return "; ".join(rules)


def digest(block: str) -> str:
    return base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
