#!/usr/bin/env bash
# Check the code and run the tests in .venv, which is made the first time.
#
# usage: ./test.sh [--all] [--long] [--coverage] [PYTEST ARGUMENTS]
#   --all        add tests/soak: half an hour in all. Fails if bot.py or containers/serving has less than 90 % of its
#                branches covered
#   --long       as --all, and with what takes longest: attacks on a model server, and a kill after each change of up
#   --coverage   measure the coverage and print it
#
# Everything else goes to pytest: ./test.sh -k images, ./test.sh -n 0 tests/unit/test_nst.py
set -euo pipefail
cd "$(dirname "$0")"

all=
coverage=
soak=(-m "not long")
arguments=()
for argument in "$@"; do
  case $argument in
    --all) all=yes coverage=yes ;;
    --long) all=yes coverage=yes soak=() ;;
    --coverage) coverage=yes ;;
    -h | --help) sed -n '2,/^set/{s/^# \{0,1\}//p;}' "$0" && exit ;;
    *) arguments+=("$argument") ;;
  esac
done

./setup.sh test
export PATH=$PWD/.venv/bin:$PATH

ruff check .
ruff format --check .
mypy
shellcheck ./*.sh .ci/*
hadolint containers/*/Dockerfile local/Dockerfile

# PyTorch in each process would take all cores, and its threads would spin while they wait for those of the other
# process: on two cores, tests/unit/test_nst.py takes ten times as long then.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# Two processes for each core, since most tests wait for a bot, a server or a container. Measuring the coverage keeps
# the processes busier: three for two cores then.
cores=$(getconf _NPROCESSORS_ONLN)
processes=$((2 * cores))
if [ -n "$coverage" ]; then
  processes=$(((3 * cores + 1) / 2))
fi
if [ "$processes" -gt 8 ]; then
  processes=8
fi
pytest=(python -m pytest --numprocesses "$processes" --dist loadscope)
if [ -z "$coverage" ]; then
  exec "${pytest[@]}" "${arguments[@]}"
fi

# With --all the coverage is measured where strangers' bytes are read: by the tests of the bot and of the servers. In the
# others, whole systems of processes, it would take six minutes more.
measured=()
if [ -n "$all" ]; then
  measured=(tests/unit tests/contract tests/system/test_bot_*.py)
fi
"${pytest[@]}" --cov --cov-report= "${measured[@]}" "${arguments[@]}"
python -m tests.coverage_table ${all:+--require 90}

# The soak tests by themselves, as they kill the bot again and again.
if [ -n "$all" ]; then
  others=(tests/images tests/system/aws tests/system/test_[!b]*.py packages/sagemaker-local-async/tests)
  "${pytest[@]}" "${others[@]}" "${arguments[@]}"
  python -m pytest --numprocesses 2 --dist loadscope "${soak[@]}" tests/soak
fi
