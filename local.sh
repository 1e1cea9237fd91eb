#!/usr/bin/env bash
# All of stylebot on this machine, without an account; what it needs goes into .venv, once.
#   ./local.sh [OPTIONS]                        the bot: a chat in the browser, or in Telegram where TELEGRAM_TOKEN is set
#   ./local.sh demo [--docker] [PHOTO STYLE]    plays a conversation through all of it; the pictures are in out/
# Options:
#   --docker            the model servers from the images of ./build.sh
#   --idle-minutes N    a model server that has had nothing to do is stopped, and woken by the next request
#   --data DIR          where everything is kept (.local)
#   --chat-port, --s3-port, --sagemaker-port PORT    on 127.0.0.1 (free ones)
set -euo pipefail
root=$(cd "$(dirname "$0")" && pwd)
case ${1:-} in
  -h | --help) sed -n '2,/^set/s/^# //p' "$0" && exit ;;
  demo) module=local.demo && shift ;;
  *) module=local.stack ;;
esac
"$root/setup.sh" local
export PYTHONPATH=$root
python=$root/.venv/bin/python
[ -e "$root"/.venv/weights ] || {
  "$python" -m containers.nst weights
  "$python" -m containers.cyclegan weights
  touch "$root"/.venv/weights
}
exec "$python" -m "$module" "$@"
