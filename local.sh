#!/usr/bin/env bash
# All of stylebot on this machine, without an account. The first start sets up .venv with what it needs.
#   ./local.sh [OPTIONS]                        the bot: with a chat in the browser, or in Telegram if TELEGRAM_TOKEN is set
#   ./local.sh demo [--docker] [PHOTO STYLE]    a conversation with the bot; its pictures are in out/
#   ./local.sh train PICTURE --name NAME        a painter of your own, which the chat then offers; train --help says more
#   ./local.sh weights                          fetch the weights again, such as those of painters that are missing
# Options:
#   --docker            run the model servers from the images that ./build.sh makes
#   --idle-minutes N    stop a model server after N minutes without a request; the next request starts it
#   --data DIR          where everything is kept (.local)
#   --chat-port PORT, --s3-port PORT, --sagemaker-port PORT    on 127.0.0.1 (free ports; the chat's is kept)
set -euo pipefail
root=$(cd "$(dirname "$0")" && pwd)
python=$root/.venv/bin/python
weights_are_here=$root/.venv/weights

fetch_weights() {
  "$python" -m containers.nst weights
  "$python" -m containers.cyclegan weights
  touch "$weights_are_here"
}

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
  train)
    module=local.train
    shift
    ;;
  weights)
    "$root/setup.sh" local
    export PYTHONPATH=$root
    fetch_weights
    exit
    ;;
esac

"$root/setup.sh" local
export PYTHONPATH=$root
if [ ! -e "$weights_are_here" ]; then
  fetch_weights
elif [ $module != local.train ]; then
  # One line, if a server did not answer when the weights were fetched. Nothing is fetched now.
  "$python" -m containers.cyclegan weights --missing 2>/dev/null || true
fi
exec "$python" -m "$module" "$@"
