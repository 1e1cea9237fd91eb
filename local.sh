#!/usr/bin/env bash
# stylebot on this machine; what it needs goes into .venv, once.
#   ./local.sh demo [PHOTO STYLE]    paints a photograph twice, through both model servers, into out/
set -euo pipefail
root=$(cd "$(dirname "$0")" && pwd)
if [ "${1:-}" != demo ]; then
  sed -n '2,3s/^# //p' "$0"
  exit 2
fi
shift
"$root/setup.sh"
export PYTHONPATH=$root
python=$root/.venv/bin/python
[ -e "$root"/.venv/weights ] || {
  "$python" -m containers.nst weights
  "$python" -m containers.cyclegan weights
  touch "$root"/.venv/weights
}
exec "$python" -m local.demo "$@"
