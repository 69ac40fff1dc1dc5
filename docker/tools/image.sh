#!/bin/sh
# Builds the image of a target of docker/Dockerfile, and prints its size.
# Usage: docker/tools/image.sh TARGET   (agent or sandbox)
# Environment:
#   PIP_PYTHON   a Python with pip
#   SOURCE       the address where the sources are published, for the image's label; default: empty
#   PLATFORM     another platform than this machine's, such as linux/arm64, where the engine can run its programs; its tag ends
#                with -arm64. Not needed on a machine of that platform
#   BASE_IMAGE   the base image; default: the official Python if it is available, else one made from Debian packages
set -eu
cd "$(dirname "$0")/../.."
target=${1:-agent}
limit=130000000
official=$(sed -n 's/^ARG BASE_IMAGE=//p' docker/Dockerfile)
debian=$(docker/tools/base.sh --name)
fail() { echo "image: $*" >&2; exit 1; }

docker version --format '{{.Server.Version}}' >/dev/null 2>&1 || fail "no Docker engine answers; start one, or set DOCKER_HOST"
base=${BASE_IMAGE:-}
platform=${PLATFORM:-}
pull() { docker pull --quiet ${platform:+--platform "$platform"} "$1"; }
if [ -n "$base" ]; then
    echo "Base: $base, from BASE_IMAGE"
elif { [ -z "$platform" ] && docker image inspect "$official" >/dev/null 2>&1; } || pull "$official" >/dev/null 2>&1; then
    base=$official
    echo "Base: $base"
elif [ -n "$platform" ]; then
    fail "$official cannot be pulled for $platform, and a base of Debian packages is made only for this machine's own platform; name one: BASE_IMAGE=name:tag"
else
    base=$debian
    echo "Base: $base, made from Debian packages, because $official is neither here nor in a registry"
    docker image inspect "$base" >/dev/null 2>&1 || docker/tools/base.sh "$base"
fi
mkdir -p build
echo "$base" >build/base-image
docker image inspect "$base" >/dev/null 2>&1 || pull "$base" || fail "there is no image $base, and it cannot be pulled"

label=--label=${RUN_LABEL:-org.tetrascience.build=image}
python=$(docker run --rm "$label" ${platform:+--platform "$platform"} --network none --entrypoint python3 "$base" \
    -c 'import os, sys; print("%d.%d" % sys.version_info[:2], os.uname().machine)') ||
    fail "$base has no python3${platform:+, or this engine cannot run programs of $platform: build on a machine of that platform}"
docker/tools/wheels.sh "${PIP_PYTHON:-python3}" "${python% *}" "${python#* }"

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' relay_agent/__init__.py)
# All files in the layers have the time of the commit, so the same commit gives the same layers.
if epoch=$(git log -1 --format=%ct 2>/dev/null); then
    revision=$(git rev-parse HEAD)
    created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)
    [ -z "$(git status --porcelain --untracked-files=no)" ] || revision=$revision-modified
else
    epoch=1577836800 revision='' created=''
fi
case $target in agent) name=ts-agent-http-relay ;; sandbox) name=ts-agent-http-relay-sandbox ;; *) fail "no target $target" ;; esac
suffix=${platform:+-${platform##*/}}
tag=$name:v$version$suffix
log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "Building $tag"
docker build --file docker/Dockerfile --target "$target" --tag "$tag" --tag "$name:latest$suffix" ${platform:+--platform "$platform"} \
    --build-arg BASE_IMAGE="$base" --build-arg SOURCE_DATE_EPOCH="$epoch" --build-arg VERSION="$version" \
    --build-arg REVISION="$revision" --build-arg CREATED="$created" --build-arg SOURCE="${SOURCE:-}" . >"$log" 2>&1 || {
    tail -n 40 "$log" >&2
    fail "the build failed; its last lines are above"
}
size=$(docker image inspect --format '{{.Size}}' "$tag")
echo "Built $tag, $size bytes, image id $(docker image inspect --format '{{.Id}}' "$tag")"
if [ "$target" = agent ] && [ "$size" -gt "$limit" ]; then
    [ "$base" != "$debian" ] || fail "the image has $size bytes, $((size - limit)) over the limit of $limit"
    echo "That is over $limit bytes, the limit for images on the Debian base."
fi
