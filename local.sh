#!/usr/bin/env bash
# All of stylebot on this machine, without an account. The first start sets up .venv with what it needs.
#   ./local.sh [OPTIONS]                        the bot: with a chat in the browser, or in Telegram if TELEGRAM_TOKEN is set
#   ./local.sh demo [--docker] [PHOTO STYLE]    a conversation with the bot; its pictures are in out/
# Options:
#   --docker            run the model servers from the images that ./build.sh makes
#   --idle-minutes N    stop a model server after N minutes without a request; the next request starts it
#   --data DIR          where everything is kept (.local)
#   --chat-port PORT, --s3-port PORT, --sagemaker-port PORT    on 127.0.0.1 (free ports)
set -euo pipefail
root=$(cd "$(dirname "$0")" && pwd)
python=$root/.venv/bin/python
weights_are_here=$root/.venv/weights

module=local.stack
case ${1:-} in
  -h | --help)
    sed -n '2,/^set/s/^# //p' "$0"
    exit
    ;;
  demo)
    module=local.demo
    shift
    ;;
esac

"$root/setup.sh" local
export PYTHONPATH=$root
if [ ! -e "$weights_are_here" ]; then
  "$python" -m containers.nst weights
  "$python" -m containers.cyclegan weights
  touch "$weights_are_here"
fi
exec "$python" -m "$module" "$@"
