#!/usr/bin/env bash
# Make .venv with the packages of these extras of pyproject.toml. Does nothing the second time.
#
# usage: ./setup.sh [EXTRA ...]     (default: containers)
#   containers   the model servers
#   local        what ./local.sh starts
#   test         what ./test.sh runs
#   benchmarks   what `python -m benchmarks` compares with
#   dev          test, and what CONTRIBUTING.md uses besides
#
# PYTHON=/path/to/python3 names the Python to make .venv with.
set -euo pipefail
cd "$(dirname "$0")"

if [[ ${1:-} == -* ]]; then
  sed -n '2,/^set/{s/^# \{0,1\}//p;}' "$0"
  exit
fi
extras=${*:-containers}
extras=${extras// /,}

stamp=.venv/installed-$extras-$(cksum <pyproject.toml | tr ' ' -)
if [ -e "$stamp" ]; then
  exit 0
fi

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
  echo "Python 3.10 or newer is needed as $python. Install it, or name another: PYTHON=/path/to/python3 $0" >&2
  exit 2
fi
echo "Setting up .venv, once: PyTorch is the largest part (200 MB, with CUDA several GB) ..."
if [ ! -x .venv/bin/pip ] && ! "$python" -m venv .venv; then
  echo "A virtual environment could not be made. On Debian and Ubuntu: apt-get install python3-venv" >&2
  exit 2
fi
pip=(.venv/bin/python -m pip --disable-pip-version-check)

if ! command -v nvidia-smi >/dev/null; then
  # PyTorch's own index has builds without CUDA, a tenth of the size. The rest comes from the default index anyway.
  mapfile -t torch < <(sed -nE 's/^ *"(torch(vision)?==[^"]+)",?$/\1/p' pyproject.toml)
  "${pip[@]}" --retries 0 --timeout 15 install --no-deps --index-url https://download.pytorch.org/whl/cpu "${torch[@]}" ||
    echo "PyTorch's own index has no such build or could not be reached: going on with the default package index."
fi

# Editable: the code stays in this folder, and .venv gets only the packages that it needs.
"${pip[@]}" install --editable ".[$extras]"
version=$(.venv/bin/python -c 'from importlib.metadata import version; print(version("torch"))')
case $version in
  *+cpu) echo "Took PyTorch $version, its build for CPUs." ;;
  *) echo "Took PyTorch $version from the default package index, which has CUDA in it." ;;
esac
touch "$stamp"
