#!/usr/bin/env bash
# Runs all tests in .venv, which it makes the first time. Arguments go to pytest: ./test.sh -k images
set -euo pipefail
cd "$(dirname "$0")"
./setup.sh tests/requirements.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy bot.py deploy.py containers local examples benchmarks
exec .venv/bin/python -m pytest "$@"
