#!/usr/bin/env bash
# Build the three images, stylebot-nst, stylebot-cyclegan and stylebot-bot, for linux/amd64, and push them to ECR.
#
# usage: ./build.sh [--tag TAG] [--base-image IMAGE] [--push [--region REGION] [--prefix PREFIX]]
#   --tag TAG           tag all images TAG (default: the commit, with -dirty if files differ from it) and latest
#   --base-image IMAGE  build on another image that has Python 3.10 or newer and pip
#   --push              make repositories PREFIX-nst, ... in ECR if need be, push what is not there yet, print digests
#   --region REGION     of ECR (default: what the AWS settings of this computer say)
#   --prefix PREFIX     of the repositories (default: stylebot)
#
# AWS is asked by deploy.py, with boto3: the AWS CLI need not be installed.
#
# pip inside the build uses the package index, proxy and CA file that pip is set to use here (`pip config list`,
# PIP_INDEX_URL, PIP_CERT, ...). They reach it as build secrets: nothing of them stays in an image.
set -euo pipefail
cd "$(dirname "$0")"

need_gb=14 # a first build, while Docker unpacks it; later ones take next to nothing

fail() {
  printf 'build.sh: %s\n' "$@" >&2
  exit 1
}

usage() {
  sed -n '2,/^set/{s/^# \{0,1\}//p;}' "$0"
}

base_image=python:3.11-slim-bookworm
commit=$(git describe --always --dirty --exclude='*' 2>/dev/null) || true # empty: this is no checkout
tag=${commit:-latest}
push=
aws=(--prefix stylebot)
while [ $# -gt 0 ]; do
  case $1 in
    --tag | --base-image | --region | --prefix)
      [ -n "${2:-}" ] || fail "$1 needs a value."
      case $1 in
        --tag) tag=$2 ;;
        --base-image) base_image=$2 ;;
        *) aws+=("$1" "$2") ;;
      esac
      shift 2
      ;;
    --push) push=yes && shift ;;
    -h | --help) usage && exit ;;
    *) usage >&2 && fail "unknown argument: $1" ;;
  esac
done

[[ $tag != *-dirty ]] || echo "Files differ from the commit: the images are tagged $tag." >&2

# Docker clients from 23 on build through the plugin buildx; older ones carry BuildKit themselves. Take the first on
# PATH that can build: a machine may have a new client without the plugin before a complete older one.
export DOCKER_BUILDKIT=1
type -P docker >/dev/null || fail "Docker is not installed. Mend: sudo apt-get install docker.io (or Docker Desktop)."
build=()
while IFS= read -r docker; do
  if "$docker" buildx version >/dev/null 2>&1; then
    # SageMaker refuses the manifest list that a provenance attestation would make of an image.
    build=("$docker" buildx build --provenance=false --load)
  elif [[ $("$docker" --version) =~ version\ (1[89]|2[0-2])\. ]]; then
    build=("$docker" build)
  else
    continue
  fi
  break
done < <(type -aP docker)
[ ${#build[@]} -gt 0 ] || fail "$(docker --version) cannot build without its plugin buildx." \
  "Mend: sudo apt-get install docker-buildx-plugin (docker-buildx in Debian and Ubuntu)."

if ! answer=$("$docker" version --format '{{.Server.Version}}' 2>&1); then
  answer=${answer##*$'\n'}
  case $answer in
    *"ermission denied"*) fail "$answer" "Mend: sudo usermod -aG docker $(id -un), then log in again." ;;
    *) fail "$answer" "Mend: sudo systemctl start docker (or start Docker Desktop)." ;;
  esac
fi
# Asked before the build, which takes minutes: credentials, permissions, and what is in ECR under this tag.
if [ -n "$push" ]; then
  repositories=$(./deploy.py repositories "${aws[@]}" "$tag") || fail "ECR is not ready; the lines above say why."
fi

docker_root=$("$docker" info --format '{{.DockerRootDir}}')
free_gb=$(df --output=avail -BG "$docker_root" 2>/dev/null | tail -1 | tr -dc 0-9) || true # empty: it is elsewhere

"$docker" image inspect "$base_image" >/dev/null 2>&1 ||
  "$docker" pull --platform linux/amd64 "$base_image" ||
  fail "The base image $base_image is not here and cannot be pulled. Mend: check the name and the network" \
    "(docker pull $base_image), or name an image that is here with --base-image."

secrets=$(mktemp -d)
trap 'rm -rf "$secrets"' EXIT
# Variables come first in pip's list and win over its files, so the first of two equal keys is the one in force.
pip_settings=$(python3 -m pip config list 2>/dev/null | sed -nE "s/\\\\n/ /g;s/^(global|:env:)\.([a-z-]+)='(.*)'$/\2 = \3/p" |
  awk '!seen[$1]++') || true
ca=$(sed -n 's/^cert = //p' <<<"$pip_settings")
ca=${ca/#\~/$HOME}
{
  echo '[global]'
  grep -E '^(index-url|extra-index-url|trusted-host|proxy|timeout|default-timeout|retries) = ' <<<"$pip_settings" || true
  [ -z "$ca" ] || echo 'cert = /run/secrets/ca.crt'
} >"$secrets/pip.conf"
secret_options=(--secret "id=pip_conf,src=$secrets/pip.conf")
[ -z "$ca" ] || secret_options+=(--secret "id=ca,src=$ca")

for name in nst cyclegan bot; do
  image=stylebot-$name
  echo "Building $image:$tag on $base_image"
  "${build[@]}" --platform linux/amd64 --build-arg "BASE_IMAGE=$base_image" "${secret_options[@]}" \
    --label "org.opencontainers.image.revision=$commit" \
    --tag "$image:$tag" --tag "$image:latest" --file "containers/$name/Dockerfile" . ||
    if [ "${free_gb:-$need_gb}" -lt "$need_gb" ]; then
      fail "$image was not built, probably for want of disk space: $free_gb GB were free in $docker_root," \
        "a first build needs $need_gb. Mend: docker system prune (deletes unused images), then run build.sh again."
    else
      fail "$image was not built; the lines above say why. What was finished is kept: run build.sh again."
    fi
done
"$docker" images --filter "reference=stylebot-*:$tag" --format '{{.Repository}}:{{.Tag}}  {{.Size}}'
[ -n "$push" ] || exit 0

# ---- push ----

# Whether an image of this machine is the one that ECR has: Docker calls an image by the digest of its configuration, or,
# with containerd's store, of its manifest; and remembers the digest of what it pushed.
is_there() { # IMAGE ADDRESS DIGEST CONFIGURATION
  local id known
  id=$("$docker" image inspect --format '{{.Id}}' "$1")
  known=$("$docker" image inspect --format '{{join .RepoDigests " "}}' "$1")
  [[ $id == "$3" || $id == "$4" || " $known " == *" $2@$3 "* ]]
}

login() { # REGISTRY
  local answer
  answer=$(./deploy.py login-password "${aws[@]}" | "$docker" login --username AWS --password-stdin "$1" 2>&1) ||
    fail "Docker could not log in to $1: ${answer##*$'\n'}" "Mend: check the network (proxy, VPN), then run it again."
  trap '"$docker" logout "$registry" >/dev/null 2>&1; rm -rf "$secrets"' EXIT # the password stays nowhere
}

push_image() { # IMAGE ADDRESS
  "$docker" tag "$1" "$2:$tag"
  "$docker" push "$2:$tag" ||
    fail "$1 was not pushed; the lines above say why." "Mend: denied: the policy that ./deploy.py policy deployer" \
      "prints; no space left: docker system prune; else run it again: layers that have arrived stay."
  digest=$("$docker" image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$2:$tag" | grep -F "$2@")
  digest=${digest##*@}
}

registry=
digests=
while read -r name address digest configuration; do
  image=stylebot-$name:$tag
  if [ "$digest" = - ]; then
    [ -n "$registry" ] || { registry=${address%%/*} && login "$registry"; }
    echo "Pushing $image to $address"
    push_image "$image" "$address"
  elif is_there "$image" "$address" "$digest" "$configuration"; then
    echo "$address:$tag is there already."
  else
    fail "$address:$tag is there already, and is another image; tags in ECR cannot be changed." \
      "Mend: commit your changes, or name another tag: ./build.sh --push --tag NAME. (The same commit, built on" \
      "another machine, is another image, too: then ./deploy.py up can take the one that is there.)"
  fi
  digests+="$address:$tag  $digest"$'\n'
done <<<"$repositories"
printf '%s' "$digests"
echo "Next: ./deploy.py up ${aws[*]}"
