#!/usr/bin/env bash
# All of stylebot on this machine, without an account; what it needs goes into .venv, once.
#   ./local.sh [--docker]                       the bot, with a chat in the browser, or in Telegram if TELEGRAM_TOKEN is set
#   ./local.sh demo [--docker] [PHOTO STYLE]    plays a conversation through all of it, and leaves the pictures in out/
#   ./local.sh --help                           ports, data, and letting the models sleep
set -euo pipefail
root=$(cd "$(dirname "$0")" && pwd)
"$root/setup.sh" local/requirements.txt
export PYTHONPATH=$root
python=$root/.venv/bin/python
[ -e "$root"/.venv/weights ] || {
  "$python" -m containers.nst weights
  "$python" -m containers.cyclegan weights
  touch "$root"/.venv/weights
}
if [ "${1:-}" = demo ]; then
  shift
  exec "$python" -m local.demo "$@"
fi
exec "$python" -m local.stack "$@"
