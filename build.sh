#!/usr/bin/env bash
# Build the images stylebot-nst, stylebot-cyclegan and stylebot-bot for linux/amd64, and push them to ECR.
#
# usage: ./build.sh [--tag TAG] [--base-image IMAGE] [--local] [--push | --remote] [--region REGION] [--prefix PREFIX]
#   --tag TAG           the tag of all images, besides latest (default: the commit, with -dirty if files differ)
#   --base-image IMAGE  build on another image that has Python 3.10 or newer and pip
#   --local             build stylebot-local too, which compose.yaml runs beside the others
#   --push              create the repositories PREFIX-nst, ... in ECR if needed, push new images, print digests
#   --remote            the same in CodeBuild, from the files that git tracks: without Docker, disk and amd64 here
#   --region REGION     the region of ECR (default: from the environment or ~/.aws/config)
#   --prefix PREFIX     the prefix of the repositories (default: stylebot)
#
# deploy.py makes all calls to AWS, with boto3. The AWS CLI is not needed.
#
# pip inside the build uses the package index, proxy and CA file that pip uses on this computer
# (`pip config list`, PIP_INDEX_URL, PIP_CERT, ...). They are build secrets: the images do not contain them.
set -euo pipefail
cd "$(dirname "$0")"

# What a first build needs while Docker unpacks it. Later builds need very little.
need_gb=14

# fail LINE ...: print an error and exit
fail() {
  printf 'build.sh: %s\n' "$@" >&2
  exit 1
}

usage() {
  sed -n '2,/^set/{s/^# \{0,1\}//p;}' "$0"
}

# ---- arguments ----

base_image=python:3.11-slim-bookworm
# Empty if this is not a checkout
commit=${REVISION:-$(git describe --always --dirty --exclude='*' 2>/dev/null)} || true
tag=${commit:-latest}
push=
remote=
local_image=
aws_options=(--prefix stylebot)
while [ $# -gt 0 ]; do
  option=$1
  shift
  case $option in
    --tag | --base-image | --region | --prefix)
      if [ -z "${1:-}" ]; then
        fail "$option needs a value."
      fi
      case $option in
        --tag) tag=$1 ;;
        --base-image) base_image=$1 ;;
        --region | --prefix) aws_options+=("$option" "$1") ;;
      esac
      shift
      ;;
    --local) local_image=yes ;;
    --push) push=yes ;;
    --remote) remote=yes ;;
    -h | --help)
      usage
      exit
      ;;
    *)
      usage >&2
      fail "unknown argument: $option"
      ;;
  esac
done

if [[ $tag == *-dirty ]]; then
  echo "Files differ from the commit: the images are tagged $tag." >&2
fi

if [ -n "$remote" ]; then
  exec ./deploy.py remote-build "${aws_options[@]}" --revision "$commit" --base-image "$base_image" "$tag"
fi

# ---- Docker ----

# Docker clients from version 23 on build with the plugin buildx; older ones contain BuildKit. There may be several
# clients on PATH, the first of them without the plugin: take the first one that can build.
export DOCKER_BUILDKIT=1
if ! type -P docker >/dev/null; then
  fail "Docker is not installed. To fix this, run: sudo apt-get install docker.io (or install Docker Desktop)."
fi
build=()
while IFS= read -r docker; do
  if "$docker" buildx version >/dev/null 2>&1; then
    # SageMaker takes Docker's manifest only: no manifest list, which a provenance attestation would make of the image,
    # and no OCI manifest, which engines with containerd's image store write unless told otherwise.
    build=("$docker" buildx build --provenance=false --output "type=docker,oci-mediatypes=false")
    break
  fi
  if [[ $("$docker" --version) =~ version\ (1[89]|2[0-2])\. ]]; then
    build=("$docker" build)
    break
  fi
done < <(type -aP docker)
if [ ${#build[@]} -eq 0 ]; then
  fail "$(docker --version) cannot build without its plugin buildx." \
    "To fix this, run: sudo apt-get install docker-buildx-plugin (in Debian and Ubuntu: docker-buildx)."
fi

if ! answer=$("$docker" version --format '{{.Server.Version}}' 2>&1); then
  answer=${answer##*$'\n'}
  if [[ $answer == *"ermission denied"* ]]; then
    fail "$answer" "To fix this, run: sudo usermod -aG docker $(id -un), then log in again."
  fi
  fail "$answer" "To fix this, run: sudo systemctl start docker (or start Docker Desktop)."
fi

# Find out before the build, which takes minutes, whether AWS accepts the push, and what ECR has under this tag.
if [ -n "$push" ]; then
  repositories=$(./deploy.py repositories "${aws_options[@]}" "$tag") ||
    fail "ECR cannot be used; the lines above say why."
fi

# Empty if Docker's files are on another computer
docker_root=$("$docker" info --format '{{.DockerRootDir}}')
free_gb=$(df --output=avail -BG "$docker_root" 2>/dev/null | tail -1 | tr -dc 0-9) || true

if ! "$docker" image inspect "$base_image" >/dev/null 2>&1; then
  "$docker" pull --platform linux/amd64 "$base_image" ||
    fail "The base image $base_image is not here and cannot be pulled." \
      "To fix this, check its name and the network (docker pull $base_image)," \
      "or choose an image that is here with --base-image."
fi

# ---- pip's settings, as build secrets ----

secrets=$(mktemp -d)
trap 'rm -rf "$secrets"' EXIT
# Lines such as "index-url = https://...". pip lists environment variables first, and they win over its files: of two
# lines with the same key, keep the first.
pip_settings=$(
  python3 -m pip config list 2>/dev/null |
    sed -nE "s/\\\\n/ /g;s/^(global|:env:)\.([a-z-]+)='(.*)'$/\2 = \3/p" |
    awk '!seen[$1]++'
) || true
ca=$(sed -n 's/^cert = //p' <<<"$pip_settings")
ca=${ca/#\~/$HOME}
{
  echo '[global]'
  grep -E '^(index-url|extra-index-url|trusted-host|proxy|timeout|default-timeout|retries) = ' <<<"$pip_settings" || true
  if [ -n "$ca" ]; then
    echo 'cert = /run/secrets/ca.crt'
  fi
} >"$secrets/pip.conf"
secret_options=(--secret "id=pip_conf,src=$secrets/pip.conf")
if [ -n "$ca" ]; then
  secret_options+=(--secret "id=ca,src=$ca")
fi

# ---- build ----

build_image() { # NAME DOCKERFILE BASE_IMAGE
  local image=stylebot-$1
  echo "Building $image:$tag on $3"
  if "${build[@]}" --platform linux/amd64 --build-arg "BASE_IMAGE=$3" "${secret_options[@]}" \
    --label "org.opencontainers.image.revision=$commit" \
    --tag "$image:$tag" --tag "$image:latest" --file "$2" .; then
    return
  fi
  if [ "${free_gb:-$need_gb}" -lt "$need_gb" ]; then
    fail "$image was not built, probably because the disk is full: $free_gb GB were free in $docker_root," \
      "and a first build needs $need_gb." \
      "To fix this, run: docker system prune (it deletes unused images), then run build.sh again."
  fi
  fail "$image was not built; the lines above say why. Finished steps are kept: run build.sh again."
}

for name in nst cyclegan bot; do
  build_image "$name" "containers/$name/Dockerfile" "$base_image"
done
if [ -n "$local_image" ]; then
  build_image local local/Dockerfile "stylebot-cyclegan:$tag"
fi
"$docker" images --filter "reference=stylebot-*:$tag" --format '{{.Repository}}:{{.Tag}}  {{.Size}}'
if [ -z "$push" ]; then
  exit
fi

# ---- push ----

# Whether ECR's image is the one on this computer. Docker identifies an image by the digest of its configuration or,
# with containerd's image store, of its manifest; and it remembers the digests of what it has pushed.
is_same_image() { # IMAGE ADDRESS DIGEST CONFIGURATION
  local id pushed
  id=$("$docker" image inspect --format '{{.Id}}' "$1")
  pushed=$("$docker" image inspect --format '{{join .RepoDigests " "}}' "$1")
  [[ $id == "$3" || $id == "$4" || " $pushed " == *" $2@$3 "* ]]
}

login() { # REGISTRY
  local answer
  answer=$(./deploy.py login-password "${aws_options[@]}" |
    "$docker" login --username AWS --password-stdin "$1" 2>&1) ||
    fail "Docker could not log in to $1: ${answer##*$'\n'}" \
      "To fix this, check the network (proxy, VPN), then run the same command again."
  # Docker keeps the password in a file: log out in the end.
  trap '"$docker" logout "$registry" >/dev/null 2>&1; rm -rf "$secrets"' EXIT
}

# Push the image and set `digest`.
push_image() { # IMAGE ADDRESS
  "$docker" tag "$1" "$2:$tag"
  "$docker" push "$2:$tag" ||
    fail "$1 was not pushed; the lines above say why." \
      "If they say denied: ask for the policy that ./deploy.py policy deployer prints." \
      "If they say no space left: run docker system prune." \
      "Otherwise run the same command again: finished layers are not pushed twice."
  digest=$("$docker" image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$2:$tag" | grep -F "$2@")
  digest=${digest##*@}
}

registry=
digests=
while read -r name address digest configuration; do
  image=stylebot-$name:$tag
  if [ "$digest" = - ]; then
    if [ -z "$registry" ]; then
      registry=${address%%/*}
      login "$registry"
    fi
    echo "Pushing $image to $address"
    push_image "$image" "$address"
  elif [ -n "${CODEBUILD_BUILD_ID:-}" ] || is_same_image "$image" "$address" "$digest" "$configuration"; then
    # An interrupted build in CodeBuild has pushed the image of this commit already.
    echo "$address:$tag exists already."
  else
    fail "$address:$tag exists already and is another image; tags in ECR cannot be changed." \
      "To fix this, commit your changes, or choose another tag: ./build.sh --push --tag NAME." \
      "(An image of the same commit from another computer is another image too. To run that one: ./deploy.py up)"
  fi
  digests+="$address:$tag  $digest"$'\n'
done <<<"$repositories"
# ECR says what was really pushed: SageMaker refuses some manifests.
./deploy.py repositories "${aws_options[@]}" "$tag" >/dev/null ||
  fail "The images are in ECR, but SageMaker would refuse them; the lines above say why."
printf '%s' "$digests"
echo "Next: ./deploy.py up ${aws_options[*]}"
