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
if ! command -v nvidia-smi >/dev/null; then
  # PyTorch's own index has builds without CUDA, a tenth of the size. The rest comes from the default index anyway.
  mapfile -t torch < <(grep ^torch containers/requirements-torch.txt)
  "${pip[@]}" --retries 0 --timeout 15 install --no-deps --index-url https://download.pytorch.org/whl/cpu "${torch[@]}" ||
    echo "PyTorch's own index has no such build or could not be reached: going on with the default package index."
fi
all=()
for file in containers/requirements-torch.txt containers/requirements.txt "$@"; do all+=(-r "$file"); done
"${pip[@]}" install "${all[@]}"
version=$(.venv/bin/python -c 'from importlib.metadata import version; print(version("torch"))')
case $version in
  *+cpu) echo "Took PyTorch $version, its build for CPUs." ;;
  *) echo "Took PyTorch $version from the default package index, which has CUDA in it." ;;
esac
touch "$stamp"
