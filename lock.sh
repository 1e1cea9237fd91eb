#!/usr/bin/env bash
# Write locks/*.txt: the exact packages of the images, with their hashes, for every Python from 3.10 on.
#
# usage: ./lock.sh [--upgrade]
#   --upgrade   take the newest version of every package that pyproject.toml does not pin
#
# Without --upgrade, versions change only where pyproject.toml asks for it.
set -euo pipefail
cd "$(dirname "$0")"

case ${1:-} in
  "" | --upgrade) ;;
  *) sed -n '2,/^set/{s/^# \{0,1\}//p;}' "$0" && exit ;;
esac

# The settings of one machine (an index, a folder of wheels, constraints) must not get into the locks.
for name in "${!UV_@}"; do unset "$name"; done
compile=(.venv/bin/uv pip compile --no-config --quiet --universal --python-version 3.10
  --generate-hashes --no-build --custom-compile-command ./lock.sh "$@")

if [ ! -x .venv/bin/uv ]; then
  echo "uv is missing. To install it, run: ./setup.sh dev" >&2
  exit 1
fi
mkdir -p locks

# The bot: [project] dependencies.
"${compile[@]}" pyproject.toml --output-file locks/bot.txt

# PyTorch without the bot's dependencies, so that the largest layer of the images does not change with them.
read_extra='import sys, tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]], sep="\n")'
.venv/bin/python -c "$read_extra" torch | "${compile[@]}" - --output-file locks/torch.txt

# What is used while the images are built, and is not in them.
.venv/bin/python -c "$read_extra" inventory | "${compile[@]}" - --output-file locks/inventory.txt

# What the image for compose.yaml has besides the packages of the image below it.
.venv/bin/python -c "$read_extra" storage | "${compile[@]}" - --output-file locks/storage.txt

# The rest of the model servers, in the versions that PyTorch's layer has already.
"${compile[@]}" pyproject.toml --extra serving --constraint locks/torch.txt --output-file locks/containers.txt
