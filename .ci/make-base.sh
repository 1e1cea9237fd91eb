#!/usr/bin/env bash
# Make a stand-in for python:3.11-slim-bookworm out of Debian's own packages, for a machine that can reach
# a Debian mirror but no container registry. As in the real one, python and pip live in /usr/local/bin and
# packages go to /usr/local/lib/python3.11/site-packages. Takes about a minute, needs root and mmdebstrap.
#
# usage: .ci/make-base.sh [TAG]
set -euo pipefail

tag=${1:-python:3.11-slim-bookworm}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# shellcheck disable=SC2016 # "$1" is for the shell that mmdebstrap starts
# The hook makes /bin a link to /usr/bin from the start, as in the real one: else a package full of perl does it.
mmdebstrap --quiet --mode=root --variant=apt --include=ca-certificates,python3-venv,usr-is-merged \
  --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
  --aptopt='APT::Install-Recommends "false"' --dpkgopt=force-unsafe-io \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --customize-hook='chroot "$1" python3 -m venv /usr/local' \
  --customize-hook='rm -rf "$1"/var/cache/apt/*.bin "$1"/var/log/*' \
  bookworm "$root/base.tar"

# A venv's python is the one that is found first on PATH; CMD is the real image's.
docker import --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
  --change 'ENV LANG=C.UTF-8' --change 'CMD ["python3"]' "$root/base.tar" "$tag"
