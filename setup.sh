#!/usr/bin/env bash
# setup.sh [REQUIREMENTS ...]: makes .venv with what the containers need, and these files too. Does nothing the second time.
set -euo pipefail
cd "$(dirname "$0")"
stamp=".venv/installed-$(cat containers/requirements*.txt "$@" | cksum | tr ' ' -)"
[ -e "$stamp" ] && exit 0

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
if ! "${pip[@]}" install --no-index --quiet -r containers/requirements-torch.txt 2>/dev/null; then
  # PyTorch's own index has builds without CUDA, a tenth of the size
  if command -v nvidia-smi >/dev/null; then
    "${pip[@]}" install -r containers/requirements-torch.txt
    echo "Took PyTorch with CUDA from the default package index."
  elif "${pip[@]}" --retries 0 --timeout 15 install --index-url https://download.pytorch.org/whl/cpu \
    -r containers/requirements-torch.txt; then
    echo "Took PyTorch's build for CPUs from its own index."
  else
    "${pip[@]}" install -r containers/requirements-torch.txt
    echo "PyTorch's own index has no such build or could not be reached: took PyTorch from the default package index."
  fi
fi
extra=()
for file in containers/requirements.txt "$@"; do extra+=(-r "$file"); done
"${pip[@]}" install "${extra[@]}"
touch "$stamp"
